"""Every size at a boundary, from every kind of source, to every kind of sink."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiofiles
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session, TransferConfig, errors
from lsst_lfa._transfer.sources import open_source

MiB = 1024 * 1024
PART = 5 * MiB
THRESHOLD = 6 * MiB
RANGE = 4 * MiB + 1
CONFIG = TransferConfig(
    part_size=PART, memory_part_size=PART, multipart_threshold=THRESHOLD, range_size=RANGE, max_concurrency=3
)
UPLOADED = [0, 1, THRESHOLD, THRESHOLD + 1, 2 * PART, 3 * PART + 1]
DOWNLOADED = [0, 1, RANGE, RANGE + 1, 2 * RANGE, 3 * PART + 1]
DATA = os.urandom(3 * PART + 1)


class ShortReads:
    """A reader that cannot seek and gives a little at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._most) if size >= 0 else self._most)


class AsyncShortReads(ShortReads):
    """The same, asynchronous."""

    async def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().read(size)


async def iterate(data: bytes, step: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]


@asynccontextmanager
async def source(kind: str, data: bytes, step: int, folder: Path) -> AsyncIterator[Any]:
    path = folder / "source"
    path.write_bytes(data)
    if kind == "aiofiles":
        async with aiofiles.open(path, "rb") as asynchronous:
            yield asynchronous
    elif kind in ("file", "raw file"):
        with path.open("rb", buffering=-1 if kind == "file" else 0) as file:
            yield file
    else:
        makers: dict[str, Callable[[], Any]] = {
            "bytes": lambda: data,
            "bytearray": lambda: bytearray(data),
            "memoryview": lambda: memoryview(data),
            "BytesIO": lambda: io.BytesIO(data),
            "path": lambda: path,
            "short reads": lambda: ShortReads(data, step),
            "async short reads": lambda: AsyncShortReads(data, step),
            "iterator": lambda: iterate(data, step),
        }
        yield makers[kind]()


SOURCES = (
    "bytes",
    "bytearray",
    "memoryview",
    "BytesIO",
    "path",
    "file",
    "raw file",
    "aiofiles",
    "short reads",
    "async short reads",
    "iterator",
)


async def to_memory(bucket: AsyncS3Bucket, key: str, note: Callable[[int], None], _: Path) -> bytes:
    return (await bucket.download(key, note)).getvalue()


async def to_file(bucket: AsyncS3Bucket, key: str, note: Callable[[int], None], folder: Path) -> bytes:
    return (await bucket.download_file(key, folder / "copy", note)).read_bytes()


async def to_stream(bucket: AsyncS3Bucket, key: str, note: Callable[[int], None], _: Path) -> bytes:
    chunks = [chunk async for chunk in bucket.stream(key)]
    note(sum(map(len, chunks)))
    return b"".join(chunks)


Sink = Callable[[AsyncS3Bucket, str, Callable[[int], None], Path], Awaitable[bytes]]
SINKS: tuple[Sink, ...] = (to_memory, to_file, to_stream)


async def round_trip(server: MockS3Server, kind: str, data: bytes, step: int, sinks: tuple[Sink, ...]) -> None:
    async with S3Session.for_mock(server, CONFIG) as session:
        bucket = session.bucket("test")
        with tempfile.TemporaryDirectory() as name:
            up: list[int] = []
            async with source(kind, data, step, Path(name)) as thing:
                await bucket.upload(thing, "k", up.append)
            assert sum(up) == len(data)
            assert up == [0] or min(up) > 0
            parts = -(-len(data) // PART) if len(data) > THRESHOLD else 0
            assert (await bucket.head("k")).etag.partition("-")[2] == (str(parts) if parts else "")
            for sink in sinks:
                down: list[int] = []
                assert await sink(bucket, "k", down.append, Path(name)) == data
                assert sum(down) == len(data)
                assert down


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("size", UPLOADED)
async def test_every_source_at_every_boundary(server: MockS3Server, kind: str, size: int) -> None:
    await round_trip(server, kind, DATA[:size], 1_000_003, (to_memory,))


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("size", DOWNLOADED)
async def test_every_sink_at_every_boundary(server: MockS3Server, sink: Sink, size: int) -> None:
    await round_trip(server, "bytes", DATA[:size], 1, (sink,))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    kind=st.sampled_from(SOURCES),
    size=st.integers(0, 3 * PART + 10),
    step=st.integers(50_000, 2 * PART),
    start=st.integers(0, 100),
)
def test_any_source_any_size(server: MockS3Server, kind: str, size: int, step: int, start: int) -> None:
    asyncio.run(round_trip(server, kind, DATA[start : start + size], step, SINKS))


async def test_what_is_in_memory_goes_up_in_fewer_parts(server: MockS3Server, tmp_path: Path) -> None:
    config = TransferConfig(
        part_size=PART, memory_part_size=2 * PART, multipart_threshold=PART, max_concurrency=1, verify_etag=True
    )
    data = os.urandom(5 * PART)
    (tmp_path / "data").write_bytes(data)
    async with S3Session.for_mock(server, config) as session:
        bucket = session.bucket("test")
        for thing, parts in ((io.BytesIO(data), 3), (data, 3), (tmp_path / "data", 5)):
            await bucket.upload(thing, "k")
            assert (await bucket.head("k")).etag.endswith(f"-{parts}")
            assert (await bucket.download("k")).getvalue() == data


async def test_the_loop_has_its_turn_while_a_socket_takes_all_at_once(server: MockS3Server) -> None:
    counts: list[int] = []
    config = TransferConfig(multipart_threshold=32 * MiB)
    async with S3Session.for_mock(server, config) as session:
        await session.bucket("test").upload(bytes(32 * MiB), "k", counts.append)
    assert max(counts) <= config.io_chunksize


async def test_at_most_one_part_more_than_the_concurrency_is_in_memory(server: MockS3Server) -> None:
    alive = most = 0

    class Part(bytearray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def parts() -> AsyncIterator[Part]:
        nonlocal alive, most
        for _ in range(12):
            part = Part(PART)
            alive += 1
            most = max(most, alive)
            yield part
            del part

    async with S3Session.for_mock(server, CONFIG) as session:
        await session.bucket("test").upload(parts(), "k")
        # The generator's own part, not yet taken, is the one more than the design's.
        assert most <= CONFIG.max_concurrency + 2
        assert await session.bucket("test").size("k") == 12 * PART


async def test_a_source_that_shrinks_or_grows_is_an_error(server: MockS3Server, tmp_path: Path) -> None:
    class Liar(io.BytesIO):
        """Says that it ends elsewhere than it does."""

        def __init__(self, data: bytes, lie: int) -> None:
            super().__init__(data)
            self.lie = lie

        def seek(self, offset: int, whence: int = 0) -> int:
            return super().seek(offset, whence) + (self.lie if whence == io.SEEK_END else 0)

    async with S3Session.for_mock(server, CONFIG) as session:
        bucket = session.bucket("test")
        for size in (100, 3 * PART):
            for lie in (-10, 10):
                with pytest.raises(errors.SourceChangedError, match="of its size"):
                    await bucket.upload(Liar(DATA[:size], lie), "liar")
        assert not await bucket.exists("liar")
        assert await bucket.abort_stale_uploads(0) == 0


async def test_what_is_in_memory_is_not_copied() -> None:
    for obj in (DATA, io.BytesIO(DATA)):
        async with open_source(obj) as source:
            (view,) = await source.read(PART)
            assert view.obj is DATA


async def test_what_cannot_seek_goes_up_all_the_same(server: MockS3Server) -> None:
    class SaysTooLate(ShortReads):
        def tell(self) -> int:
            raise OSError(errno.ESPIPE, "Illegal seek")

        seek = tell

    end, beginning = os.pipe()
    os.write(beginning, b"piped")
    os.close(beginning)
    async with S3Session.for_mock(server, CONFIG) as session:
        bucket = session.bucket("test")
        with os.fdopen(end, "rb") as pipe:
            for source, data in ((pipe, b"piped"), (SaysTooLate(b"said", 3), b"said")):
                await bucket.upload(source, "k")
                assert (await bucket.download("k")).getvalue() == data


async def test_an_iterator_is_closed_when_its_upload_fails(bucket: AsyncS3Bucket) -> None:
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield DATA
        finally:
            closed = True

    def fail(_: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await bucket.upload(endless(), "k", fail)
    assert closed


async def test_large_bodies_are_hashed_off_the_loop(bucket: AsyncS3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: dict[int, int] = Counter()

    def sha256(data: bytes = b"") -> Any:
        if data:
            return original(data)

        def update(data: memoryview) -> None:
            hashed[threading.get_ident()] += len(data)
            real.update(data)

        real = original()
        return SimpleNamespace(update=update, hexdigest=real.hexdigest)

    original = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", sha256)
    await bucket.upload(DATA, "k")
    assert sum(hashed.values()) == len(DATA)
    # The last part is one byte: that takes less time than a thread.
    assert hashed[threading.get_ident()] == 1


async def test_a_source_that_raises_is_heard(server: MockS3Server) -> None:
    class OwnError(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield DATA[: 2 * PART]
        raise OwnError

    async with S3Session.for_mock(server, CONFIG) as session:
        with pytest.raises(OwnError):
            await session.bucket("test").upload(broken(), "broken")
        assert await session.bucket("test").abort_stale_uploads(0) == 0

        class TooMuch:
            def read(self, _: int) -> bytes:
                return DATA[: 3 * PART]

        with pytest.raises(errors.SourceChangedError, match="read"):
            await session.bucket("test").upload(TooMuch(), "broken")


@pytest.mark.parametrize("opened", ["path", "open(path, 'rb')"])
async def test_a_large_file_goes_up_in_the_memory_of_its_parts(
    server: MockS3Server, tmp_path: Path, opened: str
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200 * MiB)
    code = f"""
import asyncio, pathlib
from lsst_lfa import S3Session

def memory(field):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.partition(field + ":")[2].split()[0]) * 1024

async def main():
    path = pathlib.Path({str(path)!r})
    keys = dict(access_key_id={server.access_key_id!r}, secret_access_key={server.secret_access_key!r})
    async with S3Session(endpoint_url={server.endpoint_url!r}, **keys) as session:
        bucket = session.bucket("test")
        await bucket.upload(b"warm", "warm")
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        await bucket.upload({opened}, "large")
        print(memory("VmHWM") - before)

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    # The parts, and a little for eight requests under way.
    assert int(out) <= (96 + 8) * MiB


async def test_a_file_that_does_not_block_is_refused(bucket: AsyncS3Bucket) -> None:
    receiving, sending = os.pipe()
    os.set_blocking(receiving, False)
    with open(receiving, "rb", buffering=0) as file, pytest.raises(TypeError, match="non-blocking"):  # noqa: PTH123
        await bucket.upload(file, "k")
    os.close(sending)
