"""Lanes: how many requests that carry data run in parallel on a client, in each direction."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from .tuning import Sample, Tuning, decide, initial

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Lanes"]

# A decision needs this many seconds of measuring, or the time of this many small requests.
_LEAST = 0.2
_LATENCIES = 3.0
# Until a small request has been timed, the network's delay is assumed to be short.
_UNKNOWN = 0.003


class Lanes:
    """A semaphore whose size adapts to the measured throughput; see `tuning`.

    First come, first served: transfers that run at the same time share it.

    Parameters
    ----------
    ceiling : `int`
        The maximum number of parallel requests, whatever is measured.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._loop = asyncio.get_running_loop()
        self._latency = _UNKNOWN
        self._tuning: Tuning | None = None
        self._measured = False
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._throttled = False
        self._heard = -math.inf
        self._noted = self._loop.time()
        self._restart()

    @property
    def width(self) -> int:
        """How many requests may run in parallel now."""
        return self._current().target

    def _current(self) -> Tuning:
        if self._tuning is None:
            self._tuning = initial(self._latency, self._ceiling)
        return self._tuning

    def took(self, seconds: float) -> None:
        """Note how long a small request, or the arrival of a response's headers, took.

        Until data are measured, the shortest time tells the network's delay.
        """
        if not self._measured and self._latency in (_UNKNOWN, max(self._latency, seconds)):
            self._latency = seconds
            self._tuning = None
            self._wake()

    def throttled(self) -> None:
        """Note that the server asked us to slow down; counted once for all requests that are told at the same time."""
        if self._loop.time() >= self._heard + _LEAST:
            self._heard = self._loop.time()
            self._throttled = True
            self._decide()

    def moved(self, count: int) -> None:
        """Note that ``count`` bytes moved."""
        self._moved += count
        if self._loop.time() >= self._due:
            self._decide()

    async def acquire(self) -> None:
        """Wait for a lane."""
        if self._busy < self.width and not self._waiting:
            self._take(1)
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def release(self) -> None:
        """Give a lane back."""
        self._take(-1)
        self._wake()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wake(self) -> None:
        while self._waiting and self._busy < self.width:
            turn = self._waiting.popleft()
            if not turn.done():
                self._take(1)
                turn.set_result(None)

    def _take(self, count: int) -> None:
        now = self._loop.time()
        if not self._busy:  # nothing was in progress, so that time says nothing about the network
            self._restart()
        self._lane_seconds += self._busy * (now - self._noted)
        self._noted = now
        self._busy += count

    def _restart(self) -> None:
        """Measure from now on."""
        self._moved = 0
        self._lane_seconds = 0.0
        self._start = self._noted = self._loop.time()
        self._due = self._start + max(_LEAST, _LATENCIES * self._latency)

    def _decide(self) -> None:
        self._take(0)
        now = self._loop.time()
        seconds = now - self._start
        before = self._current()
        if seconds > 0:
            sample = Sample(now, self._moved / seconds, self._lane_seconds / seconds, self._throttled)
            self._tuning = decide(before, sample, self._ceiling)
            self._measured = True
        elif self._throttled:  # that counts, however little was measured
            self._tuning = decide(before, Sample(now, 0.0, 0.0, throttled=True), self._ceiling)
        self._throttled = False
        self._restart()
        if self._current().target != before.target:
            # Requests that have just started or ended are not at their full rate.
            self._start += self._latency
            self._due += self._latency
        self._wake()
