"""Parts of an object: by range, with a seekable reader, as a stream."""

from __future__ import annotations

import asyncio
import io
import os
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lsst_lfa import S3Session, errors

if TYPE_CHECKING:
    from lsst_lfa import AsyncS3Bucket

MiB = 1024 * 1024
DATA = random.Random(1).randbytes(17 * MiB + 5)  # ranges are of 5 MiB, windows of up to 4


@pytest.fixture
async def key(bucket: AsyncS3Bucket) -> str:
    await bucket.upload(DATA, "object")
    return "object"


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, None),
        (5, None),
        (17 * MiB, None),
        (1, 12 * MiB + 1),
        (7, 7),
        (0, 0),
        (0, len(DATA)),
        (len(DATA) - 1, len(DATA) + 100),
        (len(DATA), None),
        (len(DATA) + 5, len(DATA) + 9),
    ],
)
async def test_a_part_is_what_a_slice_would_be(bucket: AsyncS3Bucket, key: str, start: int, stop: int | None) -> None:
    counts: list[int] = []
    file = await bucket.download(key, counts.append, start=start, stop=stop)
    assert type(file) is io.BytesIO
    assert file.tell() == 0
    assert file.getvalue() == DATA[start:stop]
    assert sum(counts) == len(DATA[start:stop])
    assert counts
    assert await bucket.read(key, start, stop) == DATA[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (0, -1), (5, 4)])
async def test_what_is_no_range_is_refused(bucket: AsyncS3Bucket, key: str, start: int, stop: int | None) -> None:
    with pytest.raises(ValueError, match="range"):
        await bucket.read(key, start, stop)
    async with bucket.open(key) as file:
        with pytest.raises(ValueError, match="range"):
            await file.read_range(start, -5 if stop is None else stop)


@pytest.mark.parametrize(("start", "stop"), [(1.5, 3), ("1", 2), (None, 3), (0, 2.0)])
async def test_what_is_no_integer_is_refused_before_anything_is_sent(start: Any, stop: Any) -> None:
    with pytest.raises(TypeError, match="integer"):
        await S3Session(endpoint_url="http://127.0.0.1:9").bucket("test").read("key", start, stop)


async def test_integers_may_be_of_any_kind(bucket: AsyncS3Bucket, key: str) -> None:
    number: Any = np.int64
    assert await bucket.read(key, True, number(3)) == DATA[1:3]
    async with bucket.open(key) as file:
        assert await file.seek(number(5)) == 5
        assert await file.read(number(2)) == DATA[5:7]
        await file.seek(-3, os.SEEK_END)
        assert await file.read(None) == DATA[-3:]
        with pytest.raises(TypeError):
            await file.seek(1.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await file.read(1.5)  # type: ignore[arg-type]


async def test_a_part_of_a_missing_object_is_missing(bucket: AsyncS3Bucket) -> None:
    with pytest.raises(errors.KeyNotFoundError):
        await bucket.read("missing", 5, 5)
    with pytest.raises(errors.KeyNotFoundError):
        await bucket.download("missing", start=1)
    with pytest.raises(errors.KeyNotFoundError):
        async with bucket.open("missing"):
            pass


async def test_a_reader_reads_as_a_file_does(bucket: AsyncS3Bucket, key: str) -> None:
    chance = random.Random(2)
    file = io.BytesIO(DATA)
    async with bucket.open(key) as reader:
        assert (reader.key, reader.size) == (key, len(DATA))
        assert reader.etag == (await bucket.head(key)).etag
        for _ in range(200):
            if chance.random() < 0.3:
                whence = chance.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
                base = {os.SEEK_SET: 0, os.SEEK_CUR: file.tell(), os.SEEK_END: len(DATA)}[whence]
                offset = chance.randrange(len(DATA) + MiB) - base
                assert await reader.seek(offset, whence) == file.seek(offset, whence)
            size = chance.choice([0, 1, 80, 2880, 100_000, 3 * MiB, 5 * MiB])
            assert await reader.read(size) == file.read(size)
            assert await reader.tell() == file.tell()
        await reader.seek(3)
        assert await reader.read() == DATA[3:]
        assert await reader.read() == await reader.read(5) == b""


async def test_what_is_read_in_order_is_read_ahead_within_bounds(bucket: AsyncS3Bucket, key: str) -> None:
    async with bucket.open(key) as reader:
        assert await reader.read(100) == DATA[:100]
        assert reader._ahead is None, "a first read need not go on"
        position = 100
        while chunk := await reader.read(100_000):
            assert DATA.startswith(chunk, position)
            position += len(chunk)
            assert len(reader._buffer) <= 4 * MiB
            assert reader._window <= 4 * MiB
            await asyncio.sleep(0)
        assert position == len(DATA)
    assert reader._ahead is None


async def test_a_reader_says_what_it_cannot_do(bucket: AsyncS3Bucket, key: str) -> None:
    async with bucket.open(key) as reader:
        for bad in ((-1,), (-1, os.SEEK_CUR), (-len(DATA) - 1, os.SEEK_END), (0, 3)):
            with pytest.raises(ValueError, match=r"begin|whence"):
                await reader.seek(*bad)
        assert await reader.tell() == 0
    for call in (lambda: reader.read(1), lambda: reader.seek(0), reader.tell, lambda: reader.read_range(0, 1)):
        with pytest.raises(ValueError, match="closed"):
            await call()


async def test_tasks_may_share_a_reader(bucket: AsyncS3Bucket, key: str) -> None:
    async with bucket.open(key) as reader:
        pieces = await asyncio.gather(*(reader.read(50_000) for _ in range(40)))
        assert b"".join(pieces) == DATA[:2_000_000]
        ranges = await asyncio.gather(*(reader.read_range(n, n + 1000) for n in range(0, MiB, 100_000)))
        assert ranges == [DATA[n : n + 1000] for n in range(0, MiB, 100_000)]
        assert await reader.tell() == 2_000_000


async def test_an_empty_object_reads_as_nothing(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"", "empty")
    async with bucket.open("empty") as reader:
        assert (reader.size, await reader.read(), await reader.read(5)) == (0, b"", b"")
    assert await bucket.read("empty", 0, 10) == b""


async def test_a_reader_can_be_uploaded(bucket: AsyncS3Bucket, key: str) -> None:
    async with bucket.open(key) as reader:
        await reader.seek(MiB)
        await bucket.upload(reader, "copy")
    assert await bucket.read("copy") == DATA[MiB:]


async def test_a_stream_is_closed_by_its_block(bucket: AsyncS3Bucket, key: str) -> None:
    before = asyncio.all_tasks()
    async with bucket.stream(key) as chunks:
        first = await anext(chunks)
        assert DATA.startswith(first)
        assert asyncio.all_tasks() > before, "it reads ahead"
    assert asyncio.all_tasks() == before
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_a_stream_is_an_iterator_too(bucket: AsyncS3Bucket, key: str) -> None:
    assert b"".join([chunk async for chunk in bucket.stream(key)]) == DATA
    async with bucket.stream(key) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == DATA
    async with aclosing(bucket.stream(key)) as closing:
        assert DATA.startswith(await anext(closing))


async def test_an_error_in_the_block_comes_through(bucket: AsyncS3Bucket, key: str) -> None:
    before = asyncio.all_tasks()

    async def fail_in_a_stream() -> None:
        async with bucket.stream(key) as chunks:
            async for _ in chunks:
                raise ZeroDivisionError

    async def fail_in_a_reader() -> None:
        async with bucket.open(key) as reader:
            await reader.read(MiB)
            await reader.read(MiB)
            raise ZeroDivisionError

    for fail in (fail_in_a_stream, fail_in_a_reader):
        with pytest.raises(ZeroDivisionError):
            await fail()
        assert asyncio.all_tasks() == before


async def test_closing_the_bucket_ends_its_readers(server: Any, bucket: AsyncS3Bucket, key: str) -> None:
    session = S3Session.for_mock(server)
    async with session.bucket("test").open(key) as reader:
        assert await reader.read(5) == DATA[:5]
        await session.aclose()
        with pytest.raises(errors.ClosedError):
            await reader.read_range(MiB, MiB + 5)
