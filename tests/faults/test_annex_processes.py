"""Processes that share a spool's folder: one of them sends each file, and those of a killed one."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import Fault, ReceiveSlowly, Silence
from .annex_harness import DOWN, open_annex_harness, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .annex_harness import AnnexHarness

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, os, sys
from lsst_lfa import LargeFileAnnex, S3Session
from tests.faults.annex_harness import BRISK, QUICK
from tests.faults.harness import BUCKET

async def main(url, folder):
    session = S3Session(
        endpoint_url=url, access_key_id="id", secret_access_key="secret", region="us-east-1", config=QUICK
    )
    bucket = session.bucket(BUCKET)
    await bucket.exists("warm-up")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    annex = LargeFileAnnex(
        bucket, "GC", 1, spool=folder, on_stored=lambda file: print(file.key, flush=True)
    )
    annex._pace = BRISK
    await annex.start()
    assert await annex.wait_stored(20)
    await annex.aclose()
    await session.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Sender:
    """A process that sends what is in the spool."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._stdin, self._stdout = process, process.stdin, process.stdout

    async def ready(self) -> None:
        """Wait until it can begin at once."""
        assert await self._stdout.readline() == b"ready\n"

    def begin(self) -> None:
        """Let it begin."""
        self._stdin.write(b"begin\n")

    async def sent(self) -> list[str]:
        """Wait for its end, and return the keys that it sent."""
        said = await self._stdout.read()
        assert await self.process.wait() == 0
        return said.decode().split()


@asynccontextmanager
async def two_senders(harness: AnnexHarness) -> AsyncIterator[tuple[Sender, Sender]]:
    command = (sys.executable, "-c", PROGRAM, harness.server.endpoint_url, str(harness.folder))
    pipe = asyncio.subprocess.PIPE
    one, two = [Sender(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)) for _ in "12"]
    try:
        async with asyncio.timeout(60):
            await one.ready()
            await two.ready()
            yield one, two
    finally:
        for each in (one, two):
            if each.process.returncode is None:
                each.process.kill()
            await each.process.wait()


async def leave(harness: AnnexHarness, count: int) -> list[str]:
    """Leave files in the spool, as a process does that ends while S3 is away; return their keys."""
    harness.server.script(DOWN)
    keys = [f"{n:02}" for n in range(count)]
    for key in keys:
        await harness.annex.publish(key.encode(), generator="image", key=key)
    await harness.annex.aclose()
    harness.server.script()
    return keys


async def test_each_file_is_sent_by_one_process(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness, two_senders(harness) as (one, two):
        keys = await leave(harness, 30)
        harness.server.script(Fault("PutObject", ReceiveSlowly(100)))
        harness.server.seen.clear()
        for each in (one, two):
            each.begin()
        by_one, by_two = await asyncio.gather(one.sent(), two.sent())
        assert by_one
        assert by_two
        assert sorted(by_one + by_two) == keys
        assert sorted(seen.key for seen in harness.server.calls("PutObject")) == keys
        harness.check(30)


async def test_what_a_killed_process_was_sending_is_sent_by_another(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness, two_senders(harness) as (one, two):
        (key,) = await leave(harness, 1)
        harness.server.script(Fault("PutObject", Silence()))
        harness.server.seen.clear()
        one.begin()
        await until(lambda: bool(harness.server.calls("PutObject")))
        two.begin()
        await asyncio.sleep(0.1)
        assert len(harness.server.calls("PutObject")) == 1, "it is locked"
        harness.server.script()
        one.process.send_signal(signal.SIGKILL)
        assert await two.sent() == [key]
        harness.check(1)
