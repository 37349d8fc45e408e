"""One measurement, in a process of its own: ``python -m tests.benchmark.child``, the `Job` on its standard input."""

from __future__ import annotations

import asyncio
import io
import json
import os
import statistics
import sys
import time
import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .instruments import IterationTimer, cpu_time, forget_peak, memory, watch
from .limits import LIMITS
from .peers import PEERS, open_peer
from .target import LARGE, SMALL_SIZE, Job, payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .peers import Transfers

__all__ = ["SMALL_CASES", "measure", "warm_up"]

_WARM_UP = 20_000_000
_TOGETHER = 16
_PUTS = 400
_GETS = 200

Measures = dict[str, float]


async def warm_up(peer: Transfers, size: int = _WARM_UP) -> None:
    """Open the connections, and let the peer load what it loads at first use: a CSC runs for months."""
    key = "warm-up"
    await peer.upload(io.BytesIO(payload(size)), key)
    await peer.download(key)


async def measure(job: Job, timer: IterationTimer) -> Measures:
    """Carry out a job on this loop, whose selector is ``timer``."""
    if job.case in LIMITS:
        return await LIMITS[job.case](job, timer)
    async with open_peer(job.peer, job.target, job.config) as peer:
        await warm_up(peer, SMALL_SIZE)
        if job.case in LARGE:
            return await _large(peer, job, timer)
        return await SMALL_CASES[job.case](peer, job.key)


async def _large(peer: Transfers, job: Job, timer: IterationTimer) -> Measures:
    """Transfer twice: alone, for speed, CPU and memory; then watched by a ticker, which costs some of both."""
    data = payload(job.size)
    expected = zlib.crc32(data)
    sent = data if job.case == "upload" else b""
    del data

    async def transfer() -> Any:
        if job.case == "upload":
            return await peer.upload(io.BytesIO(sent), job.key)
        return await peer.download(job.key)

    forget_peak()
    before = memory("VmRSS")
    await warm_up(peer)
    forget_peak()
    cpu, start = cpu_time(), time.perf_counter()
    result = await transfer()
    seconds, cpu = time.perf_counter() - start, cpu_time() - cpu
    peak = memory("VmHWM") - before
    if job.case == "download" and zlib.crc32(_view(result)) != expected:
        message = f"{job.peer} gave other bytes than were stored"
        raise ValueError(message)
    del result
    return {
        "mb_per_s": job.size / 1e6 / seconds,
        "cpu_s_per_gb": cpu / (job.size / 1e9),
        "peak_mib": peak / 2**20,
    } | await _watched(transfer, timer)


async def _watched(transfer: Callable[[], Awaitable[Any]], timer: IterationTimer) -> Measures:
    async with watch() as stalls:
        timer.reset()
        result = await transfer()
        longest = timer.longest
    del result  # only now: to free a gigabyte takes 30 ms, whoever made it
    return {
        "stall_max_ms": max(stalls.late) * 1e3,
        "stall_p99_ms": stalls.percentile(0.99) * 1e3,
        "iteration_cpu_ms": longest * 1e3,
    }


def _view(result: Any) -> Any:
    return result.getbuffer() if isinstance(result, io.BytesIO) else result


async def _puts(peer: Transfers, key: str) -> Measures:
    """Put many small objects, so many at a time."""
    data = payload(SMALL_SIZE)
    numbers = iter(range(_PUTS))

    async def work() -> None:
        for number in numbers:
            await peer.upload(io.BytesIO(data), f"{key}-{number}")

    cpu, start = cpu_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_TOGETHER)))
    seconds, cpu = time.perf_counter() - start, cpu_time() - cpu
    return {"put_cpu_ms": cpu / _PUTS * 1e3, "puts_per_s": _PUTS / seconds}


async def _gets(peer: Transfers, key: str) -> Measures:
    """Get a small object again and again, one at a time."""
    expected = payload(SMALL_SIZE)
    times = []
    cpu = cpu_time()
    for _ in range(_GETS):
        start = time.perf_counter()
        result = await peer.download(key)
        times.append(time.perf_counter() - start)
        if bytes(_view(result)) != expected:
            raise ValueError(key)
    return {"get_ms": statistics.median(times) * 1e3, "get_cpu_ms": (cpu_time() - cpu) / _GETS * 1e3}


SMALL_CASES = {"puts": _puts, "gets": _gets}


def main() -> None:
    job = Job.from_json(json.load(sys.stdin))
    timer = IterationTimer()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(timer)) as runner:
        measures = runner.run(measure(job, timer))
    json.dump({"version": version(PEERS[job.peer].distribution), "measures": measures}, sys.stdout)
    sys.stdout.flush()
    # Some peers' own threads now and then abort an interpreter that ends.
    os._exit(0)


if __name__ == "__main__":
    main()
