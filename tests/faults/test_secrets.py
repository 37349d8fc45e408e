"""Secrets stay secret, and the mock keeps to itself."""

from __future__ import annotations

import logging
import socket
import traceback
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from lsst_lfa import AsyncS3Bucket, LfaError, MockS3Server, S3Session, download_url

from . import Fault, FaultyS3Server, RefusingHost, Reset, Silence, Status, Trap
from .harness import BUCKET, CONFIG, KEY, LARGE, MiB, nothing_left
from .wire import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Connection

CANARIES = ("CANARY-secret-key", "CANARY-session-token", "CANARY-password", "CANARY-user")
OURS = "lsst_lfa"
IMPATIENT = replace(CONFIG, stall_timeout=0.3, max_attempts=2)


def with_password(url: str) -> str:
    return url.replace("://", "://CANARY-user:CANARY-password@")


def from_arguments(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncS3Bucket:
    session = S3Session(
        endpoint_url=with_password(url),
        access_key_id="key-id",
        secret_access_key="CANARY-secret-key",
        session_token="CANARY-session-token",
        config=IMPATIENT,
    )
    return session.bucket(BUCKET)


def from_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncS3Bucket:
    monkeypatch.setenv("S3_ENDPOINT_URL", with_password(url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-secret-key")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "CANARY-session-token")
    return AsyncS3Bucket(BUCKET, config=IMPATIENT)


def everything(value: object) -> str:
    """Return all that a value shows of itself."""
    shown = [repr(value), str(value)]
    if isinstance(value, BaseException):
        shown += traceback.format_exception(value)
        shown += [repr(vars(value)), repr(value.args)]
    return "\n".join(shown)


@pytest.mark.parametrize("make", [from_arguments, from_environment])
async def test_canaries(
    make: Callable[[str, pytest.MonkeyPatch], AsyncS3Bucket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger=OURS)
    shown: list[object] = []
    async with nothing_left(), AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultyS3Server(buckets=[BUCKET], min_part_size=1))
        refusing = stack.enter_context(RefusingHost())
        bucket = make(server.endpoint_url, monkeypatch)
        shown += [bucket, bucket._client, bucket._client.settings, bucket.url(KEY), bucket._client.endpoint_url]
        shown += [await bucket.upload(LARGE, KEY), await bucket.head(KEY), await bucket.presigned_url("key")]
        for action in (Reset(), Silence(), Status(307), Status(403, "SignatureDoesNotMatch"), Status(500)):
            server.script(Fault("*", action))
            shown += [await error_of(bucket.upload(LARGE, KEY)), await error_of(bucket.download(KEY))]
            shown += [await error_of(bucket.exists(KEY))]
        unreachable = make(refusing.endpoint_url, monkeypatch)
        shown += [await error_of(unreachable.exists(KEY))]
        for each in (bucket, unreachable):
            await each._client.aclose()
    assert sum(isinstance(each, LfaError) for each in shown) == 16
    logged = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(OURS))
    assert logged
    assert not any(secret in logged for secret in CANARIES)
    presigned = next(str(each) for each in shown if "X-Amz-Signature" in str(each))
    shown.remove(presigned)
    assert "CANARY-password" not in presigned
    assert "CANARY-secret-key" not in presigned
    for value in shown:
        assert not [secret for secret in CANARIES if secret in everything(value)], value


class Garbage(Listener):
    """Responds with what is not HTTP."""

    async def serve(self, connection: Connection) -> None:
        while await connection.read_head():
            await connection.write(b"HTTP/1.1 nothing\r\n\r\n")


# AWS repeats it.
REPEATED = b"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>CANARY-signature</SignatureProvided></Error>"


async def test_presigned_urls_are_secrets(caplog: pytest.LogCaptureFixture) -> None:
    # Of everybody: botocore logs each URL that it makes.
    caplog.set_level(logging.DEBUG)
    path = f"/{BUCKET}/key?X-Amz-Date=20260301T120000Z&X-Amz-Expires=30&X-Amz-Signature=CANARY-signature"
    shown: list[BaseException] = []
    async with nothing_left(), AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultyS3Server(buckets=[BUCKET]))
        garbage = await stack.enter_async_context(Garbage())
        refusing = stack.enter_context(RefusingHost())
        for action in (
            Reset(),
            Silence(),
            Status(307),
            Status(403, "AccessDenied"),
            Status(403, body=REPEATED),
            Status(404, "NoSuchKey"),
            Status(500),
            Status(200, body=b"<html>"),
        ):
            server.script(Fault("*", action))
            shown.append(await error_of(download_url(f"{server.endpoint_url}{path}", config=IMPATIENT)))
        assert all("CANARY-signature" in seen.target for seen in server.seen)
        shown += [
            await error_of(download_url(f"{host.endpoint_url}{path}", config=IMPATIENT)) for host in (garbage, refusing)
        ]
    assert len({type(error) for error in shown}) == 8
    # But not of whom shows the server's response as it came.
    logged = [record for record in caplog.records if record.name != "botocore.parsers"]
    assert logged
    assert not [record for record in logged if "CANARY" in logging.Formatter().format(record)]
    while shown:
        error = shown.pop()
        assert "CANARY" not in everything(error), error
        shown += [error.__cause__] if error.__cause__ is not None else []


async def error_of(work: Any) -> LfaError:
    with pytest.raises(LfaError) as caught:
        await work
    return caught.value


def hears(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def test_the_mock_hears_on_one_address_only() -> None:
    with MockS3Server() as mock:
        port = urlsplit(mock.endpoint_url).port or 0
        assert hears("127.0.0.1", port)
        # All of 127.0.0.0/8 is this machine: a server on 0.0.0.0 would hear it.
        assert not hears("127.0.0.2", port)
        assert not hears("::1", port)
        others = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), port)} - {"127.0.0.1"}
        assert not any(hears(str(other), port) for other in others)


async def test_the_mock_sends_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with Trap() as trap:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, trap.endpoint_url)
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"):
            monkeypatch.setenv(name, trap.endpoint_url)
        for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
            monkeypatch.setenv(name, trap.endpoint_url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEXAMPLE")
        async with AsyncS3Bucket(BUCKET, domock=True, config=replace(CONFIG, part_size=5 * MiB)) as bucket:
            url = await bucket.upload(LARGE, KEY)
            assert (await bucket.download(KEY)).getvalue() == LARGE
            assert [info.key async for info in bucket.list()] == [KEY]
            assert trap.endpoint_url not in url
            bucket.bucket.put_object(Key="of boto3", Body=b"x")
            assert await bucket.exists("of boto3")
            await bucket.delete(KEY)
        assert trap.heard == []
