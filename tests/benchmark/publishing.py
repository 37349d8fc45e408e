"""Measure what `LargeFileAnnex` adds to an upload: with a spool, and without one."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lsst_lfa import LargeFileAnnex, S3Session

from .line import LOOPBACK
from .options import add_lines, note, parse_size, parser, say
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
    async with S3Session(
        endpoint_url=target.endpoint_url,
        access_key_id=target.access_key_id,
        secret_access_key=target.secret_access_key,
        region="us-east-1",
        verify=target.ca_file or True,
    ) as session:
        bucket = session.bucket(target.bucket)
        async with (
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
    made.add_argument("--sizes", default="1MiB,50MiB,200MiB", help="sizes of the files, separated by commas")
    made.add_argument("--runs", type=int, default=5, help="how often each is measured")
    made.add_argument("--folder", type=Path, help="where the spool is; a temporary folder if not given")
    arguments = made.parse_args()
    lines = ([] if arguments.no_loopback else [LOOPBACK]) + [spec.title for spec in arguments.line]
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        serve(arguments.server, arguments.scheme, arguments.line, pin=arguments.pin) as service,
    ):
        for line in lines:
            for size in map(parse_size, arguments.sizes.split(",")):
                title = f"{line}, {size_name(size)}"
                note(title)
                data = os.urandom(size)
                rows.append(_row(title, asyncio.run(_measure(service.reach(line), Path(folder), data, arguments.runs))))
    say(table(_HEADER, rows))


if __name__ == "__main__":
    main()
