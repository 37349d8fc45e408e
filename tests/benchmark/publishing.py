"""Measure what `LargeFileAnnex` adds to an upload: with a spool, and without one."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from lsst_lfa import LargeFileAnnex

from .line import LOOPBACK
from .options import add_lines, note, parse_sizes, parser, say
from .ours import ours
from .report import size_name, table
from .serving import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .target import Target

_HEADER = (
    "median (min)",
    "upload (ms)",
    "disk (ms)",
    "publish with a spool (ms)",
    "over the longer of upload and disk",
    "without a spool (ms)",
)


def _write(path: Path, data: bytes) -> None:
    """Write a file as the spool has to, and remove it."""
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    path.unlink()


async def _time(work: Awaitable[object]) -> float:
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def _measure(target: Target, folder: Path, data: bytes, runs: int) -> list[list[float]]:
    """Return the seconds of each run of each of the four."""
    times: list[list[float]] = [[], [], [], []]
    async with (
        ours(target, {}) as bucket,
        LargeFileAnnex(bucket, "Camera", spool=folder / "spool") as annex,
        LargeFileAnnex(bucket, "Camera") as without,
    ):
        for run in range(-1, runs):
            key = f"{time.time_ns()}"
            seconds = (
                await _time(bucket.upload(data, f"{key}-plain")),
                await _time(asyncio.to_thread(_write, folder / "plain", data)),
                await _time(annex.publish(data, generator="image", key=f"{key}-spooled")),
                await _time(without.publish(data, generator="image", key=f"{key}-direct")),
            )
            if run >= 0:  # the first one warms up
                for each, took in zip(times, seconds, strict=True):
                    each.append(took)
            await bucket.delete_many([f"{key}-{name}" for name in ("plain", "spooled", "direct")])
    return times


def _row(title: str, times: list[list[float]]) -> list[str]:
    upload, disk, spooled, direct = ([1000 * seconds for seconds in each] for each in times)
    median = statistics.median
    ratio = median(spooled) / max(median(upload), median(disk))
    cells = [f"{median(each):.0f} ({min(each):.0f})" for each in (upload, disk, spooled, direct)]
    return [title, *cells[:3], f"{ratio:.2f}", cells[3]]


def main() -> None:
    made = parser(__doc__)
    add_lines(made)
    made.add_argument("--sizes", type=parse_sizes, default="1MiB,50MiB,200MiB", help="sizes of the files")
    made.add_argument("--runs", type=int, default=5, help="how often each is measured")
    made.add_argument("--folder", type=Path, help="where to make the temporary folder of the spool")
    arguments = made.parse_args()
    lines = ([] if arguments.no_loopback else [LOOPBACK]) + [spec.title for spec in arguments.line]
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        serve(arguments.server, arguments.scheme, arguments.line, pin=arguments.pin) as service,
    ):
        for line in lines:
            target = service.reach(line)
            for size in arguments.sizes:
                title = f"{line}, {size_name(size)}"
                note(title)
                with mock.patch.dict(os.environ, target.environment(), clear=True):
                    times = asyncio.run(_measure(target, Path(folder), os.urandom(size), arguments.runs))
                rows.append(_row(title, times))
    say(table(_HEADER, rows))


if __name__ == "__main__":
    main()
