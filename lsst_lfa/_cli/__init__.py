"""The command line, ``lsst-lfa``.

`program` is the process, and `main` starts a command; `group` knows the
commands; `command` creates one from a coroutine function, and `runner` runs it
and reports the outcome. A command's module is also loaded for its ``--help``,
so it imports nothing that takes time; the module that does the work does.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "program"]

_EXTRA = {"PIL", "click", "matplotlib", "rich"}


def program() -> int:
    """Run the command line in a process of its own; return its exit code."""
    try:
        return main()
    finally:
        # Or Python would search all that was imported for garbage before it ends: a sixth of the time of `ls`.
        gc.freeze()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    try:
        from .group import run_group

        return run_group(arguments)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(f"lsst-lfa: {error.name} is not installed. Do: pip install 'lsst-lfa[cli]'\n")
        return 1
    except KeyboardInterrupt:  # before there was anything to clean up
        return 130
