"""A server, and a client that is not the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio

from . import FaultyS3Server
from .plain import DATA, HERE, plain_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
