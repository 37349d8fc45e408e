"""The HTTP session behind the client."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import S3Session, TransferConfig, download_url, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PRESIGNED = (
    "http://s3.invalid/test/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=id%2F20360301%2Fus-east-1%2Fs3"
    f"%2Faws4_request&X-Amz-Date=20360301T120000Z&X-Amz-Expires=30&X-Amz-SignedHeaders=host&X-Amz-Signature={64 * '0'}"
)


@asynccontextmanager
async def proxy(seen: list[str]) -> AsyncIterator[int]:
    """Run a proxy that has nothing but an empty object for everybody, and yield its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(
            b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "0"\r\n'
            b"Last-Modified: Sat, 01 Mar 2036 12:00:00 GMT\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(autouse=True)
def _no_proxy_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "form", ["127.0.0.1:{}", "//127.0.0.1:{}", "http://127.0.0.1:{}", "http://me:secret@127.0.0.1:{}"]
)
async def test_a_proxy_is_taken_in_all_forms_that_people_write(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    async with proxy(seen) as port:
        monkeypatch.setenv("http_proxy", form.format(port))
        async with S3Session(endpoint_url="http://s3.invalid", access_key_id="id", secret_access_key="key") as session:
            assert await session.bucket("test").exists("k")
        assert (await download_url(PRESIGNED)).getvalue() == b""
    assert [head.split(" HTTP/")[0] for head in seen] == ["HEAD http://s3.invalid/test/k", f"GET {PRESIGNED}"]
    assert all(("Proxy-Authorization: Basic" in head) == ("secret" in form) for head in seen)


async def test_a_proxy_to_an_https_server_and_nobody_else_is_shown_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    async with proxy(seen) as port:
        monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{port}")
        with pytest.raises(errors.LfaError) as caught:
            await download_url(PRESIGNED.replace("http:", "https:"), config=TransferConfig(max_attempts=1))
    assert seen[0].startswith("CONNECT s3.invalid:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in seen[0]
    assert "secret" not in str(caught.value)
    assert "bWU6c2VjcmV0" not in "".join(traceback.format_exception(caught.value))


async def test_a_presigned_url_of_a_host_in_no_proxy_is_not_asked_for_at_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    async with proxy(seen) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "s3.invalid")
        with pytest.raises(errors.LfaError):
            await download_url(PRESIGNED, config=TransferConfig(max_attempts=1))
    assert seen == []


@pytest.mark.parametrize("wrong", ["socks5://127.0.0.1:1", "http://127.0.0.1:port", "http://me:secret@"])
async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", wrong)
    with pytest.raises(errors.ConfigurationError, match="HTTP_PROXY") as caught:
        await download_url(PRESIGNED)
    assert "secret" not in str(caught.value)
