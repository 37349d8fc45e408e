"""A progress bar on a terminal; nothing in a pipe."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from .output import Output

__all__ = ["Tally", "tally"]


class Tally:
    """Counts what was moved, and shows it while it moves.

    Attributes
    ----------
    visible : `bool`
        Whether there is a bar: if not, nobody needs to know the total.
    """

    def __init__(self, output: Output) -> None:
        self.visible = False
        self._output = output
        self._bar: Progress | None = None
        self._began = time.monotonic()
        self._expected = self._files = self._equal = self._size = 0

    def expect(self, size: int) -> None:
        """Note that so many more bytes are to be moved."""
        self._expected += size
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=self._expected)

    def advance(self, count: int) -> None:
        """Note that so many more bytes were moved: a callback for the verbs."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)

    def done(self, size: int | None) -> None:
        """Note that a file is at its destination; `None`: it was there already."""
        self._files += size is not None
        self._equal += size is None
        self._size += size or 0

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """Show a bar on stderr, if that is a terminal."""
        if self._output.quiet or not sys.stderr.isatty() or os.environ.get("TERM") in {"dumb", "unknown"}:
            yield
            return
        from rich import progress

        console = self._output.console(stderr=True)

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        bar = progress.Progress(*columns, console=console, transient=True, redirect_stdout=False)
        bar.add_task(printable(what), total=None)
        self.visible, self._bar = True, bar
        with self._output.above(console), bar:
            yield

    def tell(self) -> None:
        """Say what was done."""
        seconds = time.monotonic() - self._began
        files = f"{self._files} file{'s' * (self._files != 1)}"
        rate = f" ({human_size(self._size / seconds)}/s)" if self._size else ""
        equal = f"; {self._equal} equal already" if self._equal else ""
        if self._files or self._equal:
            self._output.note(f"{files}, {human_size(self._size)} in {seconds:.1f} s{rate}{equal}")


@contextmanager
def tally(output: Output, what: str) -> Iterator[Tally]:
    """Count what is moved in the block, show it, and say it at its end, however it ends."""
    made = Tally(output)
    try:
        with made.shown(what):
            yield made
    finally:
        made.tell()
