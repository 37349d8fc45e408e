"""Groups of tasks: what is raised, and what is left of a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from lsst_lfa._transfer.concurrency import task_group


async def _fail_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    msg = "its own"
    raise OSError(msg)


@pytest.mark.parametrize("seconds", [0, 0.02])
async def test_first_error_and_no_cancellation(seconds: float) -> None:
    task = asyncio.current_task()
    assert task is not None

    async def work() -> None:
        async with asyncio.timeout(5), task_group() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(_fail_after(seconds))
            await asyncio.sleep(0.01)

    with pytest.raises(OSError, match="its own"):
        await work()
    assert task.cancelling() == 0


async def test_cancellation() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(1)

    async def group_of_two() -> None:
        async with task_group() as group:
            group.create_task(work())
            group.create_task(work())

    task = asyncio.create_task(group_of_two())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1, 1]
