"""A toy CSC that takes exposures and publishes them, while its S3 server is stopped and started.

It has the shape of a real one: a topic with ``set_write``, ``start``,
``configure``, ``close_tasks``, and telemetry at 50 Hz. At the end every
exposure is stored and announced. Prints the largest jitter of the telemetry.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from lsst_lfa import LargeFileAnnex, S3Session

PERIOD = 0.02  # seconds: 50 Hz
EXPOSURES = 10
EXPOSURE = 8_000_000  # bytes

# A separate process, like a real server.
SERVER = """
import sys, lsst_lfa
with lsst_lfa.MockS3Server() as server:
    server.create_bucket("rubinobs-lfa-test")
    print(server.endpoint_url, flush=True)
    sys.stdin.read()  # until the parent has gone
"""


class LargeFileObjectAvailable:
    """The topic: what salobj's ``evt_largeFileObjectAvailable`` does, without a broker."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:  # noqa: ARG002 - salobj's
        """Write the event."""
        self.written.append(fields)
        print("announced", fields["id"])


class ToyCsc:
    """A component that takes exposures."""

    def __init__(self, spool: Path) -> None:
        self.evt_largeFileObjectAvailable = LargeFileObjectAvailable()
        self.spool = spool
        self.lateness: list[float] = []
        self._background: asyncio.Task[None] | None = None
        self.annex: LargeFileAnnex | None = None

    async def start(self) -> None:
        """Start the telemetry."""
        self._background = asyncio.create_task(self.telemetry())

    async def configure(self, session: S3Session) -> None:
        """Open the annex; the next configuration closes it and opens another."""
        self.annex = LargeFileAnnex(
            session.bucket("rubinobs-lfa-test"),
            "ToyCamera",
            1,
            event=self.evt_largeFileObjectAvailable,
            spool=self.spool,
            upload_timeout=1.0,
        )
        await self.annex.start()

    async def do_expose(self, image_name: str) -> None:
        """Take an image, and publish it."""
        assert self.annex is not None
        image = await asyncio.to_thread(os.urandom, EXPOSURE)
        await self.annex.publish(image, generator="image", stem=image_name, id=image_name)

    async def telemetry(self) -> None:
        """Wake up every 20 ms, and note how late it was."""
        due = time.perf_counter()
        while True:
            due += PERIOD
            await asyncio.sleep(due - time.perf_counter())
            self.lateness.append(time.perf_counter() - due)

    async def close_tasks(self) -> None:
        """Stop everything that runs."""
        if self.annex is not None:
            await self.annex.aclose()
        if self._background is not None:
            self._background.cancel()


async def disturb(server: Process) -> None:
    """Stop the server, as if it hung, and resume it, again and again."""
    while True:
        await asyncio.sleep(0.5)
        server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        server.send_signal(signal.SIGCONT)


async def main(spool: Path) -> None:
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdin=PIPE, stdout=PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    endpoint_url = (await server.stdout.readline()).decode().strip()

    csc = ToyCsc(spool)
    await csc.start()
    async with S3Session(endpoint_url=endpoint_url, access_key_id="mock", secret_access_key="mock") as session:  # noqa: S106
        await csc.configure(session)
        trouble = asyncio.create_task(disturb(server))
        for number in range(EXPOSURES):
            await csc.do_expose(f"TC1_O_20260201_{number:06}")
        trouble.cancel()
        server.send_signal(signal.SIGCONT)

        assert csc.annex is not None
        print("all stored:", await csc.annex.wait_stored(timeout=60))
        for event in csc.evt_largeFileObjectAvailable.written:
            data = await session.bucket("rubinobs-lfa-test").download(event["url"].partition("rubinobs-lfa-test/")[2])
            digest = await asyncio.to_thread(lambda: hashlib.md5(data.getbuffer(), usedforsecurity=False).hexdigest())  # noqa: B023
            assert digest == event["checkSum"]
        await csc.close_tasks()
    print(f"{len(csc.evt_largeFileObjectAvailable.written)} of {EXPOSURES} exposures stored and announced")
    print(f"largest jitter: {1000 * max(csc.lateness):.1f} ms")

    server.stdin.close()
    await server.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
