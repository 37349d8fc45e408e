"""Sources that change, fail or misbehave while they are read."""

from __future__ import annotations

import asyncio
import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa._transfer.sources import open_source
from lsst_lfa.errors import SourceChangedError

from . import Fault, Hook
from .harness import BUCKET, CONFIG, KEY, LARGE, OLD, SMALL, memory_within, nothing_left, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PARTS = LARGE * 2
"""10.5 MiB: when the upload is begun, most of it has not been read."""


class Custom(io.RawIOBase):
    """A file object that does with `read` what it wants.

    Parameters
    ----------
    data : bytes
        The content.
    most : int
        Bytes that one `read` gives at most.
    fault : Exception or object, optional
        What `read` raises, or returns, past the first part.
    """

    def __init__(self, data: bytes, most: int = 1 << 30, fault: Any = None) -> None:
        self._file = io.BytesIO(data)
        self._most = most
        self._fault = fault

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> Any:
        if self._fault is not None and self._file.tell() >= CONFIG.part_size:
            if isinstance(self._fault, Exception):
                raise self._fault
            return self._fault
        return self._file.read(min(size, self._most))


@pytest.mark.parametrize("change", ["grows", "shrinks"])
async def test_a_file_changes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, change: str) -> None:
    path = tmp_path_factory.mktemp("source") / "source"
    path.write_bytes(PARTS)
    size = len(PARTS) + 1 if change == "grows" else len(PARTS) - 1
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("CreateMultipartUpload", Hook(before=lambda _: os.truncate(path, size))))
        with pytest.raises(SourceChangedError, match="it changed while it was read"), harness.bounded_upload():
            await harness.bucket.upload(path, KEY, harness.callback)
        assert not harness.server.uploads
        assert harness.stored() == LARGE
        harness.check_counts(len(PARTS))


async def test_a_file_is_replaced(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("source")
    path, other = folder / "source", folder / "other"
    path.write_bytes(PARTS)
    other.write_bytes(PARTS[::-1] + b"more")
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("CreateMultipartUpload", Hook(before=lambda _: other.replace(path))))
        with harness.bounded_upload():
            await harness.bucket.upload(path, KEY, harness.callback)
        assert harness.stored() == PARTS
        assert sum(harness.counts) == len(PARTS)


@pytest.mark.parametrize(
    ("fault", "raised", "words"),
    [
        (OSError(5, "Input/output error"), OSError, "Input/output error"),
        (ValueError("boom"), ValueError, "boom"),
        (None, SourceChangedError, "it changed"),
        ("text", TypeError, "gave str"),
        (b"x" * (CONFIG.part_size + 1), SourceChangedError, f"gave {CONFIG.part_size + 1} bytes"),
        (b"", SourceChangedError, "it changed"),
    ],
    ids=["raises OSError", "raises ValueError", "ends early", "gives text", "gives too much", "gives nothing"],
)
async def test_a_file_object_fails(tmp_path: Path, fault: Any, raised: type[Exception], words: str) -> None:
    file = Custom(PARTS, fault=fault if fault is not None else bytearray())
    file.seek(7)
    async with open_harness(tmp_path) as harness:
        with pytest.raises(raised, match=words) as caught, harness.bounded_upload():
            await harness.bucket.upload(file, KEY, harness.callback)
        if not isinstance(caught.value, SourceChangedError):
            assert BUCKET in caught.value.__notes__[0]
            assert KEY in caught.value.__notes__[0]
        assert file.tell() == 7  # to be tried again
        assert not file.closed
        assert not harness.server.uploads
        assert harness.stored() == LARGE
        harness.check_counts(len(PARTS))


async def test_a_file_object_gives_little_at_a_time(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with harness.bounded_upload():
            await harness.bucket.upload(Custom(LARGE, most=100_001), KEY, harness.callback)
        assert harness.stored() == LARGE
        assert sum(harness.counts) == len(LARGE)


async def test_an_iterator_raises(tmp_path: Path) -> None:
    closed = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield PARTS
            raise ValueError("boom")
        finally:
            closed = True

    async with open_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, OLD)
        with pytest.raises(ValueError, match="boom"), harness.bounded_upload():
            await harness.bucket.upload(source(), KEY, harness.callback)
        assert closed
        assert not harness.server.uploads
        assert harness.stored() == OLD


async def test_the_same_object_again_after_a_failure(tmp_path: Path) -> None:
    file = io.BytesIO(b"header" + SMALL)
    file.seek(6)
    async with open_harness(tmp_path) as harness:

        def fail(count: int) -> None:
            raise ValueError("boom")

        with pytest.raises(ValueError, match="boom"):
            await harness.bucket.upload(file, KEY, fail)
        await harness.bucket.upload(file, KEY, harness.callback)
        assert harness.stored() == SMALL
        assert sum(harness.counts) == len(SMALL)


async def test_a_file_is_closed_whenever_its_opening_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    async with nothing_left():
        for number in range(60):
            task = asyncio.create_task(open_source(path).__aenter__())
            await asyncio.sleep(number * 2e-5)
            task.cancel()
            try:
                source = await task
            except asyncio.CancelledError:
                continue
            await source.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "fault",
    [TimeoutError(110, "late"), ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe"), TimeoutError()],
)
@pytest.mark.parametrize("kind", ["file", "iterator"])
async def test_what_a_source_raises_is_the_sources(tmp_path: Path, kind: str, fault: OSError) -> None:
    async def iterator() -> AsyncIterator[bytes]:
        yield PARTS
        raise fault

    async with open_harness(tmp_path) as harness:
        source = Custom(PARTS, fault=fault) if kind == "file" else iterator()
        with pytest.raises(type(fault)) as caught:
            await harness.bucket.upload(source, KEY)
        assert caught.value is fault
        assert KEY in fault.__notes__[0]
        assert len(harness.server.calls("CreateMultipartUpload")) <= 1
        assert not harness.server.uploads


async def test_small_reads_are_joined(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        for source in (Custom(SMALL, most=256), _sips(SMALL)):
            with memory_within(4 * len(SMALL)):
                await harness.bucket.upload(source, KEY, harness.callback)
            assert harness.stored() == SMALL
        assert sum(harness.counts) == 2 * len(SMALL)


async def _sips(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 16):
        yield data[start : start + 16]
