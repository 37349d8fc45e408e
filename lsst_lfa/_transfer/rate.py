"""A limit on the bytes per second of all transfers together."""

from __future__ import annotations

import asyncio
import math

__all__ = ["RateLimiter"]

# Bytes that pass between two looks at the clock, in seconds.
_SLICE = 0.05
_LEAST_SLICE = 16 * 1024


class RateLimiter:
    """Lets bytes pass at a fixed rate, first come, first served, without saving up unused time.

    Parameters
    ----------
    rate : `float` or `None`
        Bytes per second; `None` is no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate or math.inf
        self._loop = asyncio.get_running_loop()
        self._free = 0.0

    @property
    def chunk(self) -> int | None:
        """The maximum number of bytes that should pass at once; `None` means no limit."""
        return None if math.isinf(self._rate) else max(_LEAST_SLICE, int(self._rate * _SLICE))

    async def take(self, count: int) -> None:
        """Wait until ``count`` more bytes may pass."""
        now = self._loop.time()
        self._free = max(self._free, now) + count / self._rate
        if self._free > now:
            await asyncio.sleep(self._free - now)
