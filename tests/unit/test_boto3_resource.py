"""boto3's resource, created when it is needed; copies of sessions and buckets."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import boto3.resources.base
import pytest
from botocore.exceptions import NoCredentialsError

from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session, TransferConfig, errors, salobj

if TYPE_CHECKING:
    from collections.abc import Callable

ENDPOINT = "http://127.0.0.1:9"
COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda what: pickle.loads(pickle.dumps(what))]
COPIED = pytest.mark.parametrize("make_copy", COPIES, ids=["deepcopy", "pickle"])


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", ENDPOINT)
    return ENDPOINT


def test_the_endpoint_is_known_at_once(endpoint: str) -> None:
    program = """
import sys, time
from lsst_lfa import AsyncS3Bucket
bucket = AsyncS3Bucket("test")
start = time.thread_time()
url = bucket.service_resource.meta.client.meta.endpoint_url
print(url, "boto3" in sys.modules, time.thread_time() - start)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    url, boto3_is_imported, seconds = done.stdout.split()
    assert (url, boto3_is_imported) == (ENDPOINT, "False")
    assert float(seconds) < 0.005


def test_all_else_is_boto3s_own(endpoint: str) -> None:
    resource = AsyncS3Bucket("test").service_resource
    assert isinstance(resource, boto3.resources.base.ServiceResource)
    assert type(resource).__name__ == "_Lazy", "the test is about that"
    assert repr(resource) == "s3.ServiceResource()"
    assert resource.meta.client.meta.region_name == "us-east-1"
    assert resource.meta.client.meta.endpoint_url == resource.Bucket("b").meta.client.meta.endpoint_url == ENDPOINT
    assert resource.meta.client is resource.meta.client
    assert "create_bucket" in dir(resource)
    assert "head_object" in dir(resource.meta.client)
    assert hash(resource) == hash(AsyncS3Bucket("test").service_resource)
    assert resource == AsyncS3Bucket("test").service_resource
    with pytest.raises(AttributeError, match="nonsense"):
        resource.nonsense  # noqa: B018


def test_what_is_set_is_set_on_boto3s_own(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = AsyncS3Bucket("test").service_resource
    monkeypatch.setattr(resource.meta.client, "head_object", lambda **_: {"ContentLength": 7, "Metadata": {}})
    assert resource.Object("test", "k").content_length == 7
    monkeypatch.undo()
    with pytest.raises(NoCredentialsError):
        assert resource.Object("test", "k").content_length


async def test_the_endpoint_of_an_open_client_on_aws_is_known_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    async with S3Session(access_key_id="id", secret_access_key="secret") as session:
        bucket = session.bucket("test")
        start = time.thread_time()
        url = bucket.service_resource.meta.client.meta.endpoint_url
        assert time.thread_time() - start < 0.005
        assert url == bucket.service_resource.Bucket("b").meta.client.meta.endpoint_url
        assert url == "https://s3.eu-west-1.amazonaws.com"


# Copies


@COPIED
async def test_a_session_is_copied_as_what_it_was_made_of(server: MockS3Server, make_copy: Any) -> None:
    config = TransferConfig(max_concurrency=5)
    session = S3Session(
        endpoint_url=server.endpoint_url, access_key_id="id", secret_access_key="secret", region="r", config=config
    )
    for _ in range(2):
        twin = make_copy(session)
        assert type(twin) is S3Session
        assert twin.config == config
        assert twin._client.settings == session._client.settings
        assert twin._client is not session._client
        async with twin:
            await twin.bucket("test").upload(b"data", "twin")
        await session.bucket("test").upload(b"data", "session")  # used, from the second time on
    await session.aclose()


@COPIED
@pytest.mark.parametrize("used", [False, True])
async def test_a_bucket_is_copied_as_what_it_was_made_of(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, make_copy: Any, *, used: bool
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket = AsyncS3Bucket("copied", create=True, config=TransferConfig(max_concurrency=7))
    if used:
        await bucket.upload(b"data", "key")
        assert bucket.bucket.name == "copied"
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    twin = make_copy(bucket)
    assert type(twin) is AsyncS3Bucket
    assert (twin.name, twin.profile, repr(twin)) == (bucket.name, None, repr(bucket))
    assert twin._config.max_concurrency == 7
    await bucket.aclose()
    await twin.upload(b"data", "key")
    assert twin.service_resource.meta.client.meta.endpoint_url == server.endpoint_url
    await twin.aclose()


@COPIED
async def test_buckets_of_one_session_share_its_copy(server: MockS3Server, make_copy: Any) -> None:
    session = S3Session.for_mock(server)
    twin, one, two = make_copy((session, session.bucket("test"), session.bucket("test")))
    async with twin:
        await one.upload(b"data", "shared")
        assert await two.read("shared") == b"data"
        assert one._client is two._client is twin._client is not session._client


@COPIED
@pytest.mark.parametrize("kind", [AsyncS3Bucket, salobj.AsyncS3Bucket])
async def test_the_copy_of_a_mocked_bucket_is_a_client_of_the_same_mock(make_copy: Any, kind: Any) -> None:
    bucket = kind("test", domock=True)
    try:
        await bucket.upload(io.BytesIO(b"data"), "key")
        twin = make_copy(bucket)
        assert type(twin) is kind
        assert (await twin.download("key")).getvalue() == b"data"
        await twin.aclose()
        twin.stop_mock()
        assert await bucket.exists("key"), "the mock is the first one's"
    finally:
        await bucket.aclose()
    with pytest.raises(errors.UnreachableError):
        await make_copy(
            AsyncS3Bucket("test", config=TransferConfig(max_attempts=1), session=S3Session.for_mock(_gone()))
        ).exists("key")


def _gone() -> MockS3Server:
    server = MockS3Server()
    server.start()
    server.stop()
    return server


def test_a_copy_works_in_another_loop(server: MockS3Server) -> None:
    async def use(session: S3Session) -> bytes:
        await session.bucket("test").upload(b"data", "loop")
        return pickle.dumps(session)

    pickled = asyncio.run(use(S3Session.for_mock(server)))
    asyncio.run(use(pickle.loads(pickled)))
