"""Downloads: what a server says about ranges, and that only an empty object passes for an empty one."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import AsyncS3Bucket, S3Session, TransferConfig, download_url, errors
from lsst_lfa._transfer import download as engine
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.ranges import S3RangeReader
from lsst_lfa._transfer.sinks import MemorySink
from tests.faults import Action, Close, Fault, FaultyS3Server, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.faults import Exchange
    from tests.faults.messages import Response

DATA = random.Random(0).randbytes(256 * 4096)
OLD = b"what was there before"


@asynccontextmanager
async def served(*faults: Fault, data: bytes = DATA) -> AsyncIterator[tuple[FaultyS3Server, AsyncS3Bucket]]:
    config = TransferConfig(range_size=400_000, retry_delay=0.01, max_attempts=4)
    async with FaultyS3Server(faults) as server:
        server.put("test", "k", data)
        keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
        async with S3Session(endpoint_url=server.endpoint_url, config=config, **keys) as session:
            yield server, session.bucket("test")


async def download(bucket: AsyncS3Bucket, folder: Path) -> bytes:
    return (await bucket.download("k")).getvalue()


async def download_file(bucket: AsyncS3Bucket, folder: Path) -> bytes:
    path = folder / "k"
    path.write_bytes(OLD)
    try:
        await bucket.download_file("k", path)
    except errors.LfaError:
        assert path.read_bytes() == OLD
        assert list(folder.iterdir()) == [path]
        raise
    return path.read_bytes()


async def stream(bucket: AsyncS3Bucket, folder: Path) -> bytes:
    return b"".join([chunk async for chunk in bucket.stream("k")])


async def presigned(bucket: AsyncS3Bucket, folder: Path) -> bytes:
    return (await download_url(await bucket.presigned_url("k"), config=bucket._config)).getvalue()


Verb = Any
VERBS: list[Callable[[AsyncS3Bucket, Path], Awaitable[bytes]]] = [download, download_file, stream, presigned]
verbs = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


def unsatisfiable(content_range: str | None, body: bytes = b"") -> Status:
    headers = {} if content_range is None else {"Content-Range": content_range}
    return Status(416, None if body else "InvalidRange", headers=headers, body=body)


@pytest.mark.parametrize("expected", [None, 0, 10, len(DATA), 2 * len(DATA)])
async def test_all_of_an_object_comes_whatever_size_was_expected(expected: int | None) -> None:
    counts: list[int] = []
    async with served() as (_, bucket), bucket._borrow("download", "k") as client:
        sink = MemorySink()
        await engine.download(S3RangeReader(client, "k"), sink, Progress(counts.append), expected=expected)
        sink.close()
        assert sink.file.getvalue() == DATA
        assert sum(counts) == len(DATA)


PAGE = b"<html><h1>416 Requested Range Not Satisfiable</h1></html>"
DISGUISES = {
    "with the size": unsatisfiable(f"bytes */{len(DATA)}"),
    "with another size": unsatisfiable("bytes */1"),
    "without a size": unsatisfiable(None),
    "with garbage for a size": unsatisfiable("bytes */"),
    "with no unit": unsatisfiable("*/0"),
    "a proxy's page": unsatisfiable(None, PAGE),
    "a proxy's page of another unit": unsatisfiable("items */0", PAGE),
}
disguises = pytest.mark.parametrize("disguise", DISGUISES)


@verbs
@disguises
async def test_a_range_that_is_refused_once_does_not_make_an_object_empty(
    verb: Verb, disguise: str, tmp_path: Path
) -> None:
    async with served(Fault("GetObject", DISGUISES[disguise], times=1)) as (_, bucket):
        assert await verb(bucket, tmp_path) == DATA


@verbs
@disguises
async def test_a_server_that_refuses_all_ranges_is_asked_for_the_whole(
    verb: Verb, disguise: str, tmp_path: Path
) -> None:
    refusal = Fault("GetObject", DISGUISES[disguise], where=lambda seen: "range" in seen.headers)
    async with served(refusal) as (_, bucket):
        assert await verb(bucket, tmp_path) == DATA


@verbs
@disguises
async def test_a_server_that_refuses_all_is_an_error(verb: Verb, disguise: str, tmp_path: Path) -> None:
    async with served(Fault("GetObject", DISGUISES[disguise])) as (_, bucket):
        with pytest.raises(errors.LfaError):
            await verb(bucket, tmp_path)


@verbs
@pytest.mark.parametrize("disguise", [*DISGUISES, "empty"])
@pytest.mark.parametrize("broken", [0, 1, 300_000], ids=["before its first byte", "after it", "later"])
async def test_a_range_that_breaks_off_and_is_refused_then_is_an_error(
    verb: Verb, disguise: str, broken: int, tmp_path: Path
) -> None:
    refusal = {**DISGUISES, "empty": unsatisfiable("bytes */0")}[disguise]
    faults = [Fault("GetObject", Close(response_byte=broken), nth=1), Fault("GetObject", refusal)]
    async with served(*faults) as (_, bucket):
        with pytest.raises(errors.LfaError):
            await verb(bucket, tmp_path)


@verbs
async def test_an_empty_object_is_empty(verb: Verb, tmp_path: Path) -> None:
    async with served(data=b"") as (server, bucket):
        assert await verb(bucket, tmp_path) == b""
        server.script(Fault("GetObject", unsatisfiable(None), times=1))
        assert await verb(bucket, tmp_path) == b""


async def test_the_words_of_a_refused_url_may_come_in_pieces() -> None:
    """The error's document is read to its end, not as far as it happened to come."""

    class Slow(Status):
        send_rate = 2000

    async with served(Fault("GetObject", Slow(403, "RequestTimeTooSkewed"))) as (_, bucket):
        with pytest.raises(errors.ClockSkewError):
            await download_url(await bucket.presigned_url("k"))


class Raw(Action):
    """Sends a response as it stands here, and closes the connection."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def respond(self, exchange: Exchange) -> Response:
        for piece in self.pieces:
            await exchange.connection.write(piece)
        exchange.connection.close()
        raise ConnectionAbortedError


HEAD = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nConnection: close\r\n'
CHUNKS = b"80000\r\n" + DATA[:0x80000] + b"\r\n80000\r\n" + DATA[0x80000:] + b"\r\n0\r\n\r\n"


@verbs
async def test_a_chunked_body_of_unknown_length_is_taken_only_to_its_own_end(verb: Verb, tmp_path: Path) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    async with served() as (server, bucket):
        for cut in (100, 0x80000, len(CHUNKS) - 1):
            server.script(
                Fault("GetObject", Raw(chunked + CHUNKS[:cut]), times=2), Fault("GetObject", Raw(chunked + CHUNKS))
            )
            assert await verb(bucket, tmp_path) == DATA
            assert len(server.seen) >= 3
        server.script(Fault("GetObject", Raw(chunked + CHUNKS[:-5])))
        with pytest.raises(errors.UnreachableError):
            await verb(bucket, tmp_path)


@verbs
async def test_a_body_that_only_the_connection_ends_proves_nothing(verb: Verb, tmp_path: Path) -> None:
    async with served(Fault("GetObject", Raw(HEAD + b"\r\n" + DATA[:500_000]))) as (server, bucket):
        with pytest.raises(errors.ProtocolError):
            await verb(bucket, tmp_path)
        server.script(Fault("GetObject", Raw(HEAD + b"\r\n" + DATA[:500_000]), times=2))
        assert await verb(bucket, tmp_path) == DATA
