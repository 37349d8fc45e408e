"""A bit that flips in transit never goes unnoticed.

Over https it flips behind a proxy that ends TLS, on the way to the server. Where TLS protects the bytes, it breaks the
connection.
"""

from __future__ import annotations

import asyncio
import io
import math
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from lsst_lfa import TransferConfig, errors
from tests.faults.proxy import Flip, Proxy
from tests.faults.wire import Connection, Listener
from tests.integration.samples import MiB, sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from lsst_lfa import S3Session
    from tests.faults.proxy import Tamper
    from tests.integration.conftest import Service
    from tests.servers import CertificateAuthority

    Noisy = Callable[..., AbstractAsyncContextManager[tuple[Proxy, S3Session]]]

PART = TransferConfig().part_size
KEY = "key"
# The mock verifies nothing that it is sent.
VERIFYING = pytest.mark.servers("seaweedfs", "ceph")


@pytest.fixture
def integrity(service: Service) -> str:
    """Return what makes this server verify what it is sent."""
    return "md5" if service.server.name == "seaweedfs" else "sha256"


@pytest.fixture
def noisy(service: Service, authority: CertificateAuthority, integrity: str) -> Noisy:
    """Return a function that opens a session whose bytes may be damaged."""
    tls = authority.valid().context() if service.scheme == "https" else None

    @asynccontextmanager
    async def connect(*tampers: Tamper, **limits: Any) -> AsyncIterator[tuple[Proxy, S3Session]]:
        config = TransferConfig(**{"integrity": integrity} | limits)
        async with (
            Proxy(service.server.endpoint_url, *tampers, tls=tls) as proxy,
            service.session(endpoint_url=proxy.endpoint_url, verify=authority.ca_file, config=config) as session,
        ):
            yield proxy, session

    return connect


class _Wire(Listener):
    """Relays a stream of bytes, TLS or not, and flips one bit of it.

    The bit is in the ``at``-th byte that a connection brings, in whichever one gets that far first: on its way to the
    server, or from there.
    """

    def __init__(self, endpoint_url: str, at: int, *, upwards: bool) -> None:
        super().__init__()
        url = urlsplit(endpoint_url)
        self._target = (url.hostname, url.port)
        self._at = at
        self._upwards = upwards
        self.flipped = False

    async def serve(self, connection: Connection) -> None:
        sock = socket.socket()
        server = Connection(sock)
        try:
            await self._loop.sock_connect(sock, self._target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relay(connection, server, flip=self._upwards))
                group.create_task(self._relay(server, connection, flip=not self._upwards))
        except* ConnectionError:
            connection.reset()
        finally:
            server.close()

    async def _relay(self, source: Connection, sink: Connection, *, flip: bool) -> None:
        count = 0
        while piece := await source.read_some(256 * 1024):
            offset, count = self._at - count, count + len(piece)
            if flip and not self.flipped and count > self._at:
                self.flipped = True
                piece = piece[:offset] + bytes([piece[offset] ^ 1]) + piece[offset + 1 :]
            await sink.write(piece)
        sink.close_sending()


def sent(proxy: Proxy, what: str) -> int:
    return sum(what in line for line in proxy.lines)


@VERIFYING
async def test_part_is_sent_again(service: Service, name: str, noisy: Noisy) -> None:
    data = sample(2 * PART + 4 * MiB)
    counts: list[int] = []
    flips = [Flip("partNumber=1", 0, "request"), Flip("partNumber=2", 5_000_000, "request", bit=7, times=2)]
    async with noisy(*flips) as (proxy, session):
        await session.bucket(name).upload(io.BytesIO(data), KEY, counts.append)
        assert len(proxy.done) == 3
        assert [sent(proxy, f"partNumber={number}") for number in (1, 2, 3)] == [2, 3, 1]
    assert sum(counts) == len(data)
    assert min(counts) > 0
    assert service.content(name, KEY) == data


@VERIFYING
async def test_small_object_is_sent_again(service: Service, name: str, noisy: Noisy) -> None:
    data = sample(1000)
    async with noisy(Flip(f"PUT /{name}/{KEY}", 999, "request")) as (proxy, session):
        await session.bucket(name).upload(data, KEY)
        assert sent(proxy, "PUT") == 2
    assert service.content(name, KEY) == data


@VERIFYING
@pytest.mark.parametrize(("size", "line"), [(1000, "PUT /"), (20 * MiB, "partNumber=2")])
async def test_after_the_last_attempt(service: Service, name: str, noisy: Noisy, size: int, line: str) -> None:
    source = io.BytesIO(sample(size))
    async with noisy(Flip(line, 500, "request", times=math.inf), max_attempts=3) as (proxy, session):
        with pytest.raises(errors.IntegrityError, match="altered in transit") as caught:
            await session.bucket(name).upload(source, KEY)
        assert type(caught.value) is errors.DigestRefusedError
        assert f"s3://{name}/{KEY}" in str(caught.value)
        assert sent(proxy, line) == 3
    assert service.keys(name) == service.uploads(name) == []
    assert source.tell() == 0


@VERIFYING
async def test_replaced_object_stays_as_it_was(service: Service, name: str, noisy: Noisy) -> None:
    service.client.put_object(Bucket=name, Key=KEY, Body=b"as it was")
    for size in (1000, 20 * MiB):
        async with noisy(Flip("PUT /", 500, "request", times=math.inf), max_attempts=2) as (_, session):
            with pytest.raises(errors.IntegrityError):
                await session.bucket(name).upload(sample(size), KEY)
    assert service.content(name, KEY) == b"as it was"
    assert service.uploads(name) == []


@pytest.mark.parametrize("size", [1000, 20 * MiB])
async def test_download_is_verified(service: Service, name: str, noisy: Noisy, tmp_path: Path, size: int) -> None:
    data = sample(size)
    async with service.session() as session:
        await session.bucket(name).upload(data, KEY)
    flip = Flip(f"GET /{name}/{KEY}", 999, "response")
    async with noisy(flip, verify_etag=True) as (proxy, session):
        bucket = session.bucket(name)
        with pytest.raises(errors.IntegrityError, match=f"s3://{name}/{KEY}"):
            await bucket.download(KEY)
        assert len(proxy.done) == 1
        assert (await bucket.download(KEY)).getvalue() == data
    async with noisy(flip, verify_etag=True) as (proxy, session):
        bucket = session.bucket(name)
        with pytest.raises(errors.IntegrityError, match=f"s3://{name}/{KEY}"):
            await bucket.download_file(KEY, tmp_path / "file")
        assert len(proxy.done) == 1
        assert not [each for each in tmp_path.iterdir() if each.is_file()]
        path = await bucket.download_file(KEY, tmp_path / "file")
        assert path.read_bytes() == data


@pytest.mark.schemes("https")
@pytest.mark.parametrize("upwards", [True, False], ids=["up", "down"])
async def test_under_tls(service: Service, name: str, upwards: bool) -> None:
    data = sample(33 * MiB)
    async with _Wire(service.endpoint_url, 5_000_000, upwards=upwards) as wire:
        url = wire.endpoint_url.replace("http:", "https:")
        async with service.session(endpoint_url=url) as session:
            bucket = session.bucket(name)
            await bucket.upload(data, KEY)
            assert wire.flipped == upwards
            assert (await bucket.download(KEY)).getvalue() == data
    assert wire.flipped
    assert service.content(name, KEY) == data
