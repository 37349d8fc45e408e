"""The same key again: the same bytes are a success, and other bytes are never overwritten."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from . import Fault, ReceiveSlowly, Silence, Status
from .annex_harness import BRISK, DATE, DOWN, KEY, play, url
from .harness import BUCKET, LARGE

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_same_bytes_again_are_a_success(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        for data in (b"data", LARGE):
            it.server.seen.clear()
            first = await it.annex.publish(data, generator="image", key=f"{len(data)}")
            again = await it.annex.publish(data, generator="image", key=f"{len(data)}")
            assert (first.stored, first.url) == (again.stored, again.url)
            assert len(it.server.calls("PutObject") + it.server.calls("CreateMultipartUpload")) == 1
        assert it.topic.written[0] == it.topic.written[1]
        assert it.files() == []


async def test_an_object_that_cannot_be_read_is_not_taken_for_a_success(tmp_path: Path) -> None:
    """What HEAD tells of it is right; its parts are gone."""
    async with play(tmp_path) as it:
        await it.annex.publish(LARGE, generator="image", key="k.fits")
        it.server.script(Fault("GetObject", Status(404, "NoSuchKey"), where=lambda seen: seen.key == "k.fits"))
        file = await it.annex.publish(LARGE, generator="image", key="k.fits")
        assert (file.key, file.stored) == ("k_r1.fits", True)
        assert it.object("k_r1.fits") == LARGE


async def test_other_bytes_get_a_key_of_their_own(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        for data in (b"one", b"two", b"three", b"two"):
            await it.annex.publish(data, generator="image", date=DATE)
        assert it.object(KEY) == b"one"
        assert it.object(KEY.replace(".fits", "_r1.fits")) == b"two"
        assert it.object(KEY.replace(".fits", "_r2.fits")) == b"three"
        assert it.topic.written[1] == it.topic.written[3]
        assert [each["url"] for each in it.topic.written[:3]] == [
            url(it.server, KEY.replace(".fits", suffix)) for suffix in (".fits", "_r1.fits", "_r2.fits")
        ]


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_key_twice_while_s3_is_away(tmp_path: Path, together: bool) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        work = [it.annex.publish(data, generator="image", date=DATE) for data in (b"one", b"two", b"two")]
        if together:
            await asyncio.gather(*work)
        else:
            for each in work:
                await each
        second = url(it.server, KEY.replace(".fits", "_r1.fits"))
        assert [each["url"] for each in it.topic.written] == [url(it.server), second, second]
        await it.annex.aclose()
        it.server.script()
        it.annex = it.another()
        assert await it.annex.wait_stored(10)
        assert it.object(KEY) == b"one"
        assert it.object(KEY.replace(".fits", "_r1.fits")) == b"two"
        assert len(it.topic.written) == 3
        assert it.files() == []


async def test_a_key_that_turns_out_to_be_taken_is_reported_by_an_event_of_its_own(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.put(BUCKET, KEY, b"old")
        it.server.script(DOWN)
        file = await it.annex.publish(b"new", generator="image", date=DATE, id="1")
        assert file.url == url(it.server)
        it.server.script()
        assert await it.annex.wait_stored(10)
        second = url(it.server, KEY.replace(".fits", "_r1.fits"))
        assert [(each["url"], each["id"]) for each in it.topic.written] == [(url(it.server), "1"), (second, "1")]
        assert it.object(KEY) == b"old"
        assert it.object(KEY.replace(".fits", "_r1.fits")) == b"new"
        assert [each.url for each in it.stored] == [second]
        assert it.files() == []


async def test_two_files_that_both_find_their_key_taken(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.put(BUCKET, "k.fits", b"old")
        it.server.script(DOWN)
        one, two = b"one" * 100, b"two" * 100
        await it.annex.publish(b"the one that finds S3 well again", generator="image", key="first")
        for data in (one, two):
            await it.annex.publish(data, generator="image", key="k.fits")
        # They look for a free key at the same time.
        it.server.script(Fault("PutObject", ReceiveSlowly(1000)))
        assert await it.annex.wait_stored(10)
        assert it.object("k.fits") == b"old"
        assert {it.object("k_r1.fits"), it.object("k_r2.fits")} == {one, two}
        told = {(each["url"], each["checkSum"]) for each in it.topic.written}
        for key in ("k_r1.fits", "k_r2.fits"):
            found = it.object(key)
            assert found is not None
            assert (url(it.server, key), hashlib.md5(found).hexdigest()) in told


async def test_a_taken_key_is_settled_before_the_event_where_s3_can_be_asked(tmp_path: Path) -> None:
    async with play(tmp_path, upload_timeout=0.3) as it:
        it.server.put(BUCKET, KEY, b"old")
        it.server.script(Fault("PutObject", Silence()))
        file = await it.annex.publish(b"new", generator="image", date=DATE)
        second = url(it.server, KEY.replace(".fits", "_r1.fits"))
        assert (file.stored, file.url) == (False, second)
        it.server.script()
        assert await it.annex.wait_stored(10)
        assert [each["url"] for each in it.topic.written] == [second]
        it.check(1)


async def test_overwriting(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.put(BUCKET, "k", b"old")
        await it.annex.publish(b"one", generator="image", key="k", if_exists="overwrite")
        assert it.object("k") == b"one"
        it.server.script(DOWN)
        await it.annex.publish(b"two", generator="image", key="k", if_exists="overwrite")
        it.server.script()
        await it.annex.publish(b"three", generator="image", key="k", if_exists="overwrite")
        assert await it.annex.wait_stored(10)
        assert it.object("k") == b"three"
        assert {each["url"] for each in it.topic.written} == {url(it.server, "k")}


async def test_an_error_for_those_who_want_one(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.put(BUCKET, "k", b"old")
        with pytest.raises(FileExistsError, match="nothing was overwritten"):
            await it.annex.publish(b"new", generator="image", key="k", if_exists="error")
        assert (await it.annex.publish(b"old", generator="image", key="k", if_exists="error")).stored
        assert it.object("k") == b"old"
        it.check(1)
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="l", if_exists="error")
        with pytest.raises(FileExistsError, match="waits to be sent"):
            await it.annex.publish(b"2", generator="image", key="l", if_exists="error")
        assert len(it.files()) == 2


async def test_who_may_not_list_the_bucket_publishes_all_the_same(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.script(
            Fault("HeadObject", Status(403, "AccessDenied")), Fault("GetObject", Status(403, "AccessDenied"))
        )
        assert (await it.annex.publish(b"new", generator="image", key="k")).stored


async def test_what_was_replaced_does_not_come_back(tmp_path: Path) -> None:
    """Where the oldest is refused by itself, and would be sent once more after the newest."""
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        for version in range(4):
            data = b"%d" % version * (5_000_000 if version == 2 else 10)
            await it.annex.publish(data, generator="image", key="k.fits", id=f"{version}", if_exists="overwrite")
        await it.annex.aclose()
        it.server.script(Fault("PutObject", Status(413, "EntityTooLarge"), nth=1))
        it.annex = it.another()
        it.annex._pace = replace(BRISK, rescan=0.2)
        assert await it.annex.wait_stored(10)
        assert it.object("k.fits") == b"3" * 10
        assert it.topic.ids == ["0", "1", "2", "3"]
        assert it.files() == []


async def test_a_taken_key_is_told_also_of_a_file_that_was_left_unannounced(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.server.put(BUCKET, KEY, b"old")
        it.server.script(DOWN)
        it.topic.failing = [ValueError("no broker")] * 50
        await it.annex.publish(b"new", generator="image", date=DATE, id="1")
        await it.annex.aclose()
        it.topic.failing.clear()
        it.server.script()
        it.annex = it.another()
        assert await it.annex.wait_stored(10)
        assert it.object(KEY.replace(".fits", "_r1.fits")) == b"new"
        assert it.topic.written[-1]["url"] == url(it.server, KEY.replace(".fits", "_r1.fits"))
        assert it.files() == []
