"""The time limit of one attempt, which moves on as bytes do."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .config import TransferConfig

__all__ = ["StallTimeout", "note_work"]

# S3 may take minutes to complete an upload, and sends white space meanwhile. More seconds than these are a fault.
_LONGEST_WORK = 600.0
_current: ContextVar[StallTimeout | None] = ContextVar("_current", default=None)


def note_work() -> None:
    """Note, for the attempt that this task is at, that the server says that it is still at work."""
    timeout = _current.get()
    if timeout is not None:
        timeout.note_work()


class StallTimeout:
    """Ends its block with `TimeoutError` when a server stalls.

    That is when nothing moved for ``stall_timeout`` seconds, or when less than
    ``min_rate`` bytes per second did.

    Parameters
    ----------
    config : `TransferConfig`
        The limits.
    extra_timeout : `float`
        Seconds to wait in addition for a response that costs the server work.
    """

    def __init__(self, config: TransferConfig, extra_timeout: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._min_rate = config.min_rate
        self._limit = config.stall_timeout + extra_timeout
        self._scope = asyncio.timeout(None)
        self._began = self._start = self._last = self._loop.time()
        self._moved = 0
        self._kept = 0
        self._over = False
        self.caller_error: BaseException | None = None
        """What was raised in `suspended`: the caller's own error, and not the server's."""

    @property
    def idle(self) -> float:
        """Seconds since bytes moved last."""
        return self._loop.time() - self._last

    @property
    def progressed(self) -> bool:
        """Whether bytes came that need not come again, and fast enough."""
        return 0 < self._kept >= self._min_rate * (self._loop.time() - self._start - self._limit)

    def made_progress(self, count: int, *, keep: bool = False) -> None:
        """Note that ``count`` bytes moved; ``keep`` if a retry goes on after them."""
        self._moved += count
        self._kept += count if keep else 0
        self._last = self._loop.time()

    def note_work(self) -> None:
        """Let the server take its time, as it asks to."""
        now = self._loop.time()
        if now < self._began + _LONGEST_WORK:
            self._start += now - self._last
            self._last = now

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the block take its time: what it waits for is not the server."""
        self._timer.cancel()
        before = self._loop.time()
        try:
            yield
        except BaseException as error:
            self.caller_error = error
            raise
        finally:
            self._last = self._loop.time()
            self._start += self._last - before
            self._watch()

    def _watch(self) -> None:
        """End the attempt, or look again when it could be too slow at the earliest.

        One timer for many chunks: to move it with each would cost more than noting the time.
        """
        if self._over:
            return
        limit = self._limit + min(self._last, self._start + self._moved / self._min_rate)
        if limit <= self._loop.time():
            self._scope.reschedule(limit)
        else:
            self._timer = self._loop.call_at(limit, self._watch)

    async def __aenter__(self) -> Self:
        self._token = _current.set(self)
        self._began = self._start = self._last = self._loop.time()
        await self._scope.__aenter__()
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        self._over = True
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)
