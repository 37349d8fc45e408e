"""A limit on the bytes per second, shared by all transfers of a session."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import S3Session, TransferConfig
from lsst_lfa._transfer.rate import RateLimiter

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server

MiB = 1024 * 1024


@pytest.mark.fast_clock
async def test_bytes_pass_at_the_rate_whoever_asks() -> None:
    limiter = RateLimiter(1e4)
    start = asyncio.get_running_loop().time()
    await asyncio.gather(*(limiter.take(10_000) for _ in range(30)))
    assert asyncio.get_running_loop().time() - start == pytest.approx(30, abs=5)


@pytest.mark.fast_clock
async def test_what_was_not_used_is_not_saved_up() -> None:
    limiter = RateLimiter(1e6)
    await asyncio.sleep(0.2)
    start = asyncio.get_running_loop().time()
    await limiter.take(100_000)
    assert asyncio.get_running_loop().time() - start >= 0.09


async def test_without_a_rate_nothing_waits() -> None:
    limiter = RateLimiter(None)
    assert limiter.chunk is None
    async with asyncio.timeout(0.5):
        for _ in range(100):
            await limiter.take(10**12)


@pytest.mark.parametrize("max_rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_must_be_one(max_rate: float) -> None:
    with pytest.raises(ValueError, match="max_rate"):
        S3Session(max_rate=max_rate)


async def test_a_slow_rate_is_no_stall(server: MockS3Server) -> None:
    config = TransferConfig(stall_timeout=0.3, min_rate=10 * MiB, max_attempts=1)
    session = S3Session(
        endpoint_url=server.endpoint_url, access_key_id="id", secret_access_key="secret", config=config, max_rate=MiB
    )
    async with session:
        bucket = session.bucket("test")
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(bucket.upload(bytes(MiB // 4), f"slow-{number}"))
        up = time.monotonic() - start
        await bucket.download("slow-0")
        assert 0.95 <= up <= 2
        assert time.monotonic() - start - up >= 0.2
