"""One measurement, in a process of its own: ``python -m tests.benchmark.child``, the `Job` on its standard input."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .instruments import IterationTimer, cpu_time, forget_peak, memory, watch
from .limits import LIMITS
from .peers import open_peer, parse_peer
from .scenarios import SCENARIO_CASES
from .small import SMALL_CASES
from .target import SMALL_SIZE, Job, payload
from .work import prepare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .peers import Transfers

__all__ = ["measure", "warm_up"]

Measures = dict[str, Any]


async def warm_up(peer: Transfers, size: int) -> None:
    """Open the connections, and let the peer load what it loads at first use."""
    key = "warm-up"
    await peer.upload(io.BytesIO(payload(size)), key)
    await peer.download(key)


async def measure(job: Job, timer: IterationTimer) -> Measures:
    """Carry out a job on this loop, whose selector is ``timer``."""
    if job.case in LIMITS:
        return await LIMITS[job.case](job, timer)
    async with open_peer(job.peer, job.target, job.config) as peer:
        await warm_up(peer, SMALL_SIZE)
        if job.case in SMALL_CASES:
            return await SMALL_CASES[job.case](peer, job.key, timer)
        if job.case in SCENARIO_CASES:
            return await SCENARIO_CASES[job.case](peer, job)
        return await _large(peer, job, timer)


async def _large(peer: Transfers, job: Job, timer: IterationTimer) -> Measures:
    """Transfer twice: alone, for speed, CPU and memory; then watched by a ticker, which costs some of both."""
    with prepare(peer, job) as work:
        forget_peak()
        before = memory("VmRSS")
        if job.warm_up:
            await warm_up(peer, job.warm_up)
        forget_peak()
        cpu, start = cpu_time(), time.perf_counter()
        result = await work.transfer()
        seconds, cpu = time.perf_counter() - start, cpu_time() - cpu
        peak = memory("VmHWM") - before
        work.check(result)
        del result
        return {
            "mb_per_s": job.size / 1e6 / seconds,
            "cpu_s_per_gb": cpu / (job.size / 1e9),
            "peak_mib": peak / 2**20,
        } | await _watched(work.transfer, timer)


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


def main() -> None:
    job = Job.from_json(json.load(sys.stdin))
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})  # threads are begun later, and are where this one is
    timer = IterationTimer()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(timer)) as runner:
        measures = runner.run(measure(job, timer))
    json.dump({"version": version(parse_peer(job.peer)[0].distribution), "measures": measures}, sys.stdout)
    sys.stdout.flush()
    # Some peers' own threads now and then abort an interpreter that ends.
    os._exit(0)


if __name__ == "__main__":
    main()
