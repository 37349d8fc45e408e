"""The stall timeout: the time limit of one attempt, which is extended as long as bytes move."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .config import TransferConfig

__all__ = ["StallTimeout", "note_work"]

# S3 may take minutes to complete an upload, and sends white space in the meantime. Longer than this is a fault.
_LONGEST_WORK = 600.0
_current: ContextVar[StallTimeout | None] = ContextVar("_current", default=None)


def note_work() -> None:
    """Note, for this task's attempt, that the server says that it is still working."""
    timeout = _current.get()
    if timeout is not None:
        timeout.note_work()


class StallTimeout:
    """Raises `TimeoutError` from its block when a server stalls.

    That is when nothing has moved for ``stall_timeout`` seconds, or less than
    ``min_rate`` bytes per second.

    Parameters
    ----------
    config : `TransferConfig`
        The limits.
    extra_timeout : `float`
        Additional seconds for a response that takes the server time to
        produce.
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
        """An exception raised in `suspended`: the caller's own error, not the server's."""

    @property
    def idle(self) -> float:
        """Seconds since the last bytes moved."""
        return self._loop.time() - self._last

    @property
    def progressed(self) -> bool:
        """Whether bytes arrived that need not be sent again, and fast enough."""
        return 0 < self._kept >= self._min_rate * (self._loop.time() - self._start - self._limit)

    def made_progress(self, count: int, *, keep: bool = False) -> None:
        """Note that ``count`` bytes moved; ``keep`` if a retry continues after them."""
        self._moved += count
        self._kept += count if keep else 0
        self._last = self._loop.time()

    def note_work(self) -> None:
        """Wait longer, because the server asks for it."""
        now = self._loop.time()
        if now < self._began + _LONGEST_WORK:
            self._start += now - self._last
            self._last = now

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend the limit in the block, which does not wait for the server."""
        self._timer.cancel()
        before = self._loop.time()
        try:
            yield
        except BaseException as error:
            self.caller_error = error
            raise
        finally:
            self._last = self._loop.time()
            self._start += self._last - before  # that time does not lower the average rate either
            self._watch()

    def _watch(self) -> None:
        """Abort the attempt, or check again at the earliest time at which it could be too slow.

        One timer for many chunks: moving it with each would cost more than
        noting the time.
        """
        if self._over:
            return
        limit = self._limit + min(self._last, self._start + self._moved / self._min_rate)
        if limit <= self._loop.time():
            self._scope.reschedule(limit)
        else:
            # Not with a copy of this context, which has a reference to us: only the garbage collector would free it.
            self._timer = self._loop.call_at(limit, self._watch, context=Context())

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
