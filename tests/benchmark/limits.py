"""What this package promises besides speed: bounded memory, linear time, an event loop that is not blocked.

Each case is measured in a process of its own, on an event loop of its own.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .instruments import forget_peak, memory, watch
from .peers import FLOOR, OURS, open_peer
from .target import LARGE, SMALL_SIZE, payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .instruments import IterationTimer
    from .serving import Service
    from .target import Job

__all__ = ["LIMITS"]

_MIB = 2**20
_LINEAR = (8 * _MIB, 64 * _MIB, 512 * _MIB, 4096 * _MIB)
_TRANSFERS = 10_000

Measures = dict[str, float]


async def _file(job: Job, _: IterationTimer) -> Measures:
    """Upload a large file, and download it to another."""
    from lsst_lfa import AsyncS3Bucket

    block = payload(_MIB)
    with tempfile.TemporaryDirectory() as folder:
        sent, received = Path(folder, "sent"), Path(folder, "received")
        with sent.open("wb") as file:
            for _index in range(job.size // _MIB):
                file.write(block)
        async with AsyncS3Bucket(job.target.bucket) as bucket:
            await bucket.upload(block[:SMALL_SIZE], "warm-up")
            await bucket.download("warm-up")
            return {
                "upload_peak_mib": await _peak(lambda: bucket.upload(sent, job.key)),
                "download_peak_mib": await _peak(lambda: bucket.download_file(job.key, received)),
                "same_size": float(received.stat().st_size == job.size),
            }


async def _peak(transfer: Callable[[], Awaitable[object]]) -> float:
    forget_peak()
    before = memory("VmRSS")
    await transfer()
    return (memory("VmHWM") - before) / _MIB


async def _growth(job: Job, _: IterationTimer) -> Measures:
    """Upload and download small objects, thousands of times; memory is looked at when a fifth of it is done."""
    data = payload(SMALL_SIZE)
    async with open_peer(OURS, job.target, {}) as peer:
        found = []
        for number in range(1, _TRANSFERS // 2 + 1):
            await peer.upload(io.BytesIO(data), f"{job.key}-{number % 10}")
            await peer.download(f"{job.key}-{number % 10}")
            if number % (_TRANSFERS // 10) == 0:
                forget_peak()
                found.append(memory("VmRSS") / _MIB)
    return {"early_mib": found[0], "late_mib": found[-1]}


async def _many(job: Job, _: IterationTimer) -> Measures:
    """Put a thousand small objects, and ten times a hundred, in turn."""
    data = payload(SMALL_SIZE)
    async with open_peer(OURS, job.target, {}) as peer:

        async def put(count: int) -> float:
            numbers = iter(range(count))

            async def work() -> None:
                for number in numbers:
                    await peer.upload(io.BytesIO(data), f"{job.key}-{number}")

            start = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(16)))
            return time.perf_counter() - start

        await put(100)
        ratios = [await put(1000) / sum([await put(100) for _ in range(10)]) for _ in range(5)]
    return {"thousand_over_ten_hundreds": statistics.median(ratios)}


async def _opening(job: Job, timer: IterationTimer) -> Measures:
    """Open the client."""
    from lsst_lfa import AsyncS3Bucket

    async with watch() as stalls:
        timer.reset()
        async with AsyncS3Bucket(job.target.bucket):
            await asyncio.sleep(0.01)  # the turn of the loop that opened it has ended
            longest = timer.longest
    return {"stall_ms": max(stalls.late) * 1e3, "iteration_cpu_ms": longest * 1e3}


async def _small(job: Job, _: IterationTimer) -> Measures:
    """Upload small objects one by one, in turn with the floor, whose time is the server's own."""
    data = payload(SMALL_SIZE)
    times: dict[str, list[float]] = {OURS: [], FLOOR: []}
    async with open_peer(OURS, job.target, {}) as ours, open_peer(FLOOR, job.target, {}) as floor:
        for _index in range(200):
            for name, peer in ((OURS, ours), (FLOOR, floor)):
                start = time.perf_counter()
                await peer.upload(io.BytesIO(data), job.key)
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(each) * 1e3 for name, each in times.items()}
    return {"ours_ms": medians[OURS], "server_ms": medians[FLOOR], "ratio": medians[OURS] / medians[FLOOR]}


LIMITS = {"opening": _opening, "small": _small, "many": _many, "growth": _growth, "file": _file}
"""Cases, by name: functions of a job and of the selector that times its loop."""


def _linear(service: Service, _: int, line: str) -> Measures:
    """Tell the seconds for a gigabyte, of small and of large objects."""
    found = {}
    for size in _LINEAR:
        service.store(size)
        for case in LARGE:
            rate = service.measure(OURS, case, size, line=line)["measures"]["mb_per_s"]
            found[f"{case}_{size // _MIB}_s_per_gb"] = 1e3 / rate
    return found


def main() -> None:
    # Not where a peer's own environment measures: that has no servers to choose from.
    from .line import LOOPBACK
    from .options import add_lines, note, parse_size, parser, say
    from .serving import serve

    made = parser(__doc__)
    add_lines(made)
    made.add_argument("--cases", default=",".join([*LIMITS, "linear"]), help="what to measure, separated by commas")
    made.add_argument("--size", type=parse_size, default="10GiB", help="size of the file")
    made.add_argument("--runs", type=int, default=1, help="how often each is measured")
    arguments = made.parse_args()
    with serve(arguments.server, arguments.scheme, arguments.line, pin=arguments.pin) as service:
        for line in [LOOPBACK] * (not arguments.no_loopback) + service.lines:
            for case in arguments.cases.split(","):
                note(f"{line}, {case}")
                measure = _linear if case == "linear" else partial(_in_child, case=case)
                runs = [measure(service, arguments.size, line) for _ in range(arguments.runs)]
                for name in runs[0]:
                    found = [run[name] for run in runs]
                    median = f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"
                    say(f"{line}, {case}: {name} {median}")


def _in_child(service: Service, size: int, line: str, *, case: str) -> Measures:
    measures: Measures = service.measure(OURS, case, size, line=line)["measures"]
    return measures


if __name__ == "__main__":
    main()
