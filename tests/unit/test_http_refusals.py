"""What our HTTP session refuses at once, and what it keeps to itself."""

from __future__ import annotations

import logging
import pickle
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, TransferConfig, download_url, errors
from tests.faults import Fault, FaultyS3Server, Raw, RefusingHost, Status, UnresponsiveHost
from tests.faults.wire import Listener
from tests.servers import CertificateAuthority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.wire import Connection

ONCE = TransferConfig(max_attempts=1)
SECRETS = ("CANARY-user", "CANARY-password", "CANARY-token", "CANARY-secret", "CANARY-signature", "Q0FOQVJZ")
SIGNED = "X-Amz-Date=20360301T120000Z&X-Amz-Expires=30&X-Amz-Signature=CANARY-signature"


def session(url: str, config: TransferConfig = ONCE, **options: Any) -> S3Session:
    keys: dict[str, Any] = {
        "access_key_id": "id",
        "secret_access_key": "CANARY-secret",
        "session_token": "CANARY-token",
    }
    return S3Session(endpoint_url=url, config=config, **keys, **options)


async def error_of(work: Any) -> errors.LfaError:
    with pytest.raises(errors.LfaError) as caught:
        await work
    return caught.value


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an exception, and all that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_secrets(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    for each in chain(error):
        shown += f"{each!r} {each} {each.args!r} {vars(each)!r} {getattr(each, '__notes__', '')}"
    shown += repr(pickle.loads(pickle.dumps(error))) + repr(pickle.dumps(error))
    assert not [secret for secret in SECRETS if secret in shown], shown


class Responder(Listener):
    """A host that says the same to everybody."""

    def __init__(self, said: bytes, **options: Any) -> None:
        super().__init__(**options)
        self._said = said
        self.heard = b""

    async def serve(self, connection: Connection) -> None:
        self.heard += await connection.read_some(4096)
        await connection.write(self._said)
        connection.close_sending()
        await connection.gone()


def proxied(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, url.replace("://", "://CANARY-user:CANARY-password@"))
    monkeypatch.setenv("no_proxy", "")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 403 no\r\n\r\n", b"HTTP/1.1 407 no\r\n\r\n", b"HTTP/1.1 502 no\r\n\r\n", b"?\r\n\r\n", b""]
)
async def test_a_proxys_password_is_sent_to_the_proxy_and_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scheme: str, said: bytes
) -> None:
    caplog.set_level(logging.DEBUG, logger="lsst_lfa")
    async with Responder(said) as proxy:
        proxied(monkeypatch, proxy.endpoint_url)
        async with session(f"{scheme}://s3.invalid") as s3:
            check_secrets(await error_of(s3.bucket("test").head("k")))
            check_secrets(await error_of(s3.bucket("test").upload(b"data", "k")))
            check_secrets(await error_of(download_url(f"{scheme}://s3.invalid/bucket/k?{SIGNED}", config=ONCE)))
        assert b"Proxy-Authorization: Basic" in proxy.heard
        if scheme == "https":
            assert b"CANARY-token" not in proxy.heard
    logged = "".join(logging.Formatter().format(record) for record in caplog.records)
    assert not [secret for secret in SECRETS if secret in logged]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:1", "http://x.invalid:1", "http://127.0.0.1:99999", "ftp://h:1", "http://[::1"]
)
async def test_no_way_to_a_proxy(monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str) -> None:
    proxied(monkeypatch, proxy)
    async with session(f"{scheme}://s3.invalid") as s3:
        check_secrets(await error_of(s3.bucket("test").head("k")))
    check_secrets(await error_of(download_url(f"{scheme}://s3.invalid/bucket/k?{SIGNED}", config=ONCE)))


@pytest.mark.parametrize("status", [403, 407])
async def test_a_proxy_that_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async with Responder(b"HTTP/1.1 %d no\r\n\r\n" % status) as proxy:
        proxied(monkeypatch, proxy.endpoint_url)
        async with session("https://s3.invalid", TransferConfig()) as s3:
            error = await error_of(s3.bucket("test").head("k"))
        assert proxy.connections_made == 1
    assert type(error) is errors.UnreachableError
    assert f"the proxy refused the connection ({status}" in str(error)


GARBAGE = [b"hello\r\n\r\n", b"HTTP/1.1 nothing\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b""]


@pytest.mark.parametrize("said", GARBAGE)
async def test_garbage_does_not_bring_out_what_was_sent(said: bytes) -> None:
    async with Responder(said) as host, session(host.endpoint_url) as s3:
        check_secrets(await error_of(s3.bucket("test").head("k")))
        check_secrets(await error_of(s3.bucket("test").upload(b"data", "k")))
        check_secrets(await error_of(s3.bucket("test").download("k")))
        check_secrets(await error_of(download_url(f"{host.endpoint_url}/bucket/k?{SIGNED}", config=ONCE)))


ECHO = f"<Error><Code>AccessDenied</Code><Message>/b/k?{SIGNED}</Message><Resource>/k?{SIGNED}</Resource></Error>"


async def test_a_host_that_drops_connection_attempts_is_unreachable() -> None:
    with UnresponsiveHost() as host:
        async with session(host.endpoint_url, connect_timeout=0.2) as unconnected:
            bucket = unconnected.bucket("test")
            for work in (bucket.head("k"), bucket.upload(b"data", "k"), bucket.download("k"), bucket.check()):
                error = await error_of(work)
                assert type(error) is errors.UnreachableError, error
                assert error.transient
                assert "S3Session(connect_timeout=...)" in str(error)
                assert "stall_timeout" not in str(error)


async def test_a_server_that_repeats_what_it_heard() -> None:
    body = ECHO.replace("&", "&amp;").encode()
    echoes = {"Location": f"/k?{SIGNED}", "X-Amz-Security-Token": "CANARY-token", "Set-Cookie": "CANARY-token"}
    async with FaultyS3Server([Fault("*", Status(403, headers=echoes, body=body))]) as server:
        async with session(server.endpoint_url) as s3:
            for work in (
                s3.bucket("test").head("k"),
                s3.bucket("test").download("k"),
                s3.bucket("test").upload(b"", "k"),
            ):
                error = await error_of(work)
                assert isinstance(error, errors.ServiceError)
                check_secrets(error)
                assert "CANARY" not in repr(error.response)
        check_secrets(await error_of(download_url(f"{server.endpoint_url}/bucket/k?{SIGNED}", config=ONCE)))


async def test_https_where_only_http_is_spoken() -> None:
    start = time.monotonic()
    async with Responder(b"HTTP/1.1 400 Bad Request\r\n\r\n") as host:
        async with session(host.endpoint_url.replace("http:", "https:"), TransferConfig()) as s3:
            error = await error_of(s3.bucket("test").head("k"))
        assert host.connections_made == 1
    assert type(error) is errors.ConfigurationError
    assert "does not speak TLS" in str(error)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("said", [b"\x15\x03\x01\x00\x02\x02\x16", b"\x15\x03\x03\x00\x02\x02\x46"])
async def test_http_where_only_https_is_spoken(said: bytes) -> None:
    async with Responder(said) as host:
        async with session(host.endpoint_url, TransferConfig()) as s3:
            error = await error_of(s3.bucket("test").head("k"))
        assert host.connections_made == 1
    assert type(error) is errors.ConfigurationError
    assert "expects TLS" in str(error)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"-----BEGIN CERTIFICATE-----\nabc\n"])
@pytest.mark.parametrize("by", ["argument", "AWS_CA_BUNDLE"])
async def test_a_file_of_authorities_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, by: str
) -> None:
    file = tmp_path / "authorities"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file) if by == "AWS_CA_BUNDLE" else "/no/such")
    start = time.monotonic()
    with RefusingHost() as host:
        url = host.endpoint_url.replace("http:", "https:")
        verify = file if by == "argument" else None
        async with session(url, TransferConfig(), verify=verify) as s3:
            error = await error_of(s3.bucket("test").head("k"))
        assert type(error) is errors.ConfigurationError
        assert str(file) in str(error)
        error = await error_of(download_url(f"{url}/bucket/k?{SIGNED}", verify=verify))
        assert type(error) is errors.ConfigurationError
        assert str(file) in str(error)
        check_secrets(error)
    assert time.monotonic() - start < 5


async def test_a_certificate_of_an_authority_that_nobody_knows(tmp_path: Path) -> None:
    tls = CertificateAuthority(tmp_path).valid()
    async with Responder(b"", tls=tls.context()) as host:
        async with session(host.endpoint_url, TransferConfig()) as s3:
            error = await error_of(s3.bucket("test").head("k"))
        check_secrets(await error_of(download_url(f"{host.endpoint_url}/bucket/k?{SIGNED}")))
        assert host.connections_made == 2
    assert type(error) is errors.CertificateError
    check_secrets(error)


REGION = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-x-1</Region></Error>"


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        (301, b"x-amz-bucket-region: eu-x-1\r\n", b"", errors.RedirectRefusedError),
        (
            307,
            b"Location: http://elsewhere.invalid/\r\nx-amz-bucket-region: eu-x-1\r\n",
            b"",
            errors.RedirectRefusedError,
        ),
        (400, b"x-amz-bucket-region: eu-x-1\r\n", b"", errors.ServiceError),
        (400, b"", REGION, errors.ServiceError),
    ],
)
async def test_the_right_region_is_named(status: int, headers: bytes, body: bytes, kind: type[Exception]) -> None:
    data = b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)
    async with FaultyS3Server([Fault("*", Raw(data))]) as server:
        async with session(server.endpoint_url, TransferConfig()) as s3:
            for work in (s3.bucket("test").download("k"), s3.bucket("test").upload(b"", "k")):
                error = await error_of(work)
                assert type(error) is kind
                assert "eu-x-1" in str(error)
        assert len(server.seen) <= 5  # one of ours, and for each of them two of botocore's


@pytest.mark.parametrize("host", ["my_host.invalid", "a..b", "-x.invalid"])
async def test_a_host_that_cannot_be_one_is_named(host: str) -> None:
    error = await error_of(session(f"http://{host}").bucket("test").head("k"))
    assert type(error) is errors.ConfigurationError
    assert host in str(error)


async def test_an_endpoint_of_awss_own_settings_loses_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with FaultyS3Server(buckets=["b"]) as server:
        where = server.endpoint_url.replace("://", "://CANARY-user:CANARY-password@")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", where + "/")
        async with S3Session() as s3:
            assert s3.endpoint_url == server.endpoint_url
            assert await s3.bucket("b").upload(b"data", "k") == f"{server.endpoint_url}/b/k"
            assert s3.bucket("b").service_resource.meta.client.meta.endpoint_url == server.endpoint_url
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "CANARY-user:CANARY-password@nowhere")
    check_secrets(await error_of(S3Session().bucket("b").head("k")))


async def test_a_region_that_cannot_be_one_is_named() -> None:
    error = await error_of(session("http://127.0.0.1:1", region="a b").bucket("test").head("k"))
    assert type(error) is errors.ConfigurationError
    assert "'a b'" in str(error)
