"""A server, and a client that is not the library."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from . import FaultyS3Server
from .plain import DATA, HERE, plain_client
from .quick import QuickSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the time that hundreds of tests would spend waiting: a back-off from 20 ms instead of 250 ms on."""
    monkeypatch.setattr("lsst_lfa.transfer.retry._FIRST_DELAY", 0.02)
    monkeypatch.setattr("lsst_lfa.transport.AioSession", QuickSession)
    gc.freeze()  # each test collects what it has left, and need not look at all modules


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
