"""Lines that change: one that changes its rate, one that drops connections.

One large object is transferred after another meanwhile. What arrived is counted at the line, whoever transfers.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .line import order
from .peers import is_ours
from .target import CHANGES, DROPS
from .work import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .peers import Transfers
    from .target import Job

    Measures = dict[str, Any]
    Series = Sequence[tuple[float, float]]

__all__ = ["RATES", "SCENARIO_CASES", "Phase", "phases", "settled"]

RATES = (25, 5, 100)
"""MB/s of each connection, in one phase after another."""
_PHASE_LASTS = 6.0
_SAMPLE = 0.05
_WINDOW = 0.5
_CLOSE = 0.9
_DROPS_LAST = 8.0


async def _change(peer: Transfers, job: Job) -> Measures:
    """Change the rate of the line while transfers are under way, and record how much arrived when."""
    port = _line(job)
    order(port, rate=RATES[0] * 1e6)
    with prepare(peer, job) as work:
        await work.transfer()  # connections are open, and the first rate is known

        async def transfer() -> None:
            while True:
                await work.transfer()

        transfers = asyncio.create_task(transfer())
        recorder = asyncio.create_task(_record(port, "up" if job.sends else "down"))
        await asyncio.wait([transfers, recorder], return_when=asyncio.FIRST_COMPLETED)
        for task in (transfers, recorder):
            task.cancel()
        await asyncio.wait([transfers, recorder])
        if not transfers.cancelled():
            transfers.result()  # raises what ended it
        return {"series": recorder.result()}


async def _record(port: int, direction: str) -> Series:
    """Set one rate after another; return the bytes that arrived, by seconds since the start."""
    began = order(port)
    series = []
    for index, rate in enumerate(RATES):
        order(port, rate=rate * 1e6)
        while True:
            state = order(port)
            seconds = state["time"] - began["time"]
            series.append((round(seconds, 4), state[direction] - began[direction]))
            if seconds >= (index + 1) * _PHASE_LASTS:
                break
            await asyncio.sleep(_SAMPLE)
    return series


class Phase(NamedTuple):
    """Time with one rate: its part of the series, and the bytes per second in its second half."""

    series: Series
    rate: float


def phases(series: Series) -> Iterator[Phase]:
    """Divide a series where the line changed."""
    for index in range(len(RATES)):
        start, stop = index * _PHASE_LASTS, (index + 1) * _PHASE_LASTS
        part = [point for point in series if start <= point[0] <= stop]
        yield Phase(part, _rate(part, (start + stop) / 2, stop))


def settled(phase: Phase, best: float) -> float:
    """Seconds until the rate is within 10 % of the best, and from then on is so on the whole; infinite if never."""
    first, last = phase.series[0][0], phase.series[-1][0]
    for start, _ in phase.series:
        if start > last - _WINDOW:
            break
        if min(_rate(phase.series, start, start + _WINDOW), _rate(phase.series, start, last)) >= _CLOSE * best:
            return start - first
    return float("inf")


def _rate(series: Series, start: float, stop: float) -> float:
    inside = [point for point in series if start <= point[0] <= stop]
    if len(inside) < 2:
        return 0.0
    (first, before), (last, after) = inside[0], inside[-1]
    return (after - before) / (last - first)


async def _drop(peer: Transfers, job: Job) -> Measures:
    """Drop a connection each second."""
    port, dropped = _line(job), 0
    counted = _Progress(peer, job)

    async def drop() -> None:
        nonlocal dropped
        while True:
            await asyncio.sleep(1)
            dropped += order(port, drop=True)["dropped"]

    with prepare(counted, job) as work:
        dropping = asyncio.create_task(drop())
        start, done = time.perf_counter(), 0
        while time.perf_counter() < start + _DROPS_LAST:
            work.check(await work.transfer())
            counted.check()
            done += job.size
        seconds = time.perf_counter() - start
        dropping.cancel()
    return {"mb_per_s": done / 1e6 / seconds, "dropped": dropped}


class _Progress:
    """A peer whose progress is counted, if it is ours: no other has it in all its verbs."""

    def __init__(self, peer: Any, job: Job) -> None:
        self._peer = peer
        self._size = job.size
        self._callback = (self._add,) if is_ours(job.peer) else ()
        self._count = 0

    def _add(self, count: int) -> None:
        self._count += count

    def check(self) -> None:
        """Raise ValueError if the last transfer counted anything but its size."""
        count, self._count = self._count, 0
        if self._callback and count != self._size:
            message = f"progress told of {count} bytes where {self._size} were transferred"
            raise ValueError(message)

    async def upload(self, source: Any, key: str) -> Any:
        return await self._peer.upload(source, key, *self._callback)

    async def download(self, key: str) -> Any:
        return await self._peer.download(key, *self._callback)

    async def download_file(self, key: str, path: Any) -> Any:
        return await self._peer.download_file(key, path, *self._callback)


def _line(job: Job) -> int:
    if job.target.line is None:
        message = f"{job.case} needs a line"
        raise ValueError(message)
    return job.target.line


SCENARIO_CASES = dict.fromkeys(CHANGES, _change) | dict.fromkeys(DROPS, _drop)
"""Cases, by name: functions of a peer and a job."""
