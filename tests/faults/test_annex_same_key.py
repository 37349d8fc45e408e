"""The same key again: the same bytes are a success, and other bytes are never overwritten."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from . import Fault, ReceiveSlowly, Silence, Status
from .annex_harness import BRISK, DATE, DOWN, KEY, open_annex_harness, url
from .harness import BUCKET, LARGE

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_same_bytes_again_are_a_success(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        for data in (b"data", LARGE):
            harness.server.seen.clear()
            first = await harness.annex.publish(data, generator="image", key=f"{len(data)}")
            again = await harness.annex.publish(data, generator="image", key=f"{len(data)}")
            assert (first.stored, first.url) == (again.stored, again.url)
            assert len(harness.server.calls("PutObject") + harness.server.calls("CreateMultipartUpload")) == 1
        assert harness.topic.written[0] == harness.topic.written[1]
        assert harness.files() == []


async def test_an_object_that_cannot_be_read_is_not_taken_for_a_success(tmp_path: Path) -> None:
    """What HEAD tells of it is right; its parts are gone."""
    async with open_annex_harness(tmp_path) as harness:
        await harness.annex.publish(LARGE, generator="image", key="k.fits")
        harness.server.script(Fault("GetObject", Status(404, "NoSuchKey"), where=lambda seen: seen.key == "k.fits"))
        file = await harness.annex.publish(LARGE, generator="image", key="k.fits")
        assert (file.key, file.stored) == ("k_r1.fits", True)
        assert harness.object("k_r1.fits") == LARGE


async def test_other_bytes_get_a_key_of_their_own(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        for data in (b"one", b"two", b"three", b"two"):
            await harness.annex.publish(data, generator="image", date=DATE)
        assert harness.object(KEY) == b"one"
        assert harness.object(KEY.replace(".fits", "_r1.fits")) == b"two"
        assert harness.object(KEY.replace(".fits", "_r2.fits")) == b"three"
        assert harness.topic.written[1] == harness.topic.written[3]
        assert [each["url"] for each in harness.topic.written[:3]] == [
            url(harness.server, KEY.replace(".fits", suffix)) for suffix in (".fits", "_r1.fits", "_r2.fits")
        ]


@pytest.mark.parametrize("together", [True, False])
async def test_the_same_key_twice_while_s3_is_away(tmp_path: Path, together: bool) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        work = [harness.annex.publish(data, generator="image", date=DATE) for data in (b"one", b"two", b"two")]
        if together:
            await asyncio.gather(*work)
        else:
            for each in work:
                await each
        second = url(harness.server, KEY.replace(".fits", "_r1.fits"))
        assert [each["url"] for each in harness.topic.written] == [url(harness.server), second, second]
        await harness.annex.aclose()
        harness.server.script()
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)
        assert harness.object(KEY) == b"one"
        assert harness.object(KEY.replace(".fits", "_r1.fits")) == b"two"
        assert len(harness.topic.written) == 3
        assert harness.files() == []


async def test_a_key_that_turns_out_to_be_taken_is_reported_by_an_event_of_its_own(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, b"old")
        harness.server.script(DOWN)
        file = await harness.annex.publish(b"new", generator="image", date=DATE, id="1")
        assert file.url == url(harness.server)
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        second = url(harness.server, KEY.replace(".fits", "_r1.fits"))
        assert [(each["url"], each["id"]) for each in harness.topic.written] == [
            (url(harness.server), "1"),
            (second, "1"),
        ]
        assert harness.object(KEY) == b"old"
        assert harness.object(KEY.replace(".fits", "_r1.fits")) == b"new"
        assert [each.url for each in harness.stored] == [second]
        assert harness.files() == []


async def test_two_files_that_both_find_their_key_taken(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.put(BUCKET, "k.fits", b"old")
        harness.server.script(DOWN)
        one, two = b"one" * 100, b"two" * 100
        await harness.annex.publish(b"the one that finds S3 well again", generator="image", key="first")
        for data in (one, two):
            await harness.annex.publish(data, generator="image", key="k.fits")
        # They look for a free key at the same time.
        harness.server.script(Fault("PutObject", ReceiveSlowly(1000)))
        assert await harness.annex.wait_stored(10)
        assert harness.object("k.fits") == b"old"
        assert {harness.object("k_r1.fits"), harness.object("k_r2.fits")} == {one, two}
        told = {(each["url"], each["checkSum"]) for each in harness.topic.written}
        for key in ("k_r1.fits", "k_r2.fits"):
            found = harness.object(key)
            assert found is not None
            assert (url(harness.server, key), hashlib.md5(found).hexdigest()) in told


async def test_a_taken_key_is_settled_before_the_event_where_s3_can_be_asked(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, upload_timeout=1) as harness:
        harness.server.put(BUCKET, KEY, b"old")
        harness.server.script(Fault("PutObject", Silence()))
        file = await harness.annex.publish(b"new", generator="image", date=DATE)
        second = url(harness.server, KEY.replace(".fits", "_r1.fits"))
        assert (file.stored, file.url) == (False, second)
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        assert [each["url"] for each in harness.topic.written] == [second]
        harness.check(1)


async def test_overwriting(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.put(BUCKET, "k", b"old")
        await harness.annex.publish(b"one", generator="image", key="k", if_exists="overwrite")
        assert harness.object("k") == b"one"
        harness.server.script(DOWN)
        await harness.annex.publish(b"two", generator="image", key="k", if_exists="overwrite")
        harness.server.script()
        await harness.annex.publish(b"three", generator="image", key="k", if_exists="overwrite")
        assert await harness.annex.wait_stored(10)
        assert harness.object("k") == b"three"
        assert {each["url"] for each in harness.topic.written} == {url(harness.server, "k")}


async def test_an_error_for_those_who_want_one(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.put(BUCKET, "k", b"old")
        with pytest.raises(FileExistsError, match="nothing was overwritten"):
            await harness.annex.publish(b"new", generator="image", key="k", if_exists="error")
        assert (await harness.annex.publish(b"old", generator="image", key="k", if_exists="error")).stored
        assert harness.object("k") == b"old"
        harness.check(1)
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="l", if_exists="error")
        with pytest.raises(FileExistsError, match="waits to be sent"):
            await harness.annex.publish(b"2", generator="image", key="l", if_exists="error")
        assert len(harness.files()) == 2


async def test_who_may_not_list_the_bucket_publishes_all_the_same(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(
            Fault("HeadObject", Status(403, "AccessDenied")), Fault("GetObject", Status(403, "AccessDenied"))
        )
        assert (await harness.annex.publish(b"new", generator="image", key="k")).stored


async def test_what_was_replaced_does_not_come_back(tmp_path: Path) -> None:
    """Where the oldest is refused by itself, and would be sent once more after the newest."""
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        for version in range(4):
            data = b"%d" % version * (5_000_000 if version == 2 else 10)
            await harness.annex.publish(data, generator="image", key="k.fits", id=f"{version}", if_exists="overwrite")
        await harness.annex.aclose()
        harness.server.script(Fault("PutObject", Status(413, "EntityTooLarge"), nth=1))
        harness.annex = harness.another()
        harness.annex._pace = replace(BRISK, rescan=0.2)
        assert await harness.annex.wait_stored(10)
        assert harness.object("k.fits") == b"3" * 10
        assert harness.topic.ids == ["0", "1", "2", "3"]
        assert harness.files() == []


async def test_a_taken_key_is_told_also_of_a_file_that_was_left_unannounced(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, b"old")
        harness.server.script(DOWN)
        harness.topic.failing = [ValueError("no broker")] * 50
        await harness.annex.publish(b"new", generator="image", date=DATE, id="1")
        await harness.annex.aclose()
        harness.topic.failing.clear()
        harness.server.script()
        harness.annex = harness.another()
        assert await harness.annex.wait_stored(10)
        assert harness.object(KEY.replace(".fits", "_r1.fits")) == b"new"
        assert harness.topic.written[-1]["url"] == url(harness.server, KEY.replace(".fits", "_r1.fits"))
        assert harness.files() == []
