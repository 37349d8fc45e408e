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
from .annex_harness import DOWN, HANGS, QUICK, play, until
from .harness import BUCKET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_the_oldest_is_sent_first_and_few_at_a_time(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        names = [f"{n:02}" for n in range(12)]
        for name in names:
            await it.annex.publish(name.encode(), generator="image", key=name)
        it.server.script()
        it.server.seen.clear()
        it.server.peak_requests = 0
        assert await it.annex.wait_stored(20)
        sent = [seen.key for seen in it.server.calls("PutObject")]
        assert sorted(sent) == names
        assert all(abs(sent.index(name) - names.index(name)) <= 2 for name in names)
        assert it.server.peak_requests <= 2
        it.check(12)


async def test_a_success_wakes_the_background_at_once(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1")
        assert it.annex._life is not None
        queue = it.annex._life.drain._queue
        await until(lambda: queue._failures > 0)
        queue._failures = 100  # S3 has been away for hours
        queue._paused_until = asyncio.get_running_loop().time() + 60
        it.server.script()
        assert not await it.annex.wait_stored(0.3)
        await it.annex.publish(b"2", generator="image", key="2")
        assert await it.annex.wait_stored(1)


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "QuotaExceeded"), (404, "NoSuchBucket"), (403, "InvalidAccessKeyId")],
)
async def test_what_only_people_can_cure_waits_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    async with play(tmp_path) as it:
        it.server.script(Fault("PutObject", Status(status, code)))
        with caplog.at_level(logging.WARNING):
            for name in ("1", "2"):
                assert not (await it.annex.publish(name.encode(), generator="image", key=name)).stored
            await until(lambda: len(it.server.calls("PutObject")) >= 8)
        assert len([record for record in caplog.records if code in record.message]) == 1
        it.server.script()
        assert await it.annex.wait_stored(10)
        it.check(2)


async def test_a_file_that_s3_will_not_have_does_not_hold_back_the_others(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        too_large = Fault("PutObject", Status(413, "EntityTooLarge"), where=lambda seen: seen.key == "1")
        it.server.script(too_large, DOWN)
        for name in ("1", "2"):
            await it.annex.publish(name.encode(), generator="image", key=name)
        it.server.script(too_large)
        await until(lambda: it.object("2") is not None)
        assert not await it.annex.wait_stored(0.1)
        assert it.files() == ["rubinobs-lfa-faults/1", "rubinobs-lfa-faults/1.lfa.jsonl"]


async def test_what_was_changed_in_the_spool_is_not_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        for name in ("changed", "deleted", "good"):
            file = await it.annex.publish(name.encode(), generator="image", key=name)
            assert file.path is not None
            if name == "changed":
                file.path.write_bytes(b"CHANGED")
            elif name == "deleted":
                file.path.unlink()
        it.server.script()
        with caplog.at_level(logging.WARNING):
            assert await it.annex.wait_stored(10)
        assert "is not what was published" in caplog.text
        assert "deleted" in caplog.text
        assert it.object("changed") is None
        assert it.object("good") == b"good"
        await it.annex.aclose()
        it.annex = it.another()
        assert await it.annex.wait_stored(10)


async def test_start_and_close_and_start(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        await it.annex.aclose()
        await it.annex.start()
        await it.annex.start()
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1", id="1")
        await it.annex.aclose()
        await it.annex.aclose()
        it.server.script()
        await it.annex.start()
        assert await it.annex.wait_stored(10)
        async with it.annex:
            await it.annex.publish(b"2", generator="image", key="2", id="2")
        await it.annex.publish(b"3", generator="image", key="3", id="3")
        it.check(3)


async def test_closing_makes_safe_what_is_being_published(tmp_path: Path) -> None:
    async with play(tmp_path, replace(QUICK, stall_timeout=20), upload_timeout=30) as it:
        it.server.script(HANGS)
        task = asyncio.ensure_future(it.annex.publish(b"1", generator="image", key="1", id="1"))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await it.annex.aclose()
        assert time.monotonic() - began < 5
        assert not (await task).stored
        assert it.topic.ids == ["1"]
        assert len(it.files()) == 2


async def test_cancelled_publications(tmp_path: Path) -> None:
    """What is safe already is kept, and announced."""
    async with play(tmp_path, upload_timeout=30) as it:
        it.server.script(HANGS)
        for seconds in (0.0, 0.01, 0.05, 0.3):
            task = asyncio.ensure_future(it.annex.publish(b"%f" % seconds, generator="image", key=f"{seconds}"))
            await asyncio.sleep(seconds)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "rubinobs-lfa-faults/0.3" in it.files()
        it.server.script()
        await it.annex.publish(b"good", generator="image", key="good", id="good")
        assert it.topic.ids[-1] == "good"
        assert await it.annex.wait_stored(10)
        it.check(len(it.topic.written))
        assert it.object("0.3") is not None


async def test_two_annexes_on_one_folder_send_each_file_once(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        for n in range(20):
            await it.annex.publish(b"%d" % n, generator="image", key=f"{n}")
        await it.annex.aclose()
        it.server.script(Fault("PutObject", ReceiveSlowly(1000)))
        it.server.seen.clear()
        async with it.another() as one, it.another() as two:
            assert await one.wait_stored(20)
            assert await two.wait_stored(20)
        assert len(it.server.calls("PutObject")) == 20
        it.check(20)


async def test_taking_in_what_older_code_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with play(tmp_path) as it:
        for folder in (it.folder, tmp_path / "elsewhere"):
            for key in (f"GC:1/image/{folder.name}.fits", f"{folder.name}"):
                path = folder / BUCKET / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(folder.name.encode())
        with caplog.at_level(logging.WARNING):
            await it.annex.start()
        assert "adopt()" in caplog.text
        assert await it.annex.adopt() == 2
        assert await it.annex.adopt(tmp_path / "elsewhere") == 2
        assert await it.annex.adopt() == 0
        assert await it.annex.wait_stored(10)
        assert it.object("GC:1/image/spool.fits") == it.object("spool") == b"spool"
        assert it.object("GC:1/image/elsewhere.fits") == it.object("elsewhere") == b"elsewhere"
        assert it.topic.written == []
        assert it.files() == []
        assert [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()] == []
        (it.folder / BUCKET).mkdir(parents=True)
        (it.folder / BUCKET / "late").write_bytes(b"late")
        assert await it.annex.adopt(announce=True) == 1
        assert await it.annex.wait_stored(10)
        assert [each["byteSize"] for each in it.topic.written] == [4]
        with pytest.raises(ValueError, match="needs a spool"):
            await it.another(spool=None).adopt()


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
    async with play(tmp_path) as it:
        starting = asyncio.ensure_future(it.annex.start())
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(it.annex.aclose())
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.gather(starting, closing)
            assert running() == []
            await it.annex.start()
            closing = asyncio.ensure_future(it.annex.aclose())
            await asyncio.sleep(0)
            await it.annex.start()
            await closing
        assert len(running()) == 1


async def test_publishing_while_it_is_closed(tmp_path: Path) -> None:
    """What is published then waits for the end, and starts again: no file is left to nobody."""
    read_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"1"
        await read_on.wait()

    async with play(tmp_path, replace(QUICK, stall_timeout=20), upload_timeout=5) as it:
        it.server.script(HANGS)
        first = asyncio.ensure_future(it.annex.publish(slow(), generator="image", key="1", id="1"))
        await until(lambda: bool(it.server.seen))
        closing = [asyncio.ensure_future(it.annex.aclose()) for _ in range(2)]
        await asyncio.sleep(0)
        it.server.script()
        second = asyncio.ensure_future(it.annex.publish(b"2", generator="image", key="2", id="2"))
        await asyncio.sleep(0.1)
        read_on.set()
        await asyncio.gather(first, second, *closing)
        assert await it.annex.wait_stored(10)
        assert it.topic.ids == ["1", "2"]
        it.check(2)


async def test_another_loop_gets_a_clear_error_while_this_one_is_open(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        await it.annex.start()
        for work in (it.annex.publish(b"1", generator="image"), it.annex.aclose()):
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, work)
        await it.annex.publish(b"1", generator="image", key="1")
        it.check(1)
