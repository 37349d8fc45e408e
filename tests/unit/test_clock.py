"""The loop that waits for nothing is never ahead of what may still happen."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lsst_lfa._transfer.concurrency import OwnThread
from tests.clock import QUIET, FastClockLoop

pytestmark = pytest.mark.fast_clock
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _needs_that_loop(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("loop") != "asyncio":
        pytest.skip("uvloop's clock is its own")


async def test_an_hour_passes_at_once() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FastClockLoop)
    began, real = loop.time(), time.monotonic()
    await asyncio.sleep(HOUR)
    assert HOUR <= loop.time() - began < HOUR + 60
    assert time.monotonic() - real < 60


async def test_timers_go_off_in_their_order() -> None:
    seen: list[int] = []
    for hours in (3, 1, 2):
        asyncio.get_running_loop().call_later(hours * HOUR, seen.append, hours)
    await asyncio.sleep(4 * HOUR)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor, lambda: OwnThread("test")])
async def test_a_thread_is_waited_for(executor: Any) -> None:
    loop = asyncio.get_running_loop()
    own = executor and executor()
    async with asyncio.timeout(HOUR):
        await loop.run_in_executor(own, time.sleep, 5 * QUIET)
    if own:
        own.shutdown()


async def test_what_was_sent_arrives_first() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1_000_000))
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server, asyncio.timeout(HOUR):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(bytes(1_000_000))
        assert len(await reader.read(-1)) == 1_000_000
        writer.close()
        await writer.wait_closed()
