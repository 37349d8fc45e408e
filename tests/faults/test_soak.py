"""Mixed transfers through random faults, for seconds or for as long as LSST_LFA_SOAK says.

Whoever uploads uses the memory again as soon as `upload` has returned or raised: what is stored is what was there then.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lsst_lfa import LfaError

from . import Close, Corrupt, Fault, Reset, SendSlowly, Silence, Status, WrongContentRange
from .harness import BUCKET, CONFIG, LARGE, MiB, descriptors, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .actions import Action
    from .harness import Harness

SECONDS = float(os.environ.get("LSST_LFA_SOAK", "2"))
WORKERS = 6
ACTIONS: tuple[Action, ...] = (
    Status(500),
    Status(503, "SlowDown"),
    Status(429),
    Status(403, "AccessDenied"),
    Reset(),
    Reset(response_byte=1000),
    Reset(request_byte=100_000),
    Close(),
    Close(carry_out=True),
    Close(response_byte=300_000),
    Silence(),
    Silence(response_byte=100),
    Silence(request_byte=100_000, seconds=0.2),
    SendSlowly(send_rate=1000),
    WrongContentRange(shift=1),
    Corrupt(offset=1000),
)
OTHERS = b"\xee" * len(LARGE)
MOST_GROWTH = 100  # MiB; buffers of transfers come and go


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def content(chance: random.Random) -> bytes:
    start = chance.randrange(1000)
    return LARGE[start : start + chance.choice((0, 1, 50_000, 900_000, len(LARGE) - 1000))]


class Owner:
    """Has one piece of memory for all that it uploads."""

    def __init__(self, chance: random.Random) -> None:
        self._memory = bytearray(len(LARGE))
        self._chance = chance

    @contextmanager
    def lend(self, data: bytes) -> Iterator[memoryview | Reused | AsyncIterator[memoryview]]:
        """Give ``data`` as something to upload; use the memory again at once, with BufferError if it is viewed."""
        self._memory[: len(data)] = data
        try:
            with memoryview(self._memory)[: len(data)] as view:
                yield self._chance.choice((lambda: view, lambda: Reused(view), lambda: pieces(view)))()
        finally:
            self._memory[:] = OTHERS
            self._memory.append(0)
            self._memory.pop()


class Reused:
    """A file that gives its own memory, again and again."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._own = bytearray(200 * 1024)
        self._position = 0

    def read(self, size: int, /) -> memoryview:
        piece = self._data[self._position : self._position + min(size, len(self._own))]
        self._position += len(piece)
        self._own[: len(piece)] = piece
        return memoryview(self._own)[: len(piece)]


async def pieces(data: memoryview) -> AsyncIterator[memoryview]:
    """Give the same memory, again and again."""
    file = Reused(data)
    while piece := file.read(len(data)):
        yield piece
        await asyncio.sleep(0)


class Worker:
    """Uploads and downloads under keys of its own, and knows what must be there.

    Each upload has a new key: a request that was cancelled may still be
    carried out, after the next one.
    """

    def __init__(self, number: int, harness: Harness, folder: Path) -> None:
        self.stored: dict[str, bytes] = {}
        self.doubtful: dict[str, bytes] = {}
        self.done = self.failed = 0
        self._number = number
        self._bucket = harness.bucket
        self._objects = harness.server.objects
        self._folder = folder
        self._chance = random.Random(number)
        self._owner = Owner(self._chance)

    async def work_until(self, end: float) -> None:
        while time.monotonic() < end:
            act = self._chance.choice((self._upload, self._download, self._delete))
            try:
                async with asyncio.timeout(self._chance.choice((None, None, 0.05))):
                    await act()
                self.done += 1
            except (LfaError, TimeoutError):
                self.failed += 1

    def check(self) -> None:
        """Assert that what is there is what was to be stored: all of that, but what may not have been stored."""
        for key in (*self.stored, *self.doubtful):
            self._check(key)

    def _check(self, key: str) -> None:
        found = self._objects.get((BUCKET, key))
        assert found.data == (self.stored | self.doubtful)[key] if found else key in self.doubtful

    async def _upload(self) -> None:
        key, data = f"{self._number}/{self.done + self.failed}", content(self._chance)
        self.doubtful[key] = data
        with self._owner.lend(data) as source:
            await self._bucket.upload(source, key)
        self.stored[key] = self.doubtful.pop(key)

    async def _download(self) -> None:
        for key in self._chance.sample(sorted(self.stored), min(1, len(self.stored))):
            if self._chance.random() < 0.5:
                assert (await self._bucket.download(key)).getvalue() == self.stored[key]
            else:
                path = await self._bucket.download_file(key, self._folder / f"{self._number}")
                assert path.read_bytes() == self.stored[key]

    async def _delete(self) -> None:
        """Keep five objects."""
        for key in sorted(self.stored)[5:]:
            self.doubtful[key] = self.stored.pop(key)
        for key in list(self.doubtful):
            self._check(key)
            await self._bucket.delete(key)
            del self.doubtful[key]


async def stir(harness: Harness, end: float) -> None:
    """Change the server's script every so often, and leave it in peace now and then."""
    chance = random.Random(0)
    while time.monotonic() < end:
        faults = [Fault("*", action, nth=chance.randrange(1, 40)) for action in chance.sample(ACTIONS, 4)]
        harness.server.script(*faults)
        harness.server.seen.clear()
        await asyncio.sleep(0.25)
    harness.server.script()


async def test_soak(tmp_path: Path) -> None:
    config = replace(CONFIG, stall_timeout=0.5, verify_etag=True)
    marks: list[tuple[int, int]] = []
    async with open_harness(tmp_path, config=config) as harness:
        workers = [Worker(number, harness, tmp_path) for number in range(WORKERS)]
        for _ in range(4):
            end = time.monotonic() + SECONDS / 4
            await asyncio.gather(stir(harness, end), *(worker.work_until(end) for worker in workers))
            gc.collect()
            # What the server and the workers keep is in this process too.
            kept = sum(each.size for each in harness.server.objects.values())
            kept += sum(len(data) for each in workers for data in (*each.stored.values(), *each.doubtful.values()))
            marks.append(((resident() - kept) // MiB, len(descriptors())))
        for worker in workers:
            worker.check()
        done, failed = sum(worker.done for worker in workers), sum(worker.failed for worker in workers)
        await harness.bucket.abort_stale_uploads(-5)  # of Creates whose response was lost
        assert not harness.server.uploads
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".lfa-")] == []
    print(f"\n{SECONDS:.0f} s: {done} transfers done, {failed} failed as they should")
    print(f"MiB of memory, and descriptors, by quarter: {marks}")
    assert done > failed > 0
    # The first half warms up: caches, threads, pools.
    assert marks[-1][0] - marks[1][0] < MOST_GROWTH
    assert marks[-1][1] - marks[1][1] < 2 * WORKERS
