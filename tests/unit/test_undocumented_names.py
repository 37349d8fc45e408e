"""Undocumented names of other packages: if one is missing, everything still works, if more slowly."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.auth
import pytest
import trustme
from aiohttp.client_proto import ResponseHandler

from lsst_lfa import MockS3Server, S3Session, TransferConfig, errors
from lsst_lfa._client import connections
from lsst_lfa._client.tls import make_tls_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DATA = random.Random(0).randbytes(256 * 4096)
TOO_LARGE = b"<Error><Code>EntityTooLarge</Code><Message>no</Message></Error>"


async def round_trip(server: MockS3Server) -> None:
    async with S3Session.for_mock(server) as session:
        bucket = session.bucket("test")
        await bucket.upload(DATA, "k")
        assert (await bucket.download("k")).getvalue() == DATA
        assert await bucket.exists("k")
        assert not await bucket.exists("missing")
        with pytest.raises(errors.KeyNotFoundError):
            await bucket.download("missing")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(connections.Connector, "connect", id="aiohttp asks the connector by another name"),
        pytest.param(ResponseHandler, "force_close", id="aiohttp's force_close"),
        pytest.param("botocore.handlers", "validate_bucket_name", id="botocore's validate_bucket_name"),
    ],
)
async def test_all_goes_on_without(
    owner: Any, name: str, server: MockS3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(owner, str):
        monkeypatch.delattr(f"{owner}.{name}")
    else:
        monkeypatch.delattr(owner, name)
    await round_trip(server)


async def test_without_aiohttps_word_that_a_connection_is_stale(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hasattr(ResponseHandler, connections._IS_STALE)
    monkeypatch.setattr(connections, "_IS_STALE", "another_name")
    await round_trip(server)


async def test_without_botocores_register_of_signers_botocore_signs(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(botocore.auth.AUTH_TYPE_MAPS, "lsst-lfa-s3v4")
    await round_trip(server)


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """Serve one response to whatever comes, before any of its body is read."""
    writers: list[asyncio.StreamWriter] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(TOO_LARGE), TOO_LARGE))

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


@pytest.mark.parametrize(
    ("owner", "name"), [(connections.Connector, "connect"), (ResponseHandler, "force_close"), (ResponseHandler, None)]
)
async def test_an_upload_that_is_refused_before_it_was_read_says_why_without(
    owner: type, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name is not None:
        monkeypatch.delattr(owner, name)
    config = TransferConfig(part_size=32 * len(DATA), multipart_threshold=32 * len(DATA))
    async with (
        refusing() as endpoint_url,
        S3Session(endpoint_url=endpoint_url, access_key_id="id", secret_access_key="key", config=config) as session,
    ):
        with pytest.raises(errors.ServiceError, match="EntityTooLarge"):
            await session.bucket("test").upload(DATA * 31, "k")


def test_without_botocores_authorities_the_systems_own_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = tmp_path / "ca.pem"
    trustme.CA(organization_name="Ours").cert_pem.write_to_path(str(ours))
    monkeypatch.setenv("SSL_CERT_FILE", str(ours))

    def trusted() -> bool:
        return "Ours" in str(make_tls_context(verify=True, client_cert=None).get_ca_certs())

    assert not trusted()
    monkeypatch.delattr("botocore.httpsession.get_cert_path")
    assert trusted()


@pytest.mark.parametrize(
    "removal",
    [
        "from aiobotocore.session import AioSession; del AioSession.warm_up_loader_caches",
        "import aiofiles.threadpool.binary; del aiofiles.threadpool.binary.AsyncFileIO",
    ],
)
def test_an_import_goes_on_without(removal: str, tmp_path: Path) -> None:
    code = f"""
        {removal}
        import asyncio, aiofiles, lsst_lfa
        async def main():
            async with lsst_lfa.AsyncS3Bucket("test", domock=True) as bucket:
                async with aiofiles.open({str(tmp_path / "file")!r}, "rb") as file:
                    await bucket.upload(file, "k")
                print((await bucket.download("k")).getvalue() == bytes(100_000))
        asyncio.run(main())
    """
    (tmp_path / "file").write_bytes(bytes(100_000))
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (process.stdout, process.stderr) == ("True\n", "")
