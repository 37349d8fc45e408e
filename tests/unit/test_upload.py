"""Uploads: the last part, what each ETag proves, and that clean-up waits for nobody."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiofiles
import pytest

from lsst_lfa import AsyncS3Bucket, S3Session, TransferConfig, errors
from lsst_lfa._transfer.memory import LentViews
from lsst_lfa._transfer.sources import open_source
from lsst_lfa._transfer.upload import read_parts
from tests.faults import Action, Fault, FaultyS3Server, Hook, Reset, SendSlowly, Silence, Status
from tests.faults.harness import SmallParts
from tests.faults.messages import Response, element, error_response, xml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.faults import Exchange

KiB = 1024
MiB = 1024 * KiB
PART = 64 * KiB
CONFIG = SmallParts(
    part_size=PART,
    memory_part_size=PART,
    multipart_threshold=PART,
    max_concurrency=2,
    retry_delay=0.01,
    max_attempts=2,
    cleanup_timeout=1,
)
DATA = random.Random(0).randbytes(256 * (5 * KiB // 4))
DATA_4 = random.Random(0).randbytes(256 * (4 * PART // 256)) + b"1"
"""One byte more than four parts."""
KEYS: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret", "region": "us-east-1"}


@asynccontextmanager
async def served(
    *faults: Fault, config: TransferConfig = CONFIG, **options: Any
) -> AsyncIterator[tuple[FaultyS3Server, AsyncS3Bucket]]:
    async with (
        FaultyS3Server(faults, min_part_size=1) as server,
        S3Session(endpoint_url=server.endpoint_url, config=config, **KEYS, **options) as session,
    ):
        yield server, session.bucket("test")


class NoSeek(io.BytesIO):
    def seekable(self) -> bool:
        return False


@asynccontextmanager
async def opened(kind: str, data: bytes, path: Path) -> AsyncIterator[Any]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 50_000):
            yield data[start : start + 50_000]

    path.write_bytes(data)
    with path.open("rb") as file:
        async with aiofiles.open(path, "rb") as aiofile:
            yield {
                "bytes": data,
                "bytearray": bytearray(data),
                "BytesIO": io.BytesIO(data),
                "path": path,
                "file": file,
                "aiofiles": aiofile,
                "iterator": pieces(),
                "no seek": NoSeek(data),
            }[kind]


KINDS = ["bytes", "bytearray", "BytesIO", "path", "file", "aiofiles", "iterator", "no seek"]


async def test_the_first_upload_has_parts_for_the_delay_that_its_creation_has_shown() -> None:
    config = SmallParts(part_size=MiB, memory_part_size=16 * MiB, multipart_threshold=MiB)
    slow = Fault("CreateMultipartUpload", SendSlowly(4000))
    async with served(slow, config=config) as (server, bucket):
        await bucket.upload(bytes(16 * MiB), "key")
        assert len(server.calls("UploadPart")) == 16, "as many as can be sent in parallel, not a few of the largest"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_last_part_may_be_full(kind: str, tmp_path: Path) -> None:
    for size in (4 * PART - 1, 4 * PART, 4 * PART + 1):
        data = DATA_4[:size]
        async with (
            opened(kind, data, tmp_path / "source") as opened_source,
            open_source(opened_source) as source,
            aclosing(read_parts(source, itertools.repeat(PART, 4), LentViews())) as parts,
        ):
            if size <= 4 * PART:
                assert b"".join([view for part in [each async for each in parts] for view in part]) == data
            else:
                # Of which nobody could know before that they are too many.
                expected = ValueError if source.size is None else errors.SourceChangedError
                with pytest.raises(expected):
                    _ = [each async for each in parts]


class Huge(io.RawIOBase):
    """A file that is a byte longer than an object can be."""

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset if whence == io.SEEK_SET else 5 * 1024**4 + 1
        return self._position

    def tell(self) -> int:
        return getattr(self, "_position", 0)


async def test_a_file_that_no_object_can_hold_is_refused_before_anything_is_sent() -> None:
    async with served() as (server, bucket):
        with pytest.raises(ValueError, match="at most 5 TiB"):
            await bucket.upload(Huge(), "k")
        assert not server.seen


async def test_cleaning_up_does_not_wait_for_transfers() -> None:
    silent = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield DATA
        silent.set()
        await asyncio.Event().wait()

    busy = Fault("PutObject", Silence(request_byte=0, seconds=1))
    async with served(busy, max_connections=3) as (server, bucket):
        task = asyncio.create_task(bucket.upload(source(), "k"))
        await silent.wait()
        await asyncio.sleep(0.1)
        healthy = [asyncio.create_task(bucket.upload(b"data", f"{number}")) for number in range(9)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.uploads
        assert time.monotonic() - began < 1
        assert server.current_requests == 3
        for each in healthy:
            each.cancel()
        await asyncio.wait(healthy)


async def test_the_time_for_cleaning_up_begins_when_it_does() -> None:
    """More uploads are aborted at once than connections are for it, and each abort takes a while."""

    async def source() -> AsyncIterator[bytes]:
        yield DATA
        await asyncio.Event().wait()

    slow = Fault("AbortMultipartUpload", Silence(seconds=0.25))
    async with served(slow, max_connections=2) as (server, bucket):
        tasks = [asyncio.create_task(bucket.upload(source(), f"{number}")) for number in range(10)]
        async with asyncio.timeout(10):
            while len(server.uploads) < 10:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)  # 10 times two requests, two at a time: 2.5 s, where each may take 1 s
        assert not server.uploads


class DoneAndLost(Action):
    """Completes, starts other transfers, and loses the response."""

    def __init__(self, bucket: AsyncS3Bucket) -> None:
        self.bucket = bucket
        self.others: list[asyncio.Task[str]] = []

    async def respond(self, exchange: Exchange) -> Response:
        exchange.carry_out()
        self.others += [asyncio.create_task(self.bucket.upload(b"data", f"{number}")) for number in range(5)]
        await asyncio.sleep(0.05)
        exchange.connection.reset()
        raise ConnectionAbortedError


async def test_asking_what_became_of_an_upload_does_not_wait_for_transfers() -> None:
    async with served(max_connections=1) as (server, bucket):
        lost = DoneAndLost(bucket)
        bucket._config = replace(CONFIG, max_attempts=1)
        server.script(Fault("CompleteMultipartUpload", lost), Fault("PutObject", Silence(request_byte=0, seconds=1.5)))
        await bucket.upload(DATA, "k")
        assert server.objects["test", "k"].data == DATA
        assert not server.objects.keys() - {("test", "k")}  # the others are still at it
        for task in lost.others:
            task.cancel()
        await asyncio.wait(lost.others)


async def test_the_time_for_asking_begins_when_it_does() -> None:
    """More responses are lost at once than connections are for asking, and each HEAD takes a while."""
    lost, slow = Reset(carry_out=True), Silence(seconds=0.25)
    async with served(max_connections=2) as (server, bucket):
        bucket._config = replace(CONFIG, max_attempts=1)
        server.script(Fault("CompleteMultipartUpload", lost), Fault("HeadObject", slow))
        # 12 requests, two at a time: 1.5 s, where each may take 1 s
        await asyncio.gather(*(bucket.upload(DATA, f"{number}") for number in range(12)))
        assert not server.uploads


@dataclass
class Parts(Action):
    """Stores a part under an ETag that is no digest, if told so."""

    kind: str

    async def respond(self, exchange: Exchange) -> Response:
        response = exchange.carry_out()
        if self.kind != "digests":
            response.headers["ETag"] = f'"{_opaque(self.kind, exchange.seen.number)}"'
        return response


def _opaque(kind: str, number: int) -> str:
    return f"{number:032x}" if kind in ("random", "kms") else f"opaque+{number}/="


@dataclass
class Complete(Action):
    """Completes an upload whatever the parts' ETags are, or does not; and says so, or does not.

    Parameters
    ----------
    kind : str
        Of the ETags.
    done, told : bool
        Whether it is done; whether the response says so.
    """

    kind: str
    done: bool = True
    told: bool = False

    async def respond(self, exchange: Exchange) -> Response:
        store, request = exchange.server.store, exchange.request
        if not self.done or request.query["uploadId"] not in store.uploads:
            return exchange.carry_out() if self.done else error_response(500, "InternalError")
        upload = store.uploads[request.query["uploadId"]]
        parts = [(number, part.md5.hex()) for number, part in sorted(upload.parts.items())]
        stored = disguised(store.complete(upload, parts), self.kind)
        store.objects["test", "k"] = stored
        if not self.told:
            return error_response(500, "InternalError")
        return xml(element("CompleteMultipartUploadResult", element("ETag", stored.etag)))


def disguised(stored: Any, kind: str) -> Any:
    etag = stored.etag if kind == "digests" else f"{_opaque(kind, 99)}{'-5' if kind in ('random', 'kms') else ''}"
    headers = {"x-amz-server-side-encryption": "aws:kms"} if kind == "kms" else {}
    return replace(stored, etag=etag, headers=headers)


ETAGS = ["digests", "random", "opaque", "kms"]
etags = pytest.mark.parametrize("kind", ETAGS)
OTHER = DATA[::-1]


@etags
@pytest.mark.parametrize("told", [False, True])
async def test_what_was_completed_is_recognised_by_whatever_etags_there_are(kind: str, *, told: bool) -> None:
    async with served(
        Fault("UploadPart", Parts(kind)), Fault("CompleteMultipartUpload", Complete(kind, told=told))
    ) as (server, bucket):
        server.put("test", "k", OTHER)
        await bucket.upload(DATA, "k")
        assert server.objects["test", "k"].data == DATA
        assert not server.uploads


@etags
@pytest.mark.parametrize("there", ["nothing", "another size", "other bytes", "the same bytes"])
async def test_what_was_not_completed_is_not_found_in_what_was_there_before(kind: str, there: str) -> None:
    async with served(
        Fault("UploadPart", Parts(kind)), Fault("CompleteMultipartUpload", Complete(kind, done=False))
    ) as (server, bucket):
        before = {"nothing": None, "another size": b"x", "other bytes": OTHER, "the same bytes": DATA}[there]
        if before is not None:
            earlier = disguised(server.put("test", "k", before), kind)
            server.objects["test", "k"] = replace(earlier, modified=time.time() - 60)
        with pytest.raises(errors.UnavailableError):
            await bucket.upload(DATA, "k")
        assert not server.uploads
        assert server.calls("AbortMultipartUpload")


async def test_the_same_bytes_in_the_same_parts_are_a_success_and_the_upload_is_aborted() -> None:
    async with served() as (server, bucket):
        await bucket.upload(DATA, "k")
        server.script(Fault("CompleteMultipartUpload", Complete("digests", done=False)))
        await bucket.upload(DATA, "k")
        assert server.objects["test", "k"].data == DATA
        assert not server.uploads


@pytest.mark.parametrize("data", [b"data", DATA], ids=["one request", "parts"])
async def test_the_same_bytes_with_something_else_beside_them_are_no_success(data: bytes) -> None:
    faults = [Fault(operation, Status(500, "InternalError")) for operation in ("PutObject", "CompleteMultipartUpload")]
    given: list[dict[str, Any]] = [
        {"metadata": {"a": "ü"}},
        {"content_type": "text/plain"},
        {"extra_args": {"ACL": "public-read"}},
        {"extra_args": {"Tagging": "a=b"}},
    ]
    async with served() as (server, bucket):
        await bucket.upload(data, "k", metadata={"a": "b"})
        server.script(*faults)
        for options in given[:2]:  # however new it is
            with pytest.raises(errors.UnavailableError):
                await bucket.upload(data, "k", **options)
        server.objects["test", "k"] = replace(server.objects["test", "k"], modified=time.time() - 60)
        for options in given:
            with pytest.raises(errors.UnavailableError):
                await bucket.upload(data, "k", **options)
        assert not server.uploads
        await bucket.upload(data, "k", metadata={"A": "b"})  # which is what is there


async def test_other_bytes_that_came_meanwhile_are_not_ours_where_etags_are_digests() -> None:
    def meanwhile(server: FaultyS3Server) -> None:
        server.put("test", "k", OTHER)

    async with served(Fault("CompleteMultipartUpload", Complete("digests", done=False))) as (server, bucket):
        server.script(
            Fault("UploadPart", Hook(before=meanwhile)),
            Fault("CompleteMultipartUpload", Complete("digests", done=False)),
        )
        with pytest.raises(errors.UnavailableError):
            await bucket.upload(DATA, "k")
        assert not server.uploads


class NoDate(Action):
    """A server without a clock."""

    async def respond(self, exchange: Exchange) -> Response:
        response = exchange.carry_out()
        response.headers["Date"] = ""
        return response


async def test_our_own_clock_proves_nothing() -> None:
    """The object has the right size and is newer than our clock says that we began; but the server told no time."""
    async with served(
        Fault("CreateMultipartUpload", NoDate()),
        Fault("UploadPart", Parts("opaque")),
        Fault("CompleteMultipartUpload", Complete("opaque", done=False)),
    ) as (server, bucket):
        earlier = disguised(server.put("test", "k", OTHER), "opaque")
        server.objects["test", "k"] = replace(earlier, modified=time.time() + 60)
        with pytest.raises(errors.UnavailableError):
            await bucket.upload(DATA, "k")


async def test_a_put_whose_response_is_lost_is_recognised_by_time_where_etags_are_no_digests() -> None:
    class Put(Action):
        async def respond(self, exchange: Exchange) -> Response:
            exchange.carry_out()
            store = exchange.server.store
            store.objects["test", "k"] = disguised(store.objects["test", "k"], "kms")
            exchange.connection.reset()
            raise ConnectionAbortedError

    async with served(Fault("PutObject", Put())) as (server, bucket):
        await bucket.upload(b"data", "k")
        server.script(Fault("PutObject", Reset()))
        server.objects["test", "k"] = replace(server.objects["test", "k"], modified=time.time() - 60)
        with pytest.raises(errors.UnreachableError):
            await bucket.upload(b"atad", "k")
