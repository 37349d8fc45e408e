"""What a server sees of each operation: which requests, in what form, and how many."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session, TransferConfig, errors
from lsst_lfa._transfer.failures import RequestInfo
from tests.faults import Action, Fault, FaultyS3Server, SendSlowly, Silence, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.faults import Exchange
    from tests.faults.messages import Response

MiB = 1024 * 1024
KEYS: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}


@asynccontextmanager
async def served(*faults: Fault, **config: Any) -> AsyncIterator[tuple[FaultyS3Server, AsyncS3Bucket]]:
    async with FaultyS3Server(faults) as server:
        session = S3Session(endpoint_url=server.endpoint_url, **KEYS, config=TransferConfig(**config))
        async with session:
            yield server, session.bucket("test")


async def test_a_download_is_ranges_of_one_version_side_by_side_and_nothing_else() -> None:
    async with served(Fault("GetObject", SendSlowly(20e6)), range_size=MiB, max_concurrency=3) as (server, bucket):
        etag = server.put("test", "k", bytes(8 * MiB)).etag
        await bucket.download("k")
        assert {seen.operation for seen in server.seen} == {"GetObject"}
        first, *others = server.seen
        assert "if-match" not in first.headers
        assert {seen.headers["if-match"] for seen in others} == {f'"{etag}"'}
        assert 1 < server.peak_requests <= 3


@pytest.mark.parametrize(("status", "times"), [(Status(403, "AccessDenied"), 1), (Status(503, "SlowDown"), 3)])
async def test_only_what_may_get_better_is_tried_again(status: Status, times: int) -> None:
    async with served(Fault("PutObject", status), max_attempts=3, retry_delay=0.01) as (server, bucket):
        with pytest.raises(ClientError):
            await bucket.upload(b"data", "k")
        assert len(server.calls("PutObject")) == times


@pytest.mark.parametrize("integrity", ["sha256", "md5"])
@pytest.mark.parametrize("setting", ["", "when_supported"])
async def test_checksums_are_those_asked_for(monkeypatch: pytest.MonkeyPatch, integrity: str, setting: str) -> None:
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    if setting:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    async with served(integrity=integrity) as (server, bucket):
        await bucket.upload(b"data", "k")
        (seen,) = server.seen
    assert len(seen.headers["x-amz-content-sha256"]) == 64
    assert ("content-md5" in seen.headers) == (integrity == "md5")
    assert any(name.startswith("x-amz-checksum-") for name in seen.headers) == bool(setting)


async def test_a_checksum_is_of_the_whole_body_when_it_is_sent_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    async with served(Fault("PutObject", Status(500), times=1)) as (server, bucket):
        await bucket.upload(b"data", "k")
        first, again = (
            {name: seen.headers[name] for name in seen.headers if "checksum" in name} for seen in server.seen
        )
    assert first == again != {}


async def test_deleting_many_objects_by_boto3_carries_a_digest() -> None:
    async with served() as (server, bucket):
        objects = {"Objects": [{"Key": "k"}]}
        await asyncio.to_thread(lambda: bucket.bucket.delete_objects(Delete=objects))
        assert "content-md5" in server.seen[0].headers


async def test_check_asks_once_and_does_not_wait_for_ever() -> None:
    async with served(Fault("*", Status(500), times=1), Fault("*", Silence())) as (server, bucket):
        with pytest.raises(errors.UnavailableError):
            await bucket.check()
        assert len(server.seen) == 1
        began = time.monotonic()
        with pytest.raises(errors.TransferTimeoutError):
            await bucket.check(timeout=0.2)
        assert time.monotonic() - began < 3


async def test_buckets_are_in_the_path() -> None:
    async with S3Session(endpoint_url="http://s3.example.org", **KEYS) as session:
        url = await session.bucket("test").presigned_url("k")
    assert url.startswith("http://s3.example.org/test/k?")


async def test_a_presigned_url_is_for_its_time_and_its_method() -> None:
    async with S3Session(endpoint_url="http://s3.example.org", **KEYS) as session:
        bucket = session.bucket("test")
        get, put = [await bucket.presigned_url("k", expires=120, method=method) for method in ("get", "put")]
        longer = await bucket.presigned_url("k", expires=timedelta(minutes=3))
    assert "X-Amz-Expires=120&" in get
    assert "X-Amz-Expires=180&" in longer
    assert get.partition("X-Amz-Signature=")[2] != put.partition("X-Amz-Signature=")[2]


async def test_a_tenants_bucket_is_used_like_any_other(server: MockS3Server) -> None:
    server.create_bucket("tenant:bucket")
    async with S3Session.for_mock(server) as session:
        bucket = session.bucket("tenant:bucket")
        assert await bucket.upload(b"data", "k") == f"{server.endpoint_url}/tenant:bucket/k"
        assert (await bucket.download("k")).getvalue() == b"data"


class AnHourBehind(Action):
    """The server's clock is."""

    async def respond(self, exchange: Exchange) -> Response:
        response = exchange.carry_out()
        response.headers["Date"] = formatdate(time.time() - 3600, usegmt=True)
        return response


async def test_the_age_of_a_stale_upload_is_by_the_servers_clock_and_on_every_page() -> None:
    async with served(Fault("ListMultipartUploads", AnHourBehind())) as (server, bucket):
        for number in range(1002):
            upload = server.store.create_upload("test", f"{number:04}")
            age = timedelta(minutes=60 + (15 if number in (0, 1001) else 5))
            server.uploads[upload.upload_id] = replace(upload, initiated=time.time() - age.total_seconds())
        stale = [upload.key async for upload in bucket.list_uploads(older_than=timedelta(minutes=10))]
        assert stale == ["0000", "1001"]
        assert await bucket.abort_stale_uploads(timedelta(minutes=10)) == 2
        assert len(server.uploads) == 1000
        assert len(server.calls("ListMultipartUploads")) == 2 + 2


async def test_uploads_that_seem_to_begin_in_the_future_are_among_all_of_them() -> None:
    async with served() as (server, bucket):
        upload = server.store.create_upload("test", "k")
        server.uploads[upload.upload_id] = replace(upload, initiated=time.time() + 30)
        assert [upload.key async for upload in bucket.list_uploads()] == ["k"]
        assert [upload async for upload in bucket.list_uploads(older_than=0.001)] == []
        assert await bucket.abort_stale_uploads(0) == 1


async def test_creating_a_bucket_that_is_there_asks_whose_it_is() -> None:
    taken = Fault("CreateBucket", Status(409, "BucketAlreadyExists"))
    async with served() as (server, bucket):
        await bucket.create()  # the server says that it is ours
        server.script(taken)
        await bucket.create()  # the server does not say it, but lets us in
        server.script(taken, Fault("HeadBucket", Status(403, "AccessDenied")))
        with pytest.raises(errors.BucketTakenError, match="test"):
            await bucket.create()


async def test_closing_a_bucket_closes_the_session_that_is_its_own(
    server: MockS3Server, session: S3Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for bucket, ends in ((AsyncS3Bucket("test"), True), (session.bucket("test"), False)):
        assert await bucket.exists("k") is False
        async with bucket._client.borrow(RequestInfo("test", "test", None, ""), TransferConfig()) as borrowed:
            http = borrowed.client._endpoint.http_session
        await bucket.aclose()
        assert (http._session is None) is ends
