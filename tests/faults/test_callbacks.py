"""A user's callback that raises, is slow, or cancels its own task."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from . import Fault, Reset
from . import harness as users
from .harness import BUCKET, KEY, LARGE, OLD, Harness, open_harness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Act = Callable[[Harness], Awaitable[None]]

pytestmark = pytest.mark.fast_clock

TRANSFERS = pytest.mark.parametrize(
    "act", [users.upload, users.upload_in_parts, users.download, users.download_file], ids=lambda act: act.__name__
)


async def with_callback(
    harness: Harness, act: Act, callback: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "callback", callback)
    await act(harness)


@TRANSFERS
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("coroutine", [False, True])
async def test_it_raises(tmp_path: Path, act: Act, nth: int, coroutine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:

        def fail(count: int) -> None:
            harness.counts.append(count)
            if len(harness.counts) == nth:
                raise KeyError("boom")

        async def fail_later(count: int) -> None:
            await asyncio.sleep(0)
            fail(count)

        error: KeyError | None = None
        try:
            await with_callback(harness, act, fail_later if coroutine else fail, monkeypatch)
        except KeyError as caught:
            error = caught
        # Whoever is called fewer times than that does not raise.
        assert (error is None) == (harness.expected is not None) == (len(harness.counts) < nth)
        assert error is None or (len(harness.counts) == nth and f"{BUCKET}/{KEY}" in error.__notes__[0])
        harness.check_counts()
        assert not harness.server.uploads


@TRANSFERS
async def test_it_cancels_its_own_task(tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:

        def cancel(count: int) -> None:
            task = asyncio.current_task()
            assert task is mine
            task.cancel()

        mine = asyncio.ensure_future(with_callback(harness, act, cancel, monkeypatch))
        with pytest.raises(asyncio.CancelledError):
            await mine
        assert not harness.server.uploads
        harness.check_folder(OLD)


@TRANSFERS
@pytest.mark.parametrize("coroutine", [False, True])
async def test_it_is_slow(tmp_path: Path, act: Act, coroutine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("*", Reset(request_byte=-1), nth=2), Fault("*", Reset(response_byte=-1), nth=3))

        def slow(count: int) -> None:
            harness.counts.append(count)
            time.sleep(0.02)

        async def slow_later(count: int) -> None:
            harness.counts.append(count)
            await asyncio.sleep(0.05)

        await with_callback(harness, act, slow_later if coroutine else slow, monkeypatch)
        harness.check_counts()


async def test_it_can_use_the_bucket(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:

        async def callback(count: int) -> None:
            harness.counts.append(await harness.bucket.size(KEY) - len(LARGE) + count)

        file = await harness.bucket.download(KEY, callback)
        assert file.getvalue() == LARGE
        harness.succeeded(len(LARGE))
        harness.check_counts()
