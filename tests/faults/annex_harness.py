"""A publisher of large files in front of a server that misbehaves."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from lsst_lfa import LargeFileAnnex
from lsst_lfa.annex import _decisions, _drain

from .harness import BUCKET, CONFIG, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lsst_lfa import LargeFile, TransferConfig

    from . import FaultyS3Server
    from .harness import Harness

QUICK = replace(CONFIG, stall_timeout=0.5, max_attempts=2, retry_timeout=1, cleanup_timeout=0.2)
"""What a bucket of these tests takes a server's failures with."""


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


class Play:
    """A publisher, its topic, its spool and its server."""

    def __init__(self, harness: Harness, folder: Path, **options: Any) -> None:
        self.harness = harness
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
        return LargeFileAnnex(self.harness.bucket, "GC", 1, **{**self.options, **options})

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


@asynccontextmanager
async def play(folder: Path, config: TransferConfig = QUICK, **options: Any) -> AsyncIterator[Play]:
    """Open the harness, after which nothing may be left; close the annex at its end."""
    (folder / "harness").mkdir()
    with patch.object(_decisions, "_FIRST_PAUSE", 0.05), patch.object(_drain, "_LOCKED", 0.1):
        async with _play(folder, config, options) as player:
            yield player


@asynccontextmanager
async def _play(folder: Path, config: TransferConfig, options: dict[str, Any]) -> AsyncIterator[Play]:
    async with open_harness(folder / "harness", config=config) as harness:
        player = Play(harness, folder, **options)
        try:
            yield player
        finally:
            await player.annex.aclose()
