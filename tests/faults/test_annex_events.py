"""Events: each file's once, in the order of publishing, as soon as it is safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import LargeFile, errors

from . import Fault, Silence, Status
from .annex_harness import DOWN, Topic, play, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def test_events_come_in_the_order_of_publishing(tmp_path: Path) -> None:
    async with play(tmp_path, upload_timeout=0.3) as it:
        it.server.script(Fault("*", Silence(), where=lambda seen: seen.key == "0"))

        async def publish(number: int) -> LargeFile:
            file = await it.annex.publish(b"%d" % number, generator="image", key=f"{number}", id=f"{number}")
            assert it.topic.ids[: number + 1] == [f"{n}" for n in range(number + 1)], "announced when it returns"
            return file

        files = await asyncio.gather(*(publish(number) for number in range(5)))
        assert it.topic.ids == ["0", "1", "2", "3", "4"]
        assert [file.stored for file in files] == [False, True, True, True, True]
        it.server.script()
        assert await it.annex.wait_stored(10)
        it.check(5)


async def test_a_file_that_fails_does_not_hold_back_the_next(tmp_path: Path) -> None:
    async with play(tmp_path, spool=None) as it:
        it.server.script(Fault("*", Status(403, "AccessDenied"), where=lambda seen: seen.key == "0"))
        first, second = await asyncio.gather(
            *(it.annex.publish(b"%d" % n, generator="image", key=f"{n}", id=f"{n}") for n in range(2)),
            return_exceptions=True,
        )
        assert isinstance(first, errors.NotStoredError)
        assert isinstance(second, LargeFile)
        assert it.topic.ids == ["1"]


async def test_an_event_that_fails_is_sent_at_the_next_chance(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.topic.failing = [ValueError("no broker")]
        file = await it.annex.publish(b"1", generator="image", key="1", id="1")
        assert file.stored
        assert it.topic.written == []
        assert it.files() == ["rubinobs-lfa-faults/1.lfa.jsonl"]
        await it.annex.publish(b"2", generator="image", key="2", id="2")
        assert it.topic.ids == ["1", "2"]
        assert await it.annex.wait_stored(10)
        it.check(2)


async def test_an_event_that_fails_is_sent_from_the_background(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.topic.failing = [ValueError("no broker")] * 2
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1", id="1")
        assert it.topic.written == []
        it.server.script()
        assert await it.annex.wait_stored(10)
        it.check(1)


async def test_an_event_that_is_always_refused_does_not_hold_back_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Choosy(Topic):
        async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
            if fields["id"] == "bad":
                raise ValueError("no")
            await super().set_write(force_output=force_output, **fields)

    topic = Choosy()
    async with play(tmp_path, event=topic) as it:
        for name in ("bad", "1", "2", "3"):
            await it.annex.publish(b"data" + name.encode(), generator="image", key=name, id=name)
        assert topic.ids == ["1", "2", "3"]
        assert "giving it up" in caplog.text
        assert await it.annex.wait_stored(10)
        assert it.files() == []


async def test_a_file_that_was_not_announced_is_announced_by_the_next_process(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.topic.failing = [ValueError("no broker")] * 50
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1", id="1")
        await it.annex.aclose()
        it.topic.failing.clear()
        it.annex = it.another()
        await it.annex.publish(b"2", generator="image", key="2", id="2")
        assert it.topic.ids == ["1", "2"]


async def test_announced_when_stored(tmp_path: Path) -> None:
    async with play(tmp_path, announce="stored") as it:
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1", id="1")
        await it.annex.publish(b"2", generator="image", key="2", id="2")
        assert it.topic.ids == []
        publishing = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            publishing.set()
            yield b"3"
            await until(lambda: len(it.stored) == 2)
            await asyncio.sleep(0.05)
            assert it.topic.ids == [], "not while a file is being published"

        it.server.script()
        await it.annex.publish(slow(), generator="image", key="3", id="3")
        assert await it.annex.wait_stored(10)
        assert it.topic.ids == ["1", "2", "3"]
        await it.annex.publish(b"4", generator="image", key="4", id="4")
        it.check(4)


async def test_announced_when_stored_by_the_next_process(tmp_path: Path) -> None:
    async with play(tmp_path, announce="stored") as it:
        it.server.script(DOWN)
        for name in ("1", "2"):
            await it.annex.publish(name.encode(), generator="image", key=name, id=name)
        await it.annex.aclose()
        it.server.script()
        it.annex = it.another()
        assert await it.annex.wait_stored(10)
        assert it.topic.ids == ["1", "2"]
        it.check(2)


async def test_what_on_stored_raises_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(file: LargeFile) -> None:
        await asyncio.sleep(0)
        raise RuntimeError(file.key)

    async with play(tmp_path, on_stored=fail) as it:
        await it.annex.publish(b"1", generator="image", key="1")
        assert "RuntimeError: 1" in caplog.text
        it.check(1)


async def test_without_an_event(tmp_path: Path) -> None:
    async with play(tmp_path, event=None) as it:
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1")
        it.server.script()
        assert await it.annex.wait_stored(10)
        assert it.object("1") == b"1"
        assert it.files() == []


async def test_a_process_without_the_event_leaves_it_to_the_one_that_has_it(tmp_path: Path) -> None:
    async with play(tmp_path, announce="stored") as it:
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1", id="1")
        await it.annex.aclose()
        it.server.script()
        async with it.another(event=None) as script:
            assert await script.wait_stored(10)
        assert it.object("1") == b"1"
        assert it.topic.ids == []
        assert it.files() == ["rubinobs-lfa-faults/1.lfa.jsonl"]
        it.annex = it.another()
        assert await it.annex.wait_stored(10)
        it.check(1)


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
    async with play(tmp_path, event=topic) as it:
        async with asyncio.timeout(5):
            for name in ("1", "2", "3", "4", "5"):
                assert (await it.annex.publish(name.encode(), generator="image", key=name, id=name)).stored
            await it.annex.aclose()
        assert topic.written == []
        topic.responds.set()
        it.annex = it.another()
        assert await it.annex.wait_stored(10)
        assert topic.ids == ["1", "2", "3", "4", "5"]
        assert it.files() == []


async def test_a_publication_that_is_cancelled_while_the_topic_hangs(tmp_path: Path) -> None:
    topic = Slow()
    async with play(tmp_path, event=topic) as it:
        first = asyncio.ensure_future(it.annex.publish(b"1", generator="image", key="1", id="1"))
        await until(lambda: topic.asked == 1)
        second = asyncio.ensure_future(it.annex.publish(b"2", generator="image", key="2", id="2"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        topic.responds.set()
        await second
        assert await it.annex.wait_stored(10)
        assert topic.ids == ["1", "2"]
        assert it.files() == []


async def test_a_topic_that_cancels_its_own_write(tmp_path: Path) -> None:
    class Cancels(Topic):
        async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
            if not tried:
                tried.append(fields["id"])
                raise asyncio.CancelledError
            await super().set_write(force_output=force_output, **fields)

    tried: list[str] = []
    topic = Cancels()
    async with play(tmp_path, event=topic) as it:
        for name in ("1", "2"):
            assert (await it.annex.publish(name.encode(), generator="image", key=name, id=name)).stored
        assert topic.ids == ["1", "2"]
