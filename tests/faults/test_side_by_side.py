"""Downloads on one session, whose connections break and whose disks are slow, do not disturb each other."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from . import Close, Fault, Reset
from .harness import BUCKET, CONFIG, LARGE, MiB

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 4


@pytest.mark.parametrize("seed", range(3))
def test_slow_disks_and_bodies_that_break_off(
    run: Any, start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)
    pwrite = os.pwrite

    def slow(*args: Any) -> int:
        time.sleep(0.005)
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", slow)
    # Most of them just below what aiohttp, or we, take at a time.
    offsets = (MiB - 1, MiB - 40_000, MiB, 256 * 1024 - 1, -1, 1, 0)
    breaks = [
        Fault("GetObject", dice.choice((Close, Reset))(response_byte=dice.choice(offsets)), nth=number)
        for number in range(1, 60, 2)
    ]
    config = replace(CONFIG, max_attempts=20, retry_delay=0.001, range_size=2 * MiB)

    async def main() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with start(*breaks, config=config) as (server, bucket):
            for number in range(COUNT):
                server.put(BUCKET, f"{number}", LARGE[number:])

            async def fetch(number: int) -> None:
                path = await bucket.download_file(f"{number}", tmp_path / f"{number}")
                assert path.read_bytes() == LARGE[number:]
                assert (await bucket.download(f"{number}")).getvalue() == LARGE[number:]
                chunks = []
                async for chunk in bucket.stream(f"{number}"):
                    chunks.append(chunk)
                    await asyncio.sleep(0.002)
                assert b"".join(chunks) == LARGE[number:]

            async with asyncio.timeout(60):
                await asyncio.gather(*(fetch(number) for number in range(COUNT)))
        assert not failures

    run(main())
