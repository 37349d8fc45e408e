"""What we have botocore's client do otherwise: the same requests, without holding the loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from lsst_lfa import S3Session
from lsst_lfa._transfer.failures import RequestInfo
from tests.faults import Action, Fault, FaultyS3Server
from tests.faults.harness import CONFIG
from tests.faults.messages import Response
from tests.faults.plain import plain_client

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.faults import Exchange

DONE = b"<CompleteMultipartUploadResult><ETag>x-2</ETag></CompleteMultipartUploadResult>"
PARTS = [{"PartNumber": number, "ETag": f'"<{number}>&"'} for number in range(1, 10_001)]


class Kept(Action):
    """Keeps the bodies that came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def respond(self, exchange: Exchange) -> Response:
        self.bodies.append(exchange.request.body.data)
        return Response(body=[DONE])


async def complete(client: Any, parts: list[dict[str, Any]]) -> None:
    await client.complete_multipart_upload(Bucket="test", Key="k", UploadId="u", MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("setting", ["when_required", "when_supported"])
async def test_the_list_of_parts_is_the_one_that_botocore_would_write(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    kept = Kept()
    keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
    async with FaultyS3Server([Fault("CompleteMultipartUpload", kept)]) as server:
        async with plain_client(server.endpoint_url) as client:
            await complete(client, PARTS[:3])
        async with (
            S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **keys) as session,
            session._client.borrow(RequestInfo("x", "test", None, ""), CONFIG) as borrowed,
        ):
            await complete(borrowed.client, PARTS[:3])
            longest = [await longest_stall(complete(borrowed.client, PARTS)) for _ in range(5)]
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
