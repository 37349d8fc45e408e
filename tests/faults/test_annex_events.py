"""Events: each file's once, in the order of publishing, as soon as it is safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import LargeFile, errors

from . import Fault, Silence, Status
from .annex_harness import DOWN, Topic, open_annex_harness, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_events_come_in_the_order_of_publishing(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, upload_timeout=1.5) as harness:
        harness.server.script(Fault("*", Silence(), where=lambda seen: seen.key == "0"))

        async def publish(number: int) -> LargeFile:
            file = await harness.annex.publish(b"%d" % number, generator="image", key=f"{number}", id=f"{number}")
            assert harness.topic.ids[: number + 1] == [f"{n}" for n in range(number + 1)], "announced when it returns"
            return file

        files = await asyncio.gather(*(publish(number) for number in range(5)))
        assert harness.topic.ids == ["0", "1", "2", "3", "4"]
        assert [file.stored for file in files] == [False, True, True, True, True]
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(5)


async def test_a_file_that_fails_does_not_hold_back_the_next(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, spool=None) as harness:
        harness.server.script(Fault("*", Status(403, "AccessDenied"), where=lambda seen: seen.key == "0"))
        first, second = await asyncio.gather(
            *(harness.annex.publish(b"%d" % n, generator="image", key=f"{n}", id=f"{n}") for n in range(2)),
            return_exceptions=True,
        )
        assert isinstance(first, errors.NotStoredError)
        assert isinstance(second, LargeFile)
        assert harness.topic.ids == ["1"]


async def test_an_event_that_fails_is_sent_at_the_next_chance(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.topic.failing = [ValueError("no broker")]
        file = await harness.annex.publish(b"1", generator="image", key="1", id="1")
        assert file.stored
        assert harness.topic.written == []
        assert harness.files() == ["rubinobs-lfa-faults/1.lfa.jsonl"]
        await harness.annex.publish(b"2", generator="image", key="2", id="2")
        assert harness.topic.ids == ["1", "2"]
        assert await harness.annex.wait_stored(10)
        harness.check(2)


async def test_an_event_that_fails_is_sent_from_the_background(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.topic.failing = [ValueError("no broker")] * 2
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        assert harness.topic.written == []
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(1)


async def test_an_event_that_is_always_refused_does_not_hold_back_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Choosy(Topic):
        async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
            if fields["id"] == "bad":
                raise ValueError("no")
            await super().set_write(force_output=force_output, **fields)

    topic = Choosy()
    async with open_annex_harness(tmp_path, event=topic) as harness:
        for name in ("bad", "1", "2", "3"):
            await harness.annex.publish(b"data" + name.encode(), generator="image", key=name, id=name)
        assert topic.ids == ["1", "2", "3"]
        assert "giving it up" in caplog.text
        assert await harness.annex.wait_stored(10)
        assert harness.files() == []


async def test_a_file_that_was_not_announced_is_announced_by_the_next_process(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.topic.failing = [ValueError("no broker")] * 50
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        await harness.annex.aclose()
        harness.topic.failing.clear()
        harness.annex = harness.another()
        await harness.annex.publish(b"2", generator="image", key="2", id="2")
        assert harness.topic.ids == ["1", "2"]


async def test_announced_when_stored(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, announce="stored") as harness:
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        await harness.annex.publish(b"2", generator="image", key="2", id="2")
        assert harness.topic.ids == []
        publishing = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            publishing.set()
            yield b"3"
            await until(lambda: len(harness.stored) == 2)
            await asyncio.sleep(0.05)
            assert harness.topic.ids == [], "not while a file is being published"

        harness.server.script()
        await harness.annex.publish(slow(), generator="image", key="3", id="3")
        assert await harness.annex.wait_stored(10)
        assert harness.topic.ids == ["1", "2", "3"]
        await harness.annex.publish(b"4", generator="image", key="4", id="4")
        harness.check(4)


async def test_announced_when_stored_by_the_next_process(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, announce="stored") as harness:
        harness.server.script(DOWN)
        for name in ("1", "2"):
            await harness.annex.publish(name.encode(), generator="image", key=name, id=name)
        await harness.annex.aclose()
        harness.server.script()
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)
        assert harness.topic.ids == ["1", "2"]
        harness.check(2)


async def test_what_on_stored_raises_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(file: LargeFile) -> None:
        await asyncio.sleep(0)
        raise RuntimeError(file.key)

    async with open_annex_harness(tmp_path, on_stored=fail) as harness:
        await harness.annex.publish(b"1", generator="image", key="1")
        assert "RuntimeError: 1" in caplog.text
        harness.check(1)


async def test_without_an_event(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, event=None) as harness:
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1")
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        assert harness.object("1") == b"1"
        assert harness.files() == []


async def test_a_process_without_the_event_leaves_it_to_the_one_that_has_it(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, announce="stored") as harness:
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        await harness.annex.aclose()
        harness.server.script()
        async with harness.another(event=None) as script:
            assert await script.wait_stored(10)
        assert harness.object("1") == b"1"
        assert harness.topic.ids == []
        assert harness.files() == ["rubinobs-lfa-faults/1.lfa.jsonl"]
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)
        harness.check(1)


class Slow(Topic):
    """A topic whose broker does not respond."""

    def __init__(self) -> None:
        super().__init__()
        self.responds = asyncio.Event()
        self.asked = 0

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
        """Wait for the broker."""
        self.asked += 1
        await self.responds.wait()
        await super().set_write(force_output=force_output, **fields)


async def test_a_topic_that_hangs_holds_up_neither_the_file_nor_the_end(tmp_path: Path) -> None:
    topic = Slow()
    async with open_annex_harness(tmp_path, event=topic) as harness:
        async with asyncio.timeout(5):
            for name in ("1", "2", "3", "4", "5"):
                assert (await harness.annex.publish(name.encode(), generator="image", key=name, id=name)).stored
            await harness.annex.aclose()
        assert topic.written == []
        topic.responds.set()
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)
        assert topic.ids == ["1", "2", "3", "4", "5"]
        assert harness.files() == []


async def test_a_publication_that_is_cancelled_while_the_topic_hangs(tmp_path: Path) -> None:
    topic = Slow()
    async with open_annex_harness(tmp_path, event=topic) as harness:
        first = asyncio.ensure_future(harness.annex.publish(b"1", generator="image", key="1", id="1"))
        await until(lambda: topic.asked == 1)
        second = asyncio.ensure_future(harness.annex.publish(b"2", generator="image", key="2", id="2"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        topic.responds.set()
        await second
        assert await harness.annex.wait_stored(10)
        assert topic.ids == ["1", "2"]
        assert harness.files() == []


async def test_a_topic_that_cancels_its_own_write(tmp_path: Path) -> None:
    class Cancels(Topic):
        async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
            if not tried:
                tried.append(fields["id"])
                raise asyncio.CancelledError
            await super().set_write(force_output=force_output, **fields)

    tried: list[str] = []
    topic = Cancels()
    async with open_annex_harness(tmp_path, event=topic) as harness:
        for name in ("1", "2"):
            assert (await harness.annex.publish(name.encode(), generator="image", key=name, id=name)).stored
        assert topic.ids == ["1", "2"]
