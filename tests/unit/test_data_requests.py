"""Requests for objects' data: the same as botocore's, but for what it says of itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.hooks import AioHierarchicalEmitter
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ParamValidationError

from lsst_lfa import S3Session, TransferConfig, errors
from lsst_lfa._client import data_requests
from tests.faults import Fault, FaultyS3Server, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MiB = 1024 * 1024
KEYS = ["k", "a/b.fits", "with space+plus", "ü/日本.yaml", "x//y", "100%", "q?a=1#b", "~tilde*'()!,;:@&=$"]
_DATA = {"PutObject", "UploadPart", "GetObject"}
# Both say these of themselves, or of the moment.
_OWN = {"authorization", "host", "user-agent", "x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request"}


@asynccontextmanager
async def opened(server: FaultyS3Server, **arguments: Any) -> AsyncIterator[S3Session]:
    arguments = {"access_key_id": "id", "secret_access_key": "secret"} | arguments
    async with S3Session(endpoint_url=server.endpoint_url, **arguments) as session:
        yield session


def described(server: FaultyS3Server) -> list[Any]:
    """Tell what was sent, without what differs from one time to the next."""
    signed = [
        seen.headers.get("authorization", "").partition("SignedHeaders=")[2].partition(",")[0] for seen in server.seen
    ]
    return [
        (
            seen.method,
            seen.target.replace(seen.upload_id or "no upload", "UPLOAD"),
            {name: value for name, value in seen.headers.items() if name not in _OWN},
            set(signature.split(";")) - _OWN,
        )
        for seen, signature in zip(server.seen, signed, strict=True)
    ]


def signature_by_botocore(server: FaultyS3Server, seen: Any, session_token: str | None) -> str:
    """Sign what was sent as it was signed."""
    signed = seen.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: seen.headers[name] for name in signed}
    request = AWSRequest(seen.method, f"{server.endpoint_url}{seen.target}", headers)
    request.context["timestamp"] = seen.headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials("id", "secret", session_token), "s3", "us-east-1")
    made: str = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return made


class Refusal:
    """The body of a response that never was on the network."""

    async def read(self) -> bytes:
        return b"<Error><Code>InvalidArgument</Code></Error>"


def made_by_botocore(server: FaultyS3Server) -> set[str]:
    """Tell which operations' requests botocore made: it numbers its requests."""
    return {seen.operation for seen in server.seen if "amz-sdk-invocation-id" in seen.headers}


def without_before_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore keep to itself what it signs."""
    emit = AioHierarchicalEmitter.emit

    async def nothing() -> list[Any]:
        return []

    def quiet(emitter: Any, event_name: str, **kwargs: Any) -> Any:
        return nothing() if event_name.startswith("before-sign") else emit(emitter, event_name, **kwargs)

    monkeypatch.setattr(AioHierarchicalEmitter, "emit", quiet)


async def transfers(session: S3Session, key: str) -> None:
    bucket = session.bucket("test")
    await bucket.upload(b"data", key, metadata={"Observer": "me  and you"}, content_type="text/x; a=b")
    await bucket.upload(bytes(6 * MiB), key)
    assert await bucket.read(key, 2, 9) == bytes(7)
    await bucket.download(key)


@pytest.mark.parametrize("integrity", ["sha256", "md5", "unsigned"])
@pytest.mark.parametrize("session_token", [None, "token/with+signs=="])
async def test_requests_are_those_that_botocore_makes(
    integrity: Any, session_token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TransferConfig(part_size=5 * MiB, multipart_threshold=5 * MiB, max_concurrency=1, integrity=integrity)
    seen, made = [], []
    for _ in range(2):
        async with FaultyS3Server() as server:
            async with opened(server, session_token=session_token, config=config) as session:
                for key in KEYS:
                    await transfers(session, key)
            calls = described(server)
            seen.append([call for call in calls if data_requests._UNSENT not in call[1]])
            made.append(made_by_botocore(server))
            for each in server.seen:
                signature = signature_by_botocore(server, each, session_token)
                assert each.headers["authorization"].endswith(f"Signature={signature}")
        without_before_sign(monkeypatch)
    assert any("x-amz-meta-observer" in headers for _, _, headers, _ in seen[0])
    assert seen[0] == seen[1]
    assert not _DATA & made[0]
    assert made[1] >= _DATA


async def test_nothing_is_sent_to_find_out_how_requests_are_made() -> None:
    async with FaultyS3Server() as server, opened(server) as session:
        await session.bucket("test").upload(b"data", "k")
        await session.bucket("test").download("k")
        assert [seen.operation for seen in server.seen] == ["PutObject", "GetObject"]


async def test_without_botocores_word_before_it_signs_it_makes_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    without_before_sign(monkeypatch)
    async with FaultyS3Server() as server, opened(server) as session:
        bucket = session.bucket("test")
        for number in range(3):
            await bucket.upload(b"data", f"{number}")
        assert (await bucket.download("1")).getvalue() == b"data"
        with pytest.raises(errors.KeyNotFoundError):
            await bucket.download("none")
        assert len(server.objects) == 3
        unsent = [seen for seen in server.seen if seen.key == data_requests._UNSENT]
        assert [seen.method for seen in unsent] == ["GET"]


async def test_a_web_page_in_the_place_of_an_object_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_before_sign(monkeypatch)
    page = Status(200, body=b"<html>", headers={"ETag": '"1"'})
    async with FaultyS3Server([Fault("GetObject", page, times=1)]) as server, opened(server) as session:
        bucket = session.bucket("test")
        await bucket.upload(b"data", "k")
        assert (await bucket.download("k")).getvalue() == b"data"


async def test_requests_without_credentials_are_unsigned() -> None:
    async with FaultyS3Server() as server:
        server.put("test", "k", b"data")
        async with S3Session(endpoint_url=server.endpoint_url, anonymous=True) as session:
            assert (await session.bucket("test").download("k")).getvalue() == b"data"
        assert not {"authorization", "x-amz-date"} & server.seen[0].headers.keys()


@pytest.mark.parametrize("operation", sorted(_DATA))
async def test_another_region_is_found_by_botocore(operation: str) -> None:
    elsewhere = (
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>eu-west-1</Region></Error>"
    )
    data = bytes(6 * MiB if operation == "UploadPart" else 4)
    moved: list[int] = []
    config = TransferConfig(part_size=5 * MiB, multipart_threshold=5 * MiB, max_concurrency=1)
    # What we make is refused, and then what botocore makes, until it signs for the other region.
    async with (
        FaultyS3Server([Fault(operation, Status(400, body=elsewhere), times=2)]) as server,
        opened(server, config=config) as session,
    ):
        bucket = session.bucket("test")
        await bucket.upload(data, "k", moved.append)
        assert (await bucket.download("k", moved.append)).getvalue() == data
        assert sum(moved) == 2 * len(data)
        regions = [seen.headers["authorization"].split("/")[2] for seen in server.calls(operation)]
        assert regions[:3] == ["us-east-1", "us-east-1", "eu-west-1"]


async def test_a_hook_sees_each_request_and_may_change_it() -> None:
    async with FaultyS3Server() as server, opened(server) as session:
        bucket = session.bucket("test")
        seen: list[tuple[str, str]] = []

        def note(request: Any, **_: object) -> None:
            seen.append((request.method, request.url))
            request.headers["X-Note"] = "seen"

        async with bucket._borrow("head", "k") as client:
            client.client.meta.events.register("before-send.s3.*", note)
        await bucket.upload(b"data", "k")
        await bucket.download("k")
        url = f"{server.endpoint_url}/test/k"
        assert seen == [("PUT", url), ("GET", url)]
        assert [request.headers["x-note"] for request in server.seen] == ["seen", "seen"]
        assert not made_by_botocore(server)


async def test_a_hooks_refusal_is_that_of_the_server() -> None:
    async with FaultyS3Server() as server, opened(server) as session:
        bucket = session.bucket("test")
        refusals = [AioAWSResponse("", 400, {}, Refusal())]

        def respond(**_: object) -> AioAWSResponse | None:
            return refusals.pop() if refusals else None

        async with bucket._borrow("head", "k") as client:
            client.client.meta.events.register("before-send.s3.PutObject", respond)
        with pytest.raises(errors.ServiceError, match="InvalidArgument"):
            await bucket.upload(b"data", "k")
        assert not server.seen
        await bucket.upload(b"data", "k")
        assert len(server.seen) == 1


async def test_the_data_that_a_hook_responds_with_are_downloaded() -> None:
    async with FaultyS3Server() as server, opened(server) as session, aiohttp.ClientSession() as elsewhere:
        server.put("test", "k", b"data")
        server.put("test", "other", b"other data")
        bucket = session.bucket("test")

        async def respond(**_: object) -> AioAWSResponse:
            response = await elsewhere.get(f"{server.endpoint_url}/test/other")
            return AioAWSResponse("", response.status, dict(response.headers), response)

        async with bucket._borrow("head", "k") as client:
            client.client.meta.events.register("before-send.s3.GetObject", respond)
        assert (await bucket.download("k")).getvalue() == b"other data"
        assert [seen.key for seen in server.seen] == ["other"]


async def test_a_content_type_that_is_no_text_is_refused_before_anything_is_sent() -> None:
    async with FaultyS3Server() as server, opened(server) as session:
        with pytest.raises(ParamValidationError):
            await session.bucket("test").upload(b"data", "k", extra_args={"ContentType": 5})
        assert not server.seen


async def test_an_error_under_status_200_is_tried_again() -> None:
    slow = b"<Error><Code>SlowDown</Code><Message>Please</Message></Error>"
    config = TransferConfig(max_attempts=3, retry_delay=0.01)
    async with FaultyS3Server([Fault("PutObject", Status(200, body=slow, headers={"ETag": '"1"'}), times=2)]) as server:
        async with opened(server, config=config) as session:
            await session.bucket("test").upload(b"data", "k")
        assert len(server.calls("PutObject")) == 3
        assert server.objects["test", "k"].etag == "8d777f385d3dfec8815d20f7496026dc"


@pytest.mark.parametrize("status", [Status(404, "NoSuchBucket"), Status(400, "InvalidArgument")])
async def test_an_error_is_that_of_the_request(status: Status) -> None:
    async with FaultyS3Server([Fault("PutObject", status)]) as server, opened(server) as session:
        with pytest.raises(errors.ServiceError, match=r"s3://test/k") as caught:
            await session.bucket("test").upload(b"data", "k")
    assert caught.value.response["Error"]["Code"] == status.s3_code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status.code
