"""What is measured, inside the process that transfers: CPU, memory, and how long the event loop could not run."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import selectors
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["IterationTimer", "Stalls", "cpu_time", "forget_peak", "memory", "watch"]

_TICK = 0.001
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class IterationTimer(selectors.DefaultSelector):
    """A selector that takes the CPU time of the loop's thread between one wait and the next.

    Attributes
    ----------
    longest : `float`
        The longest iteration since `reset`, in seconds. Other threads and other processes have no part in it.
    """

    longest = 0.0
    _since = 0.0

    def reset(self) -> None:
        """Begin anew; call it on the loop's thread."""
        self.longest, self._since = 0.0, time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, as the event loop asks."""
        self.longest = max(self.longest, time.thread_time() - self._since)
        try:
            return super().select(timeout)
        finally:
            self._since = time.thread_time()


class Stalls:
    """How late a task ran that wanted to run each millisecond.

    Attributes
    ----------
    late : `list` [`float`]
        Seconds beyond the millisecond.
    """

    def __init__(self) -> None:
        self.late: list[float] = []

    async def tick(self) -> None:
        """Sleep and wake until cancelled."""
        since = time.perf_counter()
        while True:
            try:
                await asyncio.sleep(_TICK)
            finally:
                # The last wait counts too: it may have been the longest.
                now = time.perf_counter()
                self.late.append(max(now - since - _TICK, 0.0))
                since = now

    def percentile(self, share: float) -> float:
        """Return the lateness that ``share`` of the ticks did not exceed, in seconds."""
        ordered = sorted(self.late)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@asynccontextmanager
async def watch() -> AsyncIterator[Stalls]:
    """Tick while the block runs."""
    stalls = Stalls()
    ticker = asyncio.create_task(stalls.tick())
    await asyncio.sleep(10 * _TICK)
    stalls.late.clear()
    try:
        yield stalls
    finally:
        ticker.cancel()
        await asyncio.wait([ticker])


def cpu_time() -> float:
    """CPU seconds of all threads of this process, in user and system mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory(field: str) -> int:
    """Bytes that this process holds (``VmRSS``), or held at most since `forget_peak` (``VmHWM``)."""
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


def forget_peak() -> None:
    """Give back what is free, and let the peak of memory begin here."""
    gc.collect()
    # What the warm-up freed would be used again, and be missing from the peak.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text(_RESET_PEAK)
