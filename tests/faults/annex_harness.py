"""A publisher of large files in front of a server that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import io
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lsst_lfa import LargeFileAnnex
from lsst_lfa.annex._decisions import Pace

from . import Fault, Silence, Status
from .harness import BUCKET, CONFIG, LARGE, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from lsst_lfa import LargeFile, TransferConfig

    from . import FaultyS3Server
    from .harness import Harness

QUICK = replace(CONFIG, stall_timeout=0.5, max_attempts=2, retry_timeout=1, cleanup_timeout=0.2)
"""What a bucket of these tests takes a server's failures with."""

DOWN = Fault("*", Status(503, "SlowDown"))
HANGS = Fault("*", Silence())
DATE = "2026-02-01T03:04:05"
KEY = "GC:1/image/2026/01/31/GC:1_image_2026-02-01T03:04:05.000.fits"

BRISK = Pace(first_pause=0.02, longest_pause=0.05, locked=0.05, event=0.5)
"""How long the background of these tests waits."""


class Topic:
    """The event ``largeFileObjectAvailable``, and who reads it."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.failing: list[Exception] = []

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
        """Write the event, or fail if told so."""
        assert force_output is True
        assert set(fields) == {"url", "generator", "version", "byteSize", "checkSum", "mimeType", "id"}
        if self.failing:
            raise self.failing.pop(0)
        self.written.append(fields)

    @property
    def ids(self) -> list[str]:
        """The files' ids, in the order of their events."""
        return [each["id"] for each in self.written]


class AnnexHarness:
    """A publisher, its topic, its spool and its server."""

    def __init__(self, harness: Harness, folder: Path, **options: Any) -> None:
        self._bucket = harness.bucket
        self.server: FaultyS3Server = harness.server
        self.folder = folder / "spool"
        self.topic = Topic()
        self.stored: list[LargeFile] = []
        self.options: dict[str, Any] = {
            "event": self.topic,
            "spool": self.folder,
            "upload_timeout": 8.0,
            "on_stored": self.stored.append,
            **options,
        }
        self.annex = self.another()

    def another(self, **options: Any) -> LargeFileAnnex:
        """Make one more annex of the same component."""
        annex = LargeFileAnnex(self._bucket, "GC", 1, **{**self.options, **options})
        annex._pace = BRISK
        return annex

    def object(self, key: str) -> bytes | None:
        """Return an object's bytes, if it is there."""
        found = self.server.objects.get((BUCKET, key))
        return None if found is None else found.data

    def files(self) -> list[str]:
        """Return what is in the spool."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def check(self, count: int) -> None:
        """Assert that so many files were announced, each once, and that each URL gives what was announced."""
        assert len(self.topic.written) == count
        assert len({each["url"] for each in self.topic.written}) == count
        for each in self.topic.written:
            data = self.object(each["url"].removeprefix(f"{self.server.endpoint_url}/{BUCKET}/"))
            assert data is not None
            assert (len(data), hashlib.md5(data).hexdigest()) == (each["byteSize"], each["checkSum"])
        assert self.files() == []


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def chunks() -> AsyncIterator[memoryview]:
    """Give a large file in pieces, each in the memory of the last one."""
    buffer = bytearray(200_000)
    for start in range(0, len(LARGE), len(buffer)):
        piece = LARGE[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def large_file_on_disk(folder: Path) -> Path:
    """Make a large file."""
    path = folder / "source.fits"
    path.write_bytes(LARGE)
    return path


def sources(folder: Path) -> dict[str, Any]:
    """Return a large file in each of the ways in which it can be given."""
    path = large_file_on_disk(folder)
    in_the_middle = io.BytesIO(b"before" + LARGE)
    in_the_middle.seek(6)
    return {
        "bytes": LARGE,
        "bytearray": bytearray(LARGE),
        "BytesIO": in_the_middle,
        "path": path,
        "file": path.open("rb"),
        "iterator": chunks(),
    }


def url(server: FaultyS3Server, key: str = KEY) -> str:
    """Return an object's URL."""
    return f"{server.endpoint_url}/{BUCKET}/{key}"


@asynccontextmanager
async def open_annex_harness(
    folder: Path, config: TransferConfig = QUICK, **options: Any
) -> AsyncIterator[AnnexHarness]:
    """Open the harness, after which nothing may be left; close the annex at its end."""
    (folder / "bucket").mkdir()
    async with open_harness(folder / "bucket", config=config) as bucket_harness:
        harness = AnnexHarness(bucket_harness, folder, **options)
        try:
            yield harness
        finally:
            await harness.annex.aclose()
