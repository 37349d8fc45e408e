"""An event loop that waits for nothing: where nothing can happen before its next timer, its clock moves on to it.

A server that is silent, and the pause before a retry, then take no time. Server, proxy and client share the loop, and
what one sends the other has at once: silence is the end of it, unless a thread is still at work.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from lsst_lfa._transfer.concurrency import OwnThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor, Future

QUIET = 0.01
"""Seconds without an event, after which there will be none: what the loop sends itself, it has within microseconds."""


class Jobs:
    """What threads are at work on, and when the last of it was done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._changed = 0.0

    @property
    def under_way(self) -> bool:
        """Whether a loop may yet hear from a thread."""
        return self._count > 0 or time.monotonic() < self._changed + QUIET

    def _add(self, count: int) -> None:
        with self._lock:
            self._count += count
            self._changed = time.monotonic()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the jobs of all threads in the context."""
        with self._counting(ThreadPoolExecutor), self._counting(OwnThread):
            yield

    def _counting(self, kind: type[Executor]) -> Any:
        submit: Callable[..., Future[Any]] = kind.submit

        def counted(executor: Executor, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = submit(executor, *args, **kwargs)
            self._add(1)
            future.add_done_callback(lambda _: self._add(-1))
            return future

        return patch.object(kind, "submit", counted)


JOBS = Jobs()


class FastClockLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, whose clock may run ahead."""

    def __init__(self) -> None:
        self._waiting = _Selector()
        super().__init__(self._waiting)

    def time(self) -> float:
        """Return the time, with what was skipped of it."""
        return super().time() + self._waiting.skipped


class _Selector(selectors.DefaultSelector):
    """Waits for events; for a timer only as long as there may be one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= QUIET:
            return super().select(timeout)
        began, busy = time.monotonic(), JOBS.under_way
        events = super().select(QUIET)
        if not events and not busy and not JOBS.under_way:
            self.skipped += max(0.0, timeout - (time.monotonic() - began))
        return events
