"""``python -m lsst_lfa``: the command line, as ``lsst-lfa``."""

import sys

from lsst_lfa._cli import program

if __name__ == "__main__":
    sys.exit(program())
