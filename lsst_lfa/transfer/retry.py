"""When to try again, and when to give up: attempts, back-off, time limits."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from lsst_lfa.errors import LfaError, ServiceError

from .diagnosis import is_transient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from lsst_lfa.config import TransferConfig

__all__ = ["Pace", "Retries", "back_off"]

_LONGEST_DELAY = 5.0


def back_off(first: float, failures: int, spread: float) -> float:
    """Seconds to wait after so many failures in a row.

    Doubles from ``first`` to 5 s; ``spread``, from 0 to 1, takes up to half of
    it off, so that many clients do not come back together.
    """
    longest: float = min(_LONGEST_DELAY, first * 2.0 ** (failures - 1))
    return longest * (1 - spread / 2)


class Retries:
    """Decides after each failure of one request whether it is tried again."""

    def __init__(self, config: TransferConfig) -> None:
        self._config = config
        self._failures = 0
        self._idle = 0.0

    def delay_after(self, error: LfaError, pace: Pace) -> float | None:
        """Seconds to wait before the next attempt; `None` to give up.

        Limited in failures in a row, and in the time in which nothing moved.
        An attempt that brought something to keep starts both anew.
        """
        if pace.gained:
            self._failures, self._idle = 0, 0.0
        self._failures += 1
        self._idle += pace.idle
        if not is_transient(error) or self._failures >= self._config.attempts:
            return None
        delay = back_off(self._config.retry_delay, self._failures, random.random())  # noqa: S311 - not a secret
        delay = max(delay, _retry_after(error))
        self._idle += delay
        return delay if self._idle < self._config.retry_for else None


def _retry_after(error: LfaError) -> float:
    """Seconds that the server asked us to wait (RFC 9110, 10.2.3)."""
    if not isinstance(error, ServiceError):
        return 0.0
    headers: dict[str, Any] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = str(headers.get("retry-after", ""))
    return float(value) if value.isdecimal() else 0.0


class Pace:
    """The time limit of one attempt, which moves on as bytes do.

    It ends with `TimeoutError` when nothing moved for ``request_timeout``
    seconds, or when less than ``min_rate`` bytes per second did.

    Parameters
    ----------
    config : `TransferConfig`
        The limits.
    patience : `float`
        Seconds to wait in addition for an answer that costs the server work.
    """

    def __init__(self, config: TransferConfig, patience: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._min_rate = config.min_rate
        self._patience = config.request_timeout + patience
        self._scope = asyncio.timeout(None)
        self._start = self._last = self._loop.time()
        self._moved = 0
        self._kept = 0

    @property
    def idle(self) -> float:
        """Seconds since bytes moved last."""
        return self._loop.time() - self._last

    @property
    def gained(self) -> bool:
        """Whether bytes came that need not come again, and fast enough."""
        return 0 < self._kept >= self._min_rate * (self._loop.time() - self._start - self._patience)

    def moved(self, count: int, *, keep: bool = False) -> None:
        """Note that ``count`` bytes moved; ``keep`` if a retry goes on after them."""
        self._moved += count
        self._kept += count if keep else 0
        self._last = self._loop.time()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the block take its time: what it waits for is not the server."""
        self._timer.cancel()
        before = self._loop.time()
        try:
            yield
        finally:
            self._last = self._loop.time()
            self._start += self._last - before
            self._watch()

    def _watch(self) -> None:
        """End the attempt, or look again when it could be too slow at the earliest.

        One timer for many chunks: to move it with each would cost more than noting the time.
        """
        limit = self._patience + min(self._last, self._start + self._moved / self._min_rate)
        if limit <= self._loop.time():
            self._scope.reschedule(limit)
        else:
            self._timer = self._loop.call_at(limit, self._watch)

    async def __aenter__(self) -> Self:
        self._start = self._last = self._loop.time()
        await self._scope.__aenter__()
        self._watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)
