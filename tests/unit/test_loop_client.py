"""The client of an event loop is closed when asked to, whoever asks, and whoever still uses it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, errors
from tests.faults import Fault, FaultyS3Server, Silence
from tests.faults.harness import BUCKET, CONFIG, KEY, LARGE, SMALL, nothing_left

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[FaultyS3Server, S3Session, AsyncS3Bucket]]:
    """Open a session; at the end nothing may be left of it, though nobody closes it here."""
    async with nothing_left(), FaultyS3Server(buckets=[BUCKET], min_part_size=1) as server:
        server.put(BUCKET, KEY, LARGE)
        keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
        session = S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **keys)
        yield server, session, session.bucket(BUCKET)
        async with asyncio.timeout(5):
            while server.open_connections:
                await asyncio.sleep(0.01)
        assert not server.uploads


async def kind_of(work: Awaitable[object]) -> type[object]:
    (result,) = await asyncio.gather(work, return_exceptions=True)
    return type(result)


async def test_a_cancelled_aclose_closes_all_the_same() -> None:
    async with opened() as (server, session, bucket):
        await bucket.exists(KEY)
        server.script(Fault("UploadPart", Silence()))
        upload = asyncio.create_task(bucket.upload(LARGE, "k"))
        while not server.calls("UploadPart"):
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(session.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        assert await kind_of(closing) is asyncio.CancelledError
        assert await kind_of(upload) is errors.ClosedError


@pytest.mark.parametrize("verb", ["upload", "upload in parts", "download", "download_file", "source"])
async def test_aclose_in_the_middle_of_a_transfers_own_doing(verb: str, tmp_path: Path) -> None:
    async with opened() as (_, session, bucket):

        async def callback(_count: int) -> None:
            await session.aclose()

        async def source() -> AsyncIterator[bytes]:
            yield LARGE
            await session.aclose()
            yield LARGE

        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "upload": lambda: bucket.upload(SMALL, "k", callback),
            "upload in parts": lambda: bucket.upload(LARGE, "k", callback),
            "download": lambda: bucket.download(KEY, callback),
            "download_file": lambda: bucket.download_file(KEY, tmp_path / "file", callback),
            "source": lambda: bucket.upload(source(), "k"),
        }
        assert await kind_of(verbs[verb]()) is errors.ClosedError
        assert not list(tmp_path.iterdir())


async def test_aclose_twice_at_once() -> None:
    async with opened() as (server, session, bucket):
        await bucket.exists(KEY)
        server.script(Fault("*", Silence()))
        upload = asyncio.create_task(bucket.upload(SMALL, "k"))
        await asyncio.sleep(0.05)
        await asyncio.gather(session.aclose(), session.aclose())
        assert await kind_of(upload) is errors.ClosedError


@pytest.mark.parametrize("delay", [0, 0.001, 0.01, 0.03])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_aclose_while_another_task_opens(delay: float, *, cancelled: bool) -> None:
    async with opened() as (_, session, bucket):
        opening = asyncio.create_task(bucket.exists("none"))
        await asyncio.sleep(delay)
        closing = asyncio.create_task(session.aclose())
        await asyncio.sleep(0)
        if cancelled:
            closing.cancel()
            opening.cancel()
        assert await kind_of(opening) in {errors.ClosedError, asyncio.CancelledError, bool}
        assert await kind_of(closing) in {asyncio.CancelledError if cancelled else type(None), type(None)}


async def test_aclose_while_others_wait_to_begin() -> None:
    async with opened() as (server, session, bucket):
        await bucket.exists(KEY)
        uploads = [asyncio.create_task(bucket.upload(SMALL, f"{number}")) for number in range(10)]
        await asyncio.sleep(0)
        await session.aclose()
        assert {await kind_of(upload) for upload in uploads} == {errors.ClosedError}
        assert not server.calls("PutObject")
        assert session._client._client is None


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("verb", ["stream", "list"])
async def test_what_outlives_its_session_opens_no_other_client(verb: str, *, begun: bool) -> None:
    async with opened() as (server, session, bucket):
        for number in range(1001):
            server.objects[BUCKET, f"k{number}"] = server.objects[BUCKET, KEY]
        async with session:
            rest: Any = bucket.stream(KEY) if verb == "stream" else bucket.list()
            if begun:
                await anext(rest)
        before = len(server.seen)
        with pytest.raises(errors.ClosedError):
            async for _ in rest:
                pass
        assert len(server.seen) == before
        await rest.aclose()


async def test_closed_by_the_reader_of_a_stream() -> None:
    async with opened() as (_, session, bucket):

        async def read() -> None:
            async for _ in bucket.stream(KEY):
                await session.aclose()

        assert await kind_of(read()) is errors.ClosedError


async def test_a_new_transfer_while_old_ones_end() -> None:
    async with opened() as (server, session, bucket):
        await bucket.exists(KEY)
        server.script(Fault("PutObject", Silence()))
        upload = asyncio.create_task(bucket.upload(SMALL, "k"))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(session.aclose())
        await asyncio.sleep(0)
        assert await bucket.exists(KEY)
        assert await kind_of(upload) is errors.ClosedError
        await closing
        await session.aclose()


async def test_an_error_in_the_block_of_a_session_ends_its_transfers() -> None:
    async with opened() as (server, session, bucket):
        server.script(Fault("UploadPart", Silence()))
        uploads = []

        async def fail() -> None:
            async with session:
                uploads.append(asyncio.create_task(bucket.upload(LARGE, "k")))
                await asyncio.sleep(0.05)
                raise KeyError

        assert await kind_of(fail()) is KeyError
        assert await kind_of(uploads[0]) is errors.ClosedError


@pytest.mark.parametrize("doing", ["upload", "stream", "aclose", "opening"])
def test_a_loop_that_ends_in_the_middle_says_nothing(doing: str, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Any] = []

    async def main() -> None:
        async with FaultyS3Server(buckets=[BUCKET], min_part_size=1) as server:
            server.put(BUCKET, KEY, LARGE)
            session = S3Session(
                endpoint_url=server.endpoint_url, access_key_id="id", secret_access_key="secret", config=CONFIG
            )
            bucket = session.bucket(BUCKET)
            if doing != "opening":
                await bucket.exists(KEY)
            kept.append(bucket.stream(KEY))
            if doing == "stream":
                await anext(kept[0])
            else:
                kept.append(asyncio.create_task(bucket.upload(LARGE, "k")))
                await asyncio.sleep(0 if doing == "opening" else 0.05)
            if doing == "aclose":
                kept.append(asyncio.create_task(session.aclose()))
                await asyncio.sleep(0)

    asyncio.run(main())
    kept.clear()
    gc.collect()
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
