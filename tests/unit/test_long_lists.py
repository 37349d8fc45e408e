"""Requests and responses with thousands of items: the same as botocore's, without blocking the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, unquote_plus
from xml.etree import ElementTree as ET

import pytest

from lsst_lfa import S3Session, errors
from lsst_lfa._transfer.failures import RequestInfo
from tests.faults import Action, Fault, FaultyS3Server, Status
from tests.faults.harness import CONFIG
from tests.faults.messages import Response
from tests.faults.plain import plain_client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.faults import Exchange

COMPLETED = b"<CompleteMultipartUploadResult><ETag>x-2</ETag></CompleteMultipartUploadResult>"
PARTS = [{"PartNumber": number, "ETag": f'"<{number}>&"'} for number in range(1, 10_001)]
OBJECTS = [{"Key": f"<{number}>&\"' ü+%41//"} for number in range(10_000)]
KEYS: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}


class Kept(Action):
    """Keeps the bodies that came."""

    def __init__(self, body: bytes) -> None:
        self.bodies: list[bytes] = []
        self._body = body

    async def respond(self, exchange: Exchange) -> Response:
        self.bodies.append(exchange.request.body.data)
        return Response(body=[self._body])


async def complete(client: Any, count: int = 10_000) -> None:
    parts = {"Parts": PARTS[:count]}
    await client.complete_multipart_upload(Bucket="test", Key="k", UploadId="u", MultipartUpload=parts)


async def delete(client: Any, count: int = 10_000) -> None:
    await client.delete_objects(Bucket="test", Delete={"Objects": OBJECTS[:count]})


@pytest.mark.parametrize("setting", ["when_required", "when_supported"])
@pytest.mark.parametrize(
    ("operation", "response", "call"),
    [("CompleteMultipartUpload", COMPLETED, complete), ("DeleteObjects", b"<DeleteResult/>", delete)],
)
async def test_a_request_is_the_one_that_botocore_would_write(
    monkeypatch: pytest.MonkeyPatch, setting: str, operation: str, response: bytes, call: Callable[..., Any]
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    kept = Kept(response)
    async with FaultyS3Server([Fault(operation, kept)]) as server:
        async with plain_client(server.endpoint_url) as client:
            await call(client, 3)
        async with (
            S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **KEYS) as session,
            session._client.borrow(RequestInfo("x", "test", None, ""), CONFIG) as borrowed,
        ):
            await call(borrowed.client, 3)
            longest = [await longest_stall(call(borrowed.client)) for _ in range(5)]
    theirs, ours, *_ = kept.bodies
    assert ET.canonicalize(ours.decode()) == ET.canonicalize(theirs.decode())
    # It took 0.2 s and more.
    assert min(longest) < 0.1


async def longest_stall(work: Coroutine[Any, Any, None]) -> float:
    """Return the longest time for which the loop did not run, in seconds of this thread's own."""
    stalls = [0.0]

    async def watch() -> None:
        while True:
            start = time.thread_time()
            await asyncio.sleep(0)
            stalls.append(time.thread_time() - start)

    watching = asyncio.create_task(watch())
    await work
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return max(stalls)


async def test_a_long_listing_is_parsed_once_and_not_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    class Parser(ET.XMLParser):
        def feed(self, data: Any, /) -> None:
            if len(data) > 100_000:
                threads.append(threading.current_thread())
            super().feed(data)

    monkeypatch.setattr(ET, "XMLParser", Parser)
    async with FaultyS3Server() as server, S3Session(endpoint_url=server.endpoint_url, **KEYS) as session:
        for number in range(1000):
            server.put("test", f"a key with {number}", b"")
        assert len([item async for item in session.bucket("test").list()]) == 1000
    assert len(threads) == 1
    assert threads != [threading.current_thread()]


async def test_the_keys_of_a_long_listing_are_not_decoded_on_the_event_loop() -> None:
    keys = [f"a key/{number:03}/" + "ü+%" * 80 for number in range(1000)]
    quoted = [quote_plus(key) for key in keys]
    described = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>x</ETag>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        for key in quoted
    )
    folder = "<CommonPrefixes><Prefix>%C3%BC%2F</Prefix></CommonPrefixes>"
    body = f"<R><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{described}{folder}</R>".encode()
    stalls = []
    async with (
        FaultyS3Server([Fault("ListObjectsV2", Status(200, body=body))]) as server,
        S3Session(endpoint_url=server.endpoint_url, **KEYS) as session,
    ):
        bucket = session.bucket("test")
        for _ in range(5):
            found: list[str] = []

            async def listed() -> None:
                found.extend([item.key async for item in bucket.list(delimiter="/")])  # noqa: B023 - it is awaited here

            stalls.append(await longest_stall(listed()))
            assert found == [*keys, "ü/"]
    begun = time.thread_time()
    assert [unquote_plus(key) for key in quoted] == keys
    assert min(stalls) < (time.thread_time() - begun) / 2


@pytest.mark.parametrize("is_known", [True, False], ids=["as botocore is", "where botocore calls it something else"])
async def test_an_error_behind_a_200_is_an_error(monkeypatch: pytest.MonkeyPatch, *, is_known: bool) -> None:
    if not is_known:
        monkeypatch.delattr("botocore.handlers._handle_200_error")
    fault = Fault("ListObjectsV2", Status(200, "InternalError"))
    async with (
        FaultyS3Server([fault]) as server,
        S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **KEYS) as session,
    ):
        bucket = session.bucket("test")
        with pytest.raises(errors.UnavailableError):
            await anext(bucket.list())
        server.script(Fault("ListObjectsV2", Status(200, body=b"<html>" + b"x" * 100_000)))
        with pytest.raises(errors.ProtocolError):
            await anext(bucket.list())
        server.script()
        assert [item async for item in bucket.list()] == []
