"""Lanes: a semaphore whose size adapts to the throughput."""

from __future__ import annotations

import asyncio

import pytest

from lsst_lfa import S3Session, TransferConfig
from lsst_lfa._transfer.lanes import Lanes
from tests.faults import Fault, FaultyS3Server, ReceiveSlowly

MiB = 1024 * 1024


async def test_first_come_first_served() -> None:
    lanes = Lanes(1)
    order = []

    async def use(name: str) -> None:
        async with lanes:
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(name) for name in "abc"))
    assert order == ["a", "b", "c"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_whoever_is_cancelled_while_waiting_leaves_no_lane_taken(turns: int) -> None:
    lanes = Lanes(1)
    await lanes.acquire()
    waiting = [asyncio.create_task(lanes.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    lanes.release()
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait(waiting, timeout=1)
    if not waiting[0].cancelled():
        lanes.release()
    await asyncio.wait_for(waiting[2], 1)
    lanes.release()
    async with asyncio.timeout(1), lanes:
        pass


async def test_two_transfers_share_and_a_third_is_not_starved() -> None:
    lanes = Lanes(2)
    done: list[str] = []

    async def transfer(name: str, requests: int) -> None:
        for _ in range(requests):
            async with lanes:
                done.append(name)
                await asyncio.sleep(0.001)

    await asyncio.gather(*(transfer(name, 20) for name in "ab"), transfer("c", 5))
    assert done.index("c") < 6
    assert done[:30].count("c") == 5


async def test_a_slow_first_response_means_a_long_line() -> None:
    lanes = Lanes(32)
    assert lanes.width == 3
    waiting = [asyncio.create_task(lanes.acquire()) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert sum(task.done() for task in waiting) == 3
    lanes.took(0.2)
    assert lanes.width == 32
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_once_data_were_measured_they_count() -> None:
    lanes = Lanes(32)
    async with lanes, lanes, lanes:
        await asyncio.sleep(0.25)
        lanes.moved(1000)
        width = lanes.width
        lanes.took(0.2)
        assert lanes.width == width <= 6


async def test_the_quickest_of_the_first_responses_counts() -> None:
    lanes = Lanes(32)
    lanes.took(0.2)
    lanes.took(0.002)
    lanes.took(0.3)
    assert lanes.width == 3


async def test_many_requests_that_are_told_to_slow_down_at_once_are_one_sign() -> None:
    lanes = Lanes(32)
    lanes.took(0.2)
    for _ in range(20):
        lanes.throttled()
    assert lanes.width == 16


async def test_a_request_to_slow_down_counts_even_if_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)  # as uvloop's does within a turn
    lanes = Lanes(32)
    lanes.took(0.2)
    lanes.throttled()
    assert lanes.width == 16


async def test_an_upload_over_a_slow_line_has_more_requests_under_way() -> None:
    config = TransferConfig(part_size=5 * MiB, memory_part_size=5 * MiB, multipart_threshold=0)
    data = bytes(100 * MiB)
    async with FaultyS3Server(buckets=["b"]) as server:
        server.script(*(Fault("UploadPart", ReceiveSlowly(12e6), nth=number) for number in range(1, 21)))
        session = S3Session(
            endpoint_url=server.endpoint_url, access_key_id="id", secret_access_key="secret", config=config
        )
        async with session:
            await session.bucket("b").upload(data, "k")
            assert server.peak_requests > 3
