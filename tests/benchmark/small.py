"""Small objects: several in parallel, one at a time, and a thousand in one `asyncio.TaskGroup`."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from typing import TYPE_CHECKING

from .instruments import cpu_time
from .target import SMALL_SIZE, payload
from .work import view

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .instruments import IterationTimer
    from .peers import Transfers

    Measures = dict[str, float]

__all__ = ["SMALL_CASES"]

_TOGETHER = 16
_PUTS = 400
_GETS = 200
_GETS_LAST = 5.0
"""Seconds after which no more is got one at a time: over a line 200 would take a minute."""
_MANY = 1000


async def _put(peer: Transfers, key: str, data: bytes) -> None:
    await peer.upload(io.BytesIO(data), key)


async def _get(peer: Transfers, key: str, expected: bytes) -> None:
    if bytes(view(await peer.download(key))) != expected:
        raise ValueError(key)


async def _puts(peer: Transfers, key: str, _: IterationTimer) -> Measures:
    """Put many small objects, so many at a time."""
    data = payload(SMALL_SIZE)
    numbers = iter(range(_PUTS))

    async def work() -> None:
        for number in numbers:
            await _put(peer, f"{key}-{number}", data)

    cpu, start = cpu_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_TOGETHER)))
    return _per_object(_PUTS, time.perf_counter() - start, cpu_time() - cpu)


async def _gets(peer: Transfers, key: str, _: IterationTimer) -> Measures:
    """Get a small object again and again, one at a time."""
    expected = payload(SMALL_SIZE)
    times: list[float] = []
    cpu = cpu_time()
    while len(times) < _GETS and sum(times) < _GETS_LAST:
        start = time.perf_counter()
        await _get(peer, key, expected)
        times.append(time.perf_counter() - start)
    cpu = cpu_time() - cpu
    return _per_object(len(times), sum(times), cpu) | {"latency_ms": statistics.median(times) * 1e3}


async def _at_once(one: Callable[[int], Awaitable[None]], timer: IterationTimer) -> Measures:
    """Let one group do it a thousand times."""

    async def task(number: int) -> None:
        await one(number)

    timer.reset()
    cpu, start = cpu_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(_MANY):
            group.create_task(task(number))
    seconds, cpu = time.perf_counter() - start, cpu_time() - cpu
    return _per_object(_MANY, seconds, cpu) | {"iteration_cpu_ms": timer.longest * 1e3}


async def _many_puts(peer: Transfers, key: str, timer: IterationTimer) -> Measures:
    data = payload(SMALL_SIZE)
    return await _at_once(lambda number: _put(peer, f"{key}-{number}", data), timer)


async def _many_gets(peer: Transfers, key: str, timer: IterationTimer) -> Measures:
    expected = payload(SMALL_SIZE)
    return await _at_once(lambda _: _get(peer, key, expected), timer)


def _per_object(count: int, seconds: float, cpu: float) -> Measures:
    return {"objects_per_s": count / seconds, "object_cpu_ms": cpu / count * 1e3}


SMALL_CASES = {"puts": _puts, "gets": _gets, "puts-1000": _many_puts, "gets-1000": _many_gets}
"""Cases, by name: functions of a peer, a key, and the selector that times the loop."""
