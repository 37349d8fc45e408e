"""The command line, ``lsst-lfa``.

`main` starts it; `group` knows the commands; `command` creates one from a
coroutine function, and `runner` runs it and reports the outcome. A command's
module is also loaded for its ``--help``, so it imports nothing that takes
time; the module that does the work does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = {"PIL", "click", "matplotlib", "rich"}


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
