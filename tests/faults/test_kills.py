"""The process is killed (SIGKILL) at a random moment: others see a complete file or object, or none.

How often is set by ``LSST_LFA_KILLS``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import Fault, ReceiveSlowly, SendSlowly
from .harness import BUCKET, KEY, LARGE, OLD, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KILLS = int(os.environ.get("LSST_LFA_KILLS", "10"))
ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from lsst_lfa import S3Session
from tests.faults.harness import BUCKET, CONFIG, KEY, LARGE

async def work(verb, url, argument):
    session = S3Session(
        endpoint_url=url, access_key_id="id", secret_access_key="secret", region="us-east-1", config=CONFIG
    )
    async with session:
        print("ready", flush=True)
        if verb == "upload":
            await session.bucket(BUCKET).upload(LARGE, argument)
        elif verb == "download":
            await session.bucket(BUCKET).download_file(KEY, argument)

# What takes long is done once: this process forks for each order, and has no loop and no threads.
asyncio.run(work("nothing", "http://127.0.0.1:1", ""))
for line in iter(sys.stdin.readline, ''):
    pid = os.fork()
    if not pid:
        asyncio.run(work(*line.rstrip("\\n").split("\\t")))
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()  # until it has been killed, it keeps its number
    os.waitpid(pid, 0)
    print("over", flush=True)
"""


class Victims:
    """Processes to be killed, one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._warm = False
        self._orders, self._replies = process.stdin, process.stdout

    async def _line(self) -> str:
        async with asyncio.timeout(60):
            return (await self._replies.readline()).decode().strip()

    async def live(self, *order: str, seconds: float) -> None:
        """Give an order, and kill who carries it out after so many seconds."""
        if not self._warm:
            assert await self._line() == "ready"
            self._warm = True
        self._orders.write("\t".join(order).encode() + b"\n")
        # The child's line may come before its parent's.
        lines = {await self._line(), await self._line()}
        (pid,) = (int(line) for line in lines if line.isdecimal())
        assert "ready" in lines
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        self._orders.write(b"\n")
        assert await self._line() == "over"


@asynccontextmanager
async def victims() -> AsyncIterator[Victims]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        yield Victims(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def nameless(folder: Path) -> bool:
    """Tell whether the file system makes files that have no name."""
    try:
        os.close(os.open(folder, os.O_RDWR | os.O_TMPFILE))
    except OSError:
        return False
    return True


async def test_in_mid_upload(tmp_path: Path) -> None:
    dice = random.Random(1)
    async with open_harness(tmp_path) as harness, victims() as them:
        harness.server.script(Fault("UploadPart", ReceiveSlowly(50e6)))
        whole = 0
        for number in range(KILLS):
            key = f"{KEY}{number}"
            await them.live("upload", harness.server.endpoint_url, key, seconds=dice.uniform(0, 0.25))
            found = harness.server.objects.get((BUCKET, key))
            assert found is None or found.data == LARGE
            whole += found is not None
        assert whole < KILLS
        while harness.server.current_requests:
            await asyncio.sleep(0.01)
        left = len(harness.server.uploads)
        assert await harness.bucket.abort_stale_uploads(-5) == left
        assert not harness.server.uploads


async def test_in_mid_download(tmp_path: Path) -> None:
    dice = random.Random(2)
    async with open_harness(tmp_path) as harness, victims() as them:
        harness.server.script(Fault("GetObject", SendSlowly(40e6)))
        whole = 0
        for number in range(KILLS):
            path = harness.destination if number % 2 else tmp_path / f"new{number}"
            harness.destination.write_bytes(OLD)
            await them.live("download", harness.server.endpoint_url, str(path), seconds=dice.uniform(0, 0.25))
            if path.exists():
                content = path.read_bytes()
                assert content == LARGE or (number % 2 and content == OLD)
                whole += content == LARGE
        assert whole < KILLS
        if nameless(tmp_path):
            assert not list(tmp_path.glob(".*"))
