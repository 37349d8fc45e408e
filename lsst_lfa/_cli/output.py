"""What a command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

__all__ = ["Output", "discard_output", "human_size", "printable"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_KILO = 1000


def printable(text: str) -> str:
    """Escape what would break a line or command a terminal: names may hold anything."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def human_size(count: float) -> str:
    """Return a number of bytes as people read it, in powers of 1000: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        digits = 1 if unit != "B" and count < 99.95 else 0  # noqa: PLR2004 - what would be written as 100.0
        if round(count, digits) < _KILO:
            return f"{count:.{digits}f} {unit}"
        count /= _KILO
    return f"{count:.1f} TB"


def discard_output() -> None:
    """Discard what could not be written to stdout: Python would try again at exit, and fail in its own way."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Output:
    """Where a command's output goes, and how much of it there is.

    Parameters
    ----------
    quiet, debug : `bool`
        Say nothing but errors; show tracebacks.
    verbose : `int`
        How much more to say.
    """

    def __init__(self, *, quiet: bool = False, verbose: int = 0, debug: bool = False) -> None:
        self.quiet = bool(quiet)
        self.verbose = verbose
        self.debug = bool(debug)
        self._above: Console | None = None

    def line(self, text: str) -> None:
        """Write a line of the result."""
        if self._above is not None:
            self._above.print(text, soft_wrap=True)
        else:
            sys.stdout.write(f"{text}\n")

    def name(self, text: str) -> None:
        """Write a line of what others named: whatever is in it, it stays one line."""
        self.line(printable(text))

    @contextmanager
    def above(self, console: Console) -> Iterator[None]:
        """Write lines above what the console shows meanwhile, if both are the same terminal."""
        self._above = console if sys.stdout.isatty() else None
        try:
            yield
        finally:
            self._above = None

    def json(self, item: dict[str, Any]) -> None:
        """Write an item as a line of JSON; times as ISO 8601."""
        self.line(json.dumps(item, default=_plain))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; in a pipe as wide as it needs, without lines, so that `awk` can read it."""
        cells = [[printable(cell) for cell in row] for row in rows]
        if not sys.stdout.isatty():
            widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
            for row in (columns, *cells):
                self.line("  ".join(map(str.ljust, row, widths)).rstrip())
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        self.console().print(table)

    def console(self, *, stderr: bool = False) -> Console:
        """Return rich's console on stdout or stderr, which knows of terminals and ``NO_COLOR``."""
        from rich.console import Console

        return Console(stderr=stderr, highlight=False, markup=False, emoji=False)

    def note(self, text: str) -> None:
        """Say what was done, if somebody is at a terminal or asked for more."""
        if not self.quiet and (self.verbose or sys.stderr.isatty()):
            self.error(text)

    def detail(self, text: str) -> None:
        """Say more than most want to know."""
        if self.verbose and not self.quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Say what went wrong."""
        sys.stderr.write("".join(f"lsst-lfa: {printable(line)}\n" for line in text.split("\n")))

    def flush(self) -> None:
        """Write what is buffered, so that a closed pipe is noticed now, not at exit."""
        sys.stdout.flush()


def _plain(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
