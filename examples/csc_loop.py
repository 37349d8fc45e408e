"""A telemetry loop at 50 Hz that keeps running while exposures are uploaded.

Prints how late the telemetry was at worst, without and with uploads. The mock
server is a separate process, like a real server.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Coroutine

from lsst_lfa import AsyncS3Bucket, S3Session

PERIOD = 0.02  # seconds: 50 Hz
EXPOSURES = 5
EXPOSURE = 40_000_000  # bytes

SERVER = """
import sys, lsst_lfa
with lsst_lfa.MockS3Server() as server:
    print(server.endpoint_url, flush=True)
    sys.stdin.read()  # until the parent has gone
"""


async def telemetry(lateness: list[float]) -> None:
    """Wake up every 20 ms, and note how late it was."""
    due = time.perf_counter()
    while True:
        due += PERIOD
        await asyncio.sleep(due - time.perf_counter())
        lateness.append(time.perf_counter() - due)


async def expose(bucket: AsyncS3Bucket) -> None:
    for number in range(EXPOSURES):
        image = io.BytesIO(await asyncio.to_thread(os.urandom, EXPOSURE))
        print("stored", await bucket.upload(image, f"exposure-{number}.fits"))


async def largest_jitter(work: Coroutine[None, None, None]) -> float:
    """Return the largest lateness, in milliseconds, of the telemetry during ``work``."""
    lateness: list[float] = []
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(telemetry(lateness))
        await work
        loop.cancel()
    return 1000 * max(lateness)


async def main() -> None:
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=PIPE, stdout=PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    endpoint_url = (await server.stdout.readline()).decode().strip()

    async with S3Session(endpoint_url=endpoint_url, access_key_id="mock", secret_access_key="mock") as session:  # noqa: S106
        bucket = session.bucket("rubinobs-lfa-cp", create=True)
        idle = await largest_jitter(asyncio.sleep(1))
        busy = await largest_jitter(expose(bucket))
    print(f"largest jitter: {idle:.1f} ms idle, {busy:.1f} ms during {EXPOSURES} uploads")

    server.stdin.close()
    await server.wait()


if __name__ == "__main__":
    asyncio.run(main())
