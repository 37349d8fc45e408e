"""Requests that transfer no data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, errors
from tests.faults import Fault, FaultyS3Server, Status
from tests.faults.harness import CONFIG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEYS: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
REFUSALS = [
    Status(403, "AccessDenied"),
    Status(409, "BucketAlreadyExists"),
    Status(409, "BucketAlreadyOwnedByYou"),
    Status(409, "OperationAborted"),
    Status(400, "TooManyBuckets"),
    Status(400, "InvalidLocationConstraint"),
    Status(405, "MethodNotAllowed"),
    Status(501, "NotImplemented"),
    Status(403),
    Status(409),
]
NOT_ALLOWED = [Fault(operation, Status(403, "AccessDenied")) for operation in ("HeadBucket", "ListObjectsV2")]


@pytest.fixture
async def server() -> AsyncIterator[FaultyS3Server]:
    async with FaultyS3Server(buckets=["b"]) as server:
        yield server


@pytest.fixture
async def session(server: FaultyS3Server) -> AsyncIterator[S3Session]:
    async with S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **KEYS) as session:
        yield session


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("restricted", [False, True], ids=["who may list", "who may neither list nor head"])
async def test_a_bucket_that_is_there_need_not_be_made(
    server: FaultyS3Server, session: S3Session, refusal: Status, *, restricted: bool
) -> None:
    server.script(Fault("CreateBucket", refusal), *(NOT_ALLOWED if restricted else ()))
    bucket = session.bucket("b", create=True)
    await bucket.upload(b"data", "k")
    assert (await bucket.download("k")).getvalue() == b"data"
    assert len(server.calls("CreateBucket")) <= 4


@pytest.mark.parametrize("refusal", [refusal for refusal in REFUSALS if refusal.s3_code != "BucketAlreadyOwnedByYou"])
async def test_what_kept_a_missing_bucket_from_being_made_is_told(
    server: FaultyS3Server, session: S3Session, refusal: Status
) -> None:
    server.script(Fault("CreateBucket", refusal))
    with pytest.raises(errors.ServiceError) as caught:
        await session.bucket("none", create=True).upload(b"data", "k")
    assert str(refusal.code) in str(caught.value)
    assert (refusal.s3_code or "create_bucket") in str(caught.value)


async def test_checking_makes_no_bucket(server: FaultyS3Server, session: S3Session) -> None:
    with pytest.raises(errors.BucketNotFoundError):
        await session.bucket("none", create=True).check()
    assert not server.calls("CreateBucket")
    assert server.buckets == {"b"}


async def test_a_listing_of_a_thousand_keys_does_not_hold_the_loop(server: FaultyS3Server, session: S3Session) -> None:
    for number in range(1000):
        server.put("b", f"key-{number:04}", b"x")
    bucket = session.bucket("b")
    assert [info.key async for info in bucket.list()] == [f"key-{number:04}" for number in range(1000)]
    assert await asyncio.wait_for(bucket.size("key-0001"), 5) == 1
