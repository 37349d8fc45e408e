"""One range of an object, also when a part of it is given to another request."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from lsst_lfa import S3Session, TransferConfig
from tests.faults import Fault, FaultyS3Server, SendSlowly

MiB = 1024 * 1024


async def test_a_slow_range_is_split_and_every_byte_counts_once() -> None:
    data = os.urandom(40 * MiB)
    counts: list[int] = []
    async with FaultyS3Server(buckets=["b"]) as server:
        server.put("b", "k", data)
        # The second is slow: to wait for it would take ten seconds.
        server.script(Fault("GetObject", SendSlowly(1e6), nth=2))
        keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
        async with S3Session(endpoint_url=server.endpoint_url, config=TransferConfig(min_rate=1), **keys) as session:
            start = asyncio.get_running_loop().time()
            file = await session.bucket("b").download("k", counts.append)
            took = asyncio.get_running_loop().time() - start
        ranges = len(server.calls("GetObject"))
    assert file.getvalue() == data
    assert sum(counts) == len(data)
    assert ranges >= 4, "three, and a half of one"
    assert took < len(data) / 4 / 1e6
