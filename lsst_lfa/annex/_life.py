"""An annex between its start and its end, in one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from lsst_lfa._transfer.concurrency import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._publication import Publisher

__all__ = ["Life"]

log = logging.getLogger(__name__)


class Life:
    """An annex between `start` and `aclose`, in one event loop.

    Parameters
    ----------
    publisher : `Publisher`
        The state that its publications share.
    seen_sequence : callable
        Called with the highest place in the order that earlier processes used.
    """

    def __init__(self, publisher: Publisher, seen_sequence: Callable[[int], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self.opened = False
        self.closing = False
        self._closed = asyncio.Event()
        self.publisher = publisher
        self.announcer = publisher.announcer
        self.drain = publisher.drain
        self._seen_sequence = seen_sequence
        self._opening = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def here(self) -> bool:
        """Whether it belongs to the event loop that runs.

        Raises
        ------
        RuntimeError
            If it belongs to another one, which is still open and needs it.
        """
        if self.loop is asyncio.get_running_loop():
            return True
        if not (self.loop.is_closed() or self._closed.is_set() or self._pid != os.getpid()):
            msg = "this annex belongs to another event loop that is still open: close it there, or make another one"
            raise RuntimeError(msg)
        return False

    @property
    def usable(self) -> bool:
        """Whether it belongs to the running loop, and still works."""
        if not self.here or self._closed.is_set():
            return False
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()  # a bug in the background propagates
        return self._task is None or not self._task.done()

    async def open(self) -> None:
        """Find what waits, and begin to send it; not if it is being closed."""
        if self.opened:
            return
        async with self._opening:
            if not self.opened and not self.closing:
                self._seen_sequence(await self.drain.open())
                self._task = asyncio.create_task(self.drain.run(), name="lsst_lfa annex")
                self.opened = True

    async def ended(self) -> None:
        """Wait until it is closed."""
        await self._closed.wait()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - files are safe or not by then
        """Make the files that are being published safe, and stop. Idempotent."""
        if self.closing:
            await self.ended()
            return
        self.closing = True
        self.publisher.hurry.set()
        try:
            async with asyncio.timeout(timeout):
                while self.drain.publications:
                    self.drain.changed.clear()
                    await self.drain.changed.wait()
        except TimeoutError:
            log.warning("%d files are still being published, while the annex is closed", self.drain.publications)
        finally:
            try:
                await uninterrupted(self._stop(), grace=None)
            finally:
                self._closed.set()

    async def _stop(self) -> None:
        async with self._opening:  # what is being opened has a task soon
            pass
        tasks = set(self.publisher.tasks)
        if self._task is not None:
            self._task.cancel()
            tasks.add(self._task)
        if tasks:
            await asyncio.wait(tasks)
        if self.announcer.due:
            await self.announcer.flush()
        await self.drain.prune()
        if self.announcer.due:
            log.error("events are still due while the annex is closed; those of files in the spool are sent later")
