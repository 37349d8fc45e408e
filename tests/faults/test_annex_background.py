"""The background task, which sends files that S3 did not accept; and the annex's start and end."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import LargeFileAnnex, salobj

from . import Fault, ReceiveSlowly, Status
from .annex_harness import DOWN, HANGS, QUICK, open_annex_harness, until
from .harness import BUCKET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_the_oldest_is_sent_first_and_few_at_a_time(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        names = [f"{n:02}" for n in range(12)]
        for name in names:
            await harness.annex.publish(name.encode(), generator="image", key=name)
        harness.server.script()
        harness.server.seen.clear()
        harness.server.peak_requests = 0
        assert await harness.annex.wait_stored(20)
        sent = [seen.key for seen in harness.server.calls("PutObject")]
        assert sorted(sent) == names
        assert all(abs(sent.index(name) - names.index(name)) <= 2 for name in names)
        assert harness.server.peak_requests <= 2
        harness.check(12)


async def test_a_success_wakes_the_background_at_once(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1")
        assert harness.annex._life is not None
        queue = harness.annex._life.drain._queue
        await until(lambda: queue._failures > 0)
        queue._failures = 100  # S3 has been away for hours
        queue._paused_until = asyncio.get_running_loop().time() + 60
        harness.server.script()
        assert not await harness.annex.wait_stored(0.3)
        await harness.annex.publish(b"2", generator="image", key="2")
        assert await harness.annex.wait_stored(1)


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "QuotaExceeded"), (404, "NoSuchBucket"), (403, "InvalidAccessKeyId")],
)
async def test_what_only_people_can_cure_waits_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(Fault("PutObject", Status(status, code)))
        with caplog.at_level(logging.WARNING):
            for name in ("1", "2"):
                assert not (await harness.annex.publish(name.encode(), generator="image", key=name)).stored
            await until(lambda: len(harness.server.calls("PutObject")) >= 8)
        assert len([record for record in caplog.records if code in record.message]) == 1
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(2)


async def test_a_file_that_s3_will_not_have_does_not_hold_back_the_others(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        too_large = Fault("PutObject", Status(413, "EntityTooLarge"), where=lambda seen: seen.key == "1")
        harness.server.script(too_large, DOWN)
        for name in ("1", "2"):
            await harness.annex.publish(name.encode(), generator="image", key=name)
        harness.server.script(too_large)
        await until(lambda: harness.object("2") is not None)
        assert not await harness.annex.wait_stored(0.1)
        assert harness.files() == ["rubinobs-lfa-faults/1", "rubinobs-lfa-faults/1.lfa.jsonl"]


async def test_what_was_changed_in_the_spool_is_not_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        for name in ("changed", "deleted", "good"):
            file = await harness.annex.publish(name.encode(), generator="image", key=name)
            assert file.path is not None
            if name == "changed":
                file.path.write_bytes(b"CHANGED")
            elif name == "deleted":
                file.path.unlink()
        harness.server.script()
        with caplog.at_level(logging.WARNING):
            assert await harness.annex.wait_stored(10)
        assert "is not what was published" in caplog.text
        assert "deleted" in caplog.text
        assert harness.object("changed") is None
        assert harness.object("good") == b"good"
        await harness.annex.aclose()
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)


async def test_start_and_close_and_start(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        await harness.annex.aclose()
        await harness.annex.start()
        await harness.annex.start()
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        await harness.annex.aclose()
        await harness.annex.aclose()
        harness.server.script()
        await harness.annex.start()
        assert await harness.annex.wait_stored(10)
        async with harness.annex:
            await harness.annex.publish(b"2", generator="image", key="2", id="2")
        await harness.annex.publish(b"3", generator="image", key="3", id="3")
        harness.check(3)


async def test_closing_makes_safe_what_is_being_published(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, replace(QUICK, stall_timeout=20), upload_timeout=30) as harness:
        harness.server.script(HANGS)
        task = asyncio.ensure_future(harness.annex.publish(b"1", generator="image", key="1", id="1"))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await harness.annex.aclose()
        assert time.monotonic() - began < 5
        assert not (await task).stored
        assert harness.topic.ids == ["1"]
        assert len(harness.files()) == 2


async def test_cancelled_publications(tmp_path: Path) -> None:
    """What is safe already is kept, and announced."""
    async with open_annex_harness(tmp_path, upload_timeout=30) as harness:
        harness.server.script(HANGS)
        for seconds in (0.0, 0.01, 0.05, 0.3):
            task = asyncio.ensure_future(harness.annex.publish(b"%f" % seconds, generator="image", key=f"{seconds}"))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "rubinobs-lfa-faults/0.3" in harness.files()
        harness.server.script()
        await harness.annex.publish(b"good", generator="image", key="good", id="good")
        assert harness.topic.ids[-1] == "good"
        assert await harness.annex.wait_stored(10)
        harness.check(len(harness.topic.written))
        assert harness.object("0.3") is not None


async def test_two_annexes_on_one_folder_send_each_file_once(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        for n in range(20):
            await harness.annex.publish(b"%d" % n, generator="image", key=f"{n}")
        await harness.annex.aclose()
        harness.server.script(Fault("PutObject", ReceiveSlowly(1000)))
        harness.server.seen.clear()
        async with harness.another() as one, harness.another() as two:
            assert await one.wait_stored(20)
            assert await two.wait_stored(20)
        assert len(harness.server.calls("PutObject")) == 20
        harness.check(20)


async def test_taking_in_what_older_code_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_annex_harness(tmp_path) as harness:
        for folder in (harness.folder, tmp_path / "elsewhere"):
            for key in (f"GC:1/image/{folder.name}.fits", f"{folder.name}"):
                path = folder / BUCKET / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(folder.name.encode())
        with caplog.at_level(logging.WARNING):
            await harness.annex.start()
        assert "adopt()" in caplog.text
        assert await harness.annex.adopt() == 2
        assert await harness.annex.adopt(tmp_path / "elsewhere") == 2
        assert await harness.annex.adopt() == 0
        assert await harness.annex.wait_stored(10)
        assert harness.object("GC:1/image/spool.fits") == harness.object("spool") == b"spool"
        assert harness.object("GC:1/image/elsewhere.fits") == harness.object("elsewhere") == b"elsewhere"
        assert harness.topic.written == []
        assert harness.files() == []
        assert [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()] == []
        (harness.folder / BUCKET).mkdir(parents=True)
        (harness.folder / BUCKET / "late").write_bytes(b"late")
        assert await harness.annex.adopt(announce=True) == 1
        assert await harness.annex.wait_stored(10)
        assert [each["byteSize"] for each in harness.topic.written] == [4]
        with pytest.raises(ValueError, match="needs a spool"):
            await harness.another(spool=None).adopt()


def test_a_loop_after_another(tmp_path: Path) -> None:
    """As tests of components do it: one annex, many loops."""
    bucket = salobj.AsyncS3Bucket("bucket", domock=True)
    annex = LargeFileAnnex(bucket, "GC", spool=tmp_path)

    async def publish() -> None:
        assert (await annex.publish(b"data", generator="image")).stored
        await bucket._client.aclose()

    for _ in range(2):
        asyncio.run(publish())
    bucket.stop_mock()


def running() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "lsst_lfa annex"]


async def test_closing_while_it_starts(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        starting = asyncio.ensure_future(harness.annex.start())
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(harness.annex.aclose())
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(starting, closing)
            assert running() == []
            await harness.annex.start()
            closing = asyncio.ensure_future(harness.annex.aclose())
            await asyncio.sleep(0)
            await harness.annex.start()
            await closing
        assert len(running()) == 1


async def test_publishing_while_it_is_closed(tmp_path: Path) -> None:
    """What is published then waits for the end, and starts again: no file is left to nobody."""
    read_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"1"
        await read_on.wait()

    async with open_annex_harness(tmp_path, replace(QUICK, stall_timeout=20), upload_timeout=5) as harness:
        harness.server.script(HANGS)
        first = asyncio.ensure_future(harness.annex.publish(slow(), generator="image", key="1", id="1"))
        await until(lambda: bool(harness.server.seen))
        closing = [asyncio.ensure_future(harness.annex.aclose()) for _ in range(2)]
        await asyncio.sleep(0)
        harness.server.script()
        second = asyncio.ensure_future(harness.annex.publish(b"2", generator="image", key="2", id="2"))
        await asyncio.sleep(0.1)
        read_on.set()
        await asyncio.gather(first, second, *closing)
        assert await harness.annex.wait_stored(10)
        assert harness.topic.ids == ["1", "2"]
        harness.check(2)


async def test_another_loop_gets_a_clear_error_while_this_one_is_open(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        await harness.annex.start()
        for work in (harness.annex.publish(b"1", generator="image"), harness.annex.aclose()):
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, work)
        await harness.annex.publish(b"1", generator="image", key="1")
        harness.check(1)
