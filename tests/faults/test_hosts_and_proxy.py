"""The hosts that misbehave, and the proxy, do what they say."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from lsst_lfa import S3Session
from tests.servers import CertificateAuthority

from . import UNRESOLVABLE_URL, Cut, FaultyS3Server, Flip, Proxy, RefusingHost, Trap, UnresponsiveHost
from .plain import plain_client, say

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(100_000)
HERE = {"Bucket": "test", "Key": "key"}


async def connect(url: str) -> None:
    parts = urlsplit(url)
    async with asyncio.timeout(0.3):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        writer.close()


async def test_refusing() -> None:
    with RefusingHost() as host, pytest.raises(ConnectionRefusedError):
        await connect(host.endpoint_url)


async def test_unresolvable() -> None:
    with pytest.raises((socket.gaierror, TimeoutError)):
        await connect(UNRESOLVABLE_URL)


async def test_unresponsive() -> None:
    with UnresponsiveHost() as host, pytest.raises(TimeoutError):
        await connect(host.endpoint_url)


async def test_trap() -> None:
    with Trap() as trap:
        assert trap.heard == []
        await connect(trap.endpoint_url)
        assert trap.heard == [b""]
        assert await say(trap.endpoint_url, b"secret", seconds=0.1) == b""
        assert trap.heard == [b"", b"secret"]


async def test_proxy_is_transparent() -> None:
    async with FaultyS3Server() as server, Proxy(server.endpoint_url) as proxy:
        async with plain_client(proxy.endpoint_url) as client:
            await client.put_object(**HERE, Body=DATA)
            await client.head_object(**HERE)
            body = (await client.get_object(**HERE))["Body"]
            assert await body.read() == DATA
            await client.delete_object(**HERE)
            assert (await client.list_objects_v2(Bucket="test"))["KeyCount"] == 0
        assert proxy.connections_made == server.connections_made == 1
        assert [line.split()[0] for line in proxy.lines] == ["PUT", "HEAD", "GET", "DELETE", "GET"]
        assert proxy.done == []


async def test_proxy_ends_tls(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    large = random.Random(0).randbytes(256 * 40_000)
    async with FaultyS3Server() as server, Proxy(server.endpoint_url, tls=authority.valid().context()) as proxy:
        assert proxy.endpoint_url.startswith("https://")
        async with S3Session(
            endpoint_url=proxy.endpoint_url, access_key_id="id", secret_access_key="secret", verify=authority.ca_file
        ) as session:
            await session.bucket("test").upload(large, "key")
            assert (await session.bucket("test").download("key")).getvalue() == large
        # Who does not trust it says nothing; who speaks no TLS is not heard.
        lines = list(proxy.lines)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", proxy.port, ssl=True)
        with pytest.raises(ConnectionResetError):
            await say(proxy.endpoint_url, b"GET / HTTP/1.1\r\n\r\n")
        assert proxy.lines == lines
    assert server.objects["test", "key"].data == large


async def test_proxy_flips() -> None:
    up = Flip("PUT /test/key", 70_000, "request", nth=2, bit=3)
    down = Flip("GET /test/key", 99_999, "response")
    async with FaultyS3Server() as server, Proxy(server.endpoint_url, up, down) as proxy:
        head = b"PUT /test/key HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
        for _ in range(2):
            await say(proxy.endpoint_url, head + DATA, until=b"\r\n\r\n")
        damaged = DATA[:70_000] + b"\x08" + DATA[70_001:]
        assert server.objects["test", "key"].data == damaged
        response = await say(proxy.endpoint_url, b"GET /test/key HTTP/1.1\r\n\r\n", until=b"\x01")
        assert response.endswith(damaged[:-1] + b"\x01")
        assert proxy.done == [up, down]


@pytest.mark.parametrize("side", ["request", "response"])
async def test_proxy_cuts(side: str) -> None:
    cut = Cut("/test/key", 50_000, "request" if side == "request" else "response")
    async with FaultyS3Server() as server, Proxy(server.endpoint_url, cut) as proxy:
        server.put("test", "key", DATA)
        method = b"PUT" if side == "request" else b"GET"
        length = len(DATA) if side == "request" else 0
        head = b"%b /test/key HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (method, length)
        with pytest.raises(ConnectionResetError):
            await say(proxy.endpoint_url, head + DATA[:length], until=b"never")
        await asyncio.sleep(0.05)
        assert server.open_connections == proxy.open_connections == 0
        assert server.seen[0].bytes_received <= 50_000


async def test_proxy_chunked_bodies_and_dead_servers() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        writer.close()

    chunked = await asyncio.start_server(respond, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{chunked.sockets[0].getsockname()[1]}"
    async with chunked, Proxy(url, Flip("GET", 4, "response")) as proxy:
        seen = await say(proxy.endpoint_url, b"GET / HTTP/1.1\r\n\r\n")
        assert seen.endswith(b"3\r\nabc\r\n2\r\ndd\r\n0\r\n\r\n")
    with RefusingHost() as host:
        async with Proxy(host.endpoint_url) as proxy:
            with pytest.raises(ConnectionResetError):
                await say(proxy.endpoint_url, b"GET / HTTP/1.1\r\n\r\n")
