"""A server, and a client that is not the library."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import trustme
import uvloop

from lsst_lfa import S3Session
from tests.clock import FastClockLoop

from . import FaultyS3Server
from .harness import BUCKET
from .plain import DATA, HERE, plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket, TransferConfig

    from . import Fault


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FaultyS3Server]:
    """Run a server that has one object, and no faults yet."""
    async with FaultyS3Server() as server:
        server.put(HERE["Bucket"], HERE["Key"], DATA)
        yield server
    assert server.open_connections == server.current_requests == 0


@pytest_asyncio.fixture
async def client(server: FaultyS3Server) -> AsyncIterator[Any]:
    """Open a plain client of that server."""
    async with plain_client(server.endpoint_url, read_timeout=0.3) as client:
        yield client


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Make a certificate authority."""
    return trustme.CA()


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, authority: trustme.CA) -> ssl.SSLContext | None:
    """Serve http, then https."""
    if request.param == "http":
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], None]]:
    """Run a coroutine in asyncio's own loop, then in uvloop's."""
    fast = request.param is asyncio.SelectorEventLoop and request.node.get_closest_marker("fast_clock")
    with asyncio.Runner(loop_factory=FastClockLoop if fast else request.param) as runner:
        yield runner.run


@pytest.fixture
def start(tls: ssl.SSLContext | None, authority: Any, tmp_path: Path) -> Any:
    """Return a function that makes a server, and a bucket on it, with a script and a configuration."""
    authorities = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(authorities)

    @asynccontextmanager
    async def start(*faults: Fault, config: TransferConfig) -> AsyncIterator[tuple[FaultyS3Server, AsyncS3Bucket]]:
        server = FaultyS3Server(faults, buckets=[BUCKET], receive_buffer=64 * 1024, min_part_size=1, tls=tls)
        keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret", "region": "us-east-1"}
        async with (
            server,
            S3Session(endpoint_url=server.endpoint_url, verify=authorities, config=config, **keys) as session,
        ):
            yield server, session.bucket(BUCKET)

    return start
