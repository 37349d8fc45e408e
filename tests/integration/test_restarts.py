"""The server is killed in the middle of a transfer, and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import TransferConfig
from tests.integration.samples import MiB, sample

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service

pytestmark = pytest.mark.servers("seaweedfs", "ceph")

KEY = "key"
DOWN = 3.0
"""Seconds for which the server is down, and then it takes its time to start."""


class Outage:
    """Kills a server when so many bytes were moved, and starts it again 3 s later."""

    def __init__(self, service: Service, after: int) -> None:
        self.moved = 0
        self._after = after
        self._server = service.server
        self._due = asyncio.Event()
        self._task = asyncio.create_task(self._strike())

    def __call__(self, count: int) -> None:
        """Take the news of a transfer, as its callback."""
        self.moved += count
        if self.moved >= self._after:
            self._due.set()

    async def _strike(self) -> None:
        await self._due.wait()
        await asyncio.to_thread(self._server.kill)
        self.moved_when_killed = self.moved
        await asyncio.sleep(DOWN)
        await asyncio.to_thread(self._server.restart)

    async def over(self) -> None:
        """Wait until the server is back."""
        await self._task


async def test_kill_and_restart(service: Service, name: str, tmp_path: Path) -> None:
    size = 500 * MiB
    data = sample(size)
    config = TransferConfig() if service.server.name == "ceph" else TransferConfig(max_attempts=30, retry_timeout=120)
    async with service.session(config=config) as session:
        bucket = session.bucket(name)
        outage = Outage(service, size // 4)
        await bucket.upload(data, KEY, outage)
        await outage.over()
        assert outage.moved_when_killed < size == outage.moved
        assert service.uploads(name) == []
        assert service.keys(name) == [KEY]

        outage = Outage(service, size // 4)
        assert (await bucket.download(KEY, outage)).getvalue() == data
        await outage.over()
        assert outage.moved_when_killed < size == outage.moved
