"""How fast, how light and how quiet on the event loop a transfer is, for this package and its peers.

`python -m tests.benchmark` compares, `python -m tests.benchmark.sweep` looks for good settings of this package, and
`python -m tests.benchmark.profile` shows where a transfer's CPU time goes.
"""
