"""Publishing while S3 misbehaves: nothing is lost, and the events are right."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import AsyncS3Bucket, LargeFile, LargeFileAnnex, S3Session, Spool, TransferConfig, errors, salobj
from lsst_lfa._spool.record import parse_sidecar

from . import Close, Fault, Hook, ReceiveSlowly, Reset, Silence, Status
from .annex_harness import QUICK, Topic, play
from .harness import BUCKET, LARGE, MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .server import FaultyS3Server

DOWN = Fault("*", Status(503, "SlowDown"))
SPOOLED: dict[str, Any] = {}
UNSPOOLED: dict[str, Any] = {"spool": None}
HANGS = Fault("*", Silence())
DATE = "2026-02-01T03:04:05"
KEY = "GC:1/image/2026/01/31/GC:1_image_2026-02-01T03:04:05.000.fits"


def url(server: FaultyS3Server, key: str = KEY) -> str:
    return f"{server.endpoint_url}/{BUCKET}/{key}"


# What is published


async def test_all_is_well(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        file = await it.annex.publish(b"data", generator="image", date=DATE, id="GC1_1", version=1.5)
        assert file == LargeFile(
            bucket=BUCKET,
            key=KEY,
            url=url(it.server),
            generator="GC:1",
            version=1.5,
            byte_size=4,
            check_sum=hashlib.md5(b"data").hexdigest(),
            mime_type="application/fits",
            id="GC1_1",
            stored=True,
        )
        assert it.topic.written == [file.event_fields()]
        assert it.stored == [file]
        assert it.object(KEY) == b"data"
        assert it.files() == []
        assert await it.annex.wait_stored(0)


async def chunks() -> AsyncIterator[memoryview]:
    buffer = bytearray(200_000)
    for start in range(0, len(LARGE), len(buffer)):
        piece = LARGE[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def large_file_on_disk(folder: Path) -> Path:
    path = folder / "source.fits"
    path.write_bytes(LARGE)
    return path


def sources(folder: Path) -> dict[str, Any]:
    path = large_file_on_disk(folder)
    in_the_middle = io.BytesIO(b"before" + LARGE)
    in_the_middle.seek(6)
    return {
        "bytes": LARGE,
        "bytearray": bytearray(LARGE),
        "BytesIO": in_the_middle,
        "path": path,
        "file": path.open("rb"),
        "iterator": chunks(),
    }


@pytest.mark.parametrize("spooled", [True, False])
async def test_sources(tmp_path: Path, spooled: bool) -> None:
    given = sources(tmp_path)
    async with play(tmp_path, **(SPOOLED if spooled else UNSPOOLED)) as it:
        for kind, source in given.items():
            file = await it.annex.publish(source, generator="image", key=kind)
            assert file.stored
            assert (file.byte_size, file.check_sum) == (len(LARGE), hashlib.md5(LARGE).hexdigest())
            assert it.object(kind) == LARGE
            assert it.files() == []
        assert given["BytesIO"].read() == given["file"].read() == b""
    given["file"].close()


async def test_sources_while_s3_hangs(tmp_path: Path) -> None:
    given = sources(tmp_path)
    async with play(tmp_path, upload_timeout=1) as it:
        it.server.script(HANGS)
        files = await asyncio.gather(
            *(it.annex.publish(source, generator="image", key=kind) for kind, source in given.items())
        )
        for file in files:
            assert not file.stored
            assert file.path is not None
            assert file.path.read_bytes() == LARGE
            assert file.path.samefile(given["path"]) == (file.key == "path")
        given["bytearray"].clear()  # it is its owner's again
        given["path"].unlink()
        it.server.script()
        assert await it.annex.wait_stored(10)
        it.check(len(given))
    given["file"].close()


async def test_a_path_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large_file_on_disk(tmp_path)
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        if source == path:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        file = await it.annex.publish(path, generator="image", key="k")
        assert file.path is not None
        assert not file.path.samefile(path)
        assert file.path.read_bytes() == LARGE


async def test_hdu_lists(tmp_path: Path) -> None:
    from astropy.io import fits

    hdulist = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU([[1, 2], [3, 4]])])
    async with play(tmp_path) as it:
        await it.annex.publish(hdulist, generator="image", key="k.fits")
        stored = it.object("k.fits")
    assert stored is not None
    with fits.open(io.BytesIO(stored)) as found:
        assert found[1].data.tolist() == [[1, 2], [3, 4]]


async def test_a_path_that_changes_meanwhile(tmp_path: Path) -> None:
    path = large_file_on_disk(tmp_path)
    async with play(tmp_path, spool=None) as it:
        it.server.script(Fault("CreateMultipartUpload", Hook(before=lambda _: path.write_bytes(b"other"))))
        with pytest.raises(errors.SourceChangedError, match="changed while"):
            await it.annex.publish(path, generator="image", key="k")
        assert it.topic.written == []


@pytest.mark.parametrize("spooled", [True, False])
async def test_what_a_source_raises_comes_through(tmp_path: Path, spooled: bool) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"data"
        raise OSError(errno.EIO, "the camera's own")

    async with play(tmp_path, **(SPOOLED if spooled else UNSPOOLED)) as it:
        with pytest.raises(OSError, match="the camera's own"):
            await it.annex.publish(failing(), generator="image")
        with pytest.raises(FileNotFoundError):
            await it.annex.publish(tmp_path / "no-such-file", generator="image")
        with pytest.raises(TypeError, match="text mode"):
            await it.annex.publish(io.StringIO("text"), generator="image")
        await it.annex.publish(b"good", generator="image", id="good")
        assert it.topic.ids == ["good"]
        assert it.files() == []
        assert len(it.stored) == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"generator": ""}, ValueError),
        ({"key": "../k"}, ValueError),
        ({"version": float("nan")}, ValueError),
        ({"if_exists": "maybe"}, ValueError),
        ({"id": None}, TypeError),
        ({"date": "yesterday"}, ValueError),
    ],
)
async def test_wrong_arguments_read_nothing(tmp_path: Path, wrong: dict[str, Any], error: type[Exception]) -> None:
    async with play(tmp_path) as it:
        with pytest.raises(error):
            await it.annex.publish(chunks(), **{"generator": "image", **wrong})
        assert it.topic.written == []
        assert it.server.seen == []


def test_wrong_options(tmp_path: Path) -> None:
    bucket = AsyncS3Bucket("b")
    for options in ({"upload_timeout": 0}, {"announce": "never"}, {"salname": ""}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LargeFileAnnex(**{"bucket": bucket, "salname": "GC", **options})  # type: ignore[arg-type]


async def test_keys_and_generators(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        file = await it.annex.publish(b"1", generator="image", stem="GC1_image_1", suffix=".yaml", date=DATE)
        assert file.key == "GC:1/image/2026/01/31/GC1_image_1.yaml"
        file = await it.annex.publish(b"2", generator="image", other="raw", date=DATE, event_generator="dimm")
        assert file.key == "GC:1/image/2026/01/31/GC:1_image_raw.fits"
        assert file.generator == "dimm"
        file = await it.annex.publish(b"3", generator="image", key="a/b.png", mime_type="image/x")
        assert (file.key, file.mime_type) == ("a/b.png", "image/x")
    plain = LargeFileAnnex(AsyncS3Bucket("b"), "ATPtg")
    assert plain.component == "ATPtg"
    assert repr(plain) == "LargeFileAnnex(AsyncS3Bucket('b', endpoint_url=None), 'ATPtg', spool=None)"


# S3 fails


@pytest.mark.parametrize(
    "fault",
    [
        DOWN,
        HANGS,
        Fault("*", Reset()),
        Fault("PutObject", Close(request_byte=100)),
        Fault("PutObject", ReceiveSlowly(1000)),
    ],
    ids=["refuses", "hangs", "dies", "dies in mid-body", "crawls"],
)
async def test_s3_is_away_and_comes_back(tmp_path: Path, fault: Fault) -> None:
    data = os.urandom(300_000)
    async with play(tmp_path, upload_timeout=0.3) as it:
        it.server.script(fault)
        began = time.monotonic()
        file = await it.annex.publish(data, generator="image", key="k.fits", id="1")
        assert time.monotonic() - began < 1.6
        assert not file.stored
        assert isinstance(file.error, errors.LfaError)
        assert file.path is not None
        assert file.path.read_bytes() == data
        assert it.topic.written == [file.event_fields()]
        assert it.stored == []
        assert not await it.annex.wait_stored(0.05)
        it.server.script()
        assert await it.annex.wait_stored(10)
        it.check(1)
        assert [(each.key, each.stored, each.path) for each in it.stored] == [("k.fits", True, None)]


async def test_an_upload_whose_response_is_lost(tmp_path: Path) -> None:
    async with play(tmp_path, upload_timeout=0.3) as it:
        it.server.script(Fault("PutObject", Silence(carry_out=True)))
        file = await it.annex.publish(b"data", generator="image", key="k")
        assert not file.stored
        it.server.script()
        it.server.seen.clear()
        assert await it.annex.wait_stored(10)
        it.check(1)
        assert it.server.calls("PutObject") == [], "it is there"


async def test_without_a_spool_nothing_is_kept(tmp_path: Path) -> None:
    async with play(tmp_path, spool=None) as it:
        it.server.script(DOWN)
        source = io.BytesIO(b"data")
        with pytest.raises(errors.NotStoredError, match=r"503.*no spool, so nothing was kept") as caught:
            await it.annex.publish(source, generator="image")
        assert caught.value.transient
        assert isinstance(caught.value.__cause__, errors.UnavailableError)
        assert it.topic.written == []
        it.server.script()
        assert (await it.annex.publish(source, generator="image")).byte_size == 4, "it is still there to be read"


async def test_without_a_spool_a_slow_upload_may_take_its_time(tmp_path: Path) -> None:
    async with play(tmp_path, spool=None, upload_timeout=0.1) as it:
        it.server.script(Fault("PutObject", ReceiveSlowly(500_000)))
        assert (await it.annex.publish(bytes(200_000), generator="image")).stored


# The disk fails


def fill(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the disk be full after so many bytes."""
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, position: int) -> int:
        if position + len(data) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, position)

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.parametrize("after", [0, 4 * MiB])
async def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, after: int
) -> None:
    given = sources(tmp_path)
    del given["path"]  # a link takes no room
    fill(monkeypatch, after)
    async with play(tmp_path, upload_timeout=0.05) as it:
        with caplog.at_level(logging.WARNING):
            for kind, source in given.items():
                file = await it.annex.publish(source, generator="image", key=kind)
                assert file.stored
                assert file.check_sum == hashlib.md5(LARGE).hexdigest()
                assert it.object(kind) == LARGE
        it.check(len(given))
    given["file"].close()
    (warning,) = (record.message for record in caplog.records if "files go to S3 directly" in record.message)
    assert "No space left on device" in warning


async def test_a_full_disk_and_no_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sources(tmp_path)
    del given["path"]
    fill(monkeypatch, 4 * MiB)
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        for source in given.values():
            async with asyncio.timeout(5):
                with pytest.raises(errors.NotStoredError, match=r"503.*No space left on device"):
                    await it.annex.publish(source, generator="image", key="k")
        assert it.topic.written == []
        assert it.files() == []
        assert given["file"].tell() == 0
    given["file"].close()


async def test_a_spool_that_may_take_no_more(tmp_path: Path) -> None:
    async with play(tmp_path) as it:
        it.annex = it.another(spool=Spool(it.folder, max_bytes=10))
        it.server.script(DOWN)
        await it.annex.publish(b"8 bytes.", generator="image", key="k")
        with pytest.raises(errors.NotStoredError, match="8 of at most 10 bytes"):
            await it.annex.publish(b"8 bytes!", generator="image", key="l")
        it.server.script()
        await it.annex.publish(b"8 bytes?", generator="image", key="m")
        assert await it.annex.wait_stored(10)
        await it.annex.publish(b"8 bytes!", generator="image", key="l")
        it.check(3)


async def test_a_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    async with play(tmp_path) as it:
        it.annex = it.another(spool=tmp_path / "file" / "spool")
        assert (await it.annex.publish(b"data", generator="image", key="k")).stored
        it.server.script(DOWN)
        with pytest.raises(errors.NotStoredError, match=r"503.*Not a directory"):
            await it.annex.publish(b"data", generator="image", key="l")


# Events


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
        assert "given up" in caplog.text
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
            async with asyncio.timeout(10):
                while len(it.stored) < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
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


# The same key


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


# The background


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
        async with asyncio.timeout(10):
            while queue._failures == 0:
                await asyncio.sleep(0.01)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, code: str
) -> None:
    monkeypatch.setattr("lsst_lfa.annex._decisions._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("lsst_lfa.annex._decisions._LONGEST_PAUSE", 0.05)
    async with play(tmp_path) as it:
        it.server.script(Fault("PutObject", Status(status, code)))
        with caplog.at_level(logging.WARNING):
            for name in ("1", "2"):
                assert not (await it.annex.publish(name.encode(), generator="image", key=name)).stored
            async with asyncio.timeout(10):
                while len(it.server.calls("PutObject")) < 8:
                    await asyncio.sleep(0.01)
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
        async with asyncio.timeout(10):
            while it.object("2") is None:
                await asyncio.sleep(0.01)
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
        with pytest.raises(ValueError, match="no spool"):
            await it.another(spool=None).adopt()


async def test_the_clock_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with play(tmp_path) as it:
        it.server.script(DOWN)
        await it.annex.publish(b"1", generator="image", key="1")
        await it.annex.aclose()
        monkeypatch.setattr(time, "time_ns", lambda: 1)
        it.annex = it.another()
        await it.annex.publish(b"2", generator="image", key="2")
        one, two = (parse_sidecar((it.folder / name).read_bytes()) for name in it.files() if name.endswith("jsonl"))
        assert one.key == "1"
        assert one.sequence < two.sequence


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


# Buckets and sites


@pytest.mark.parametrize("kind", [AsyncS3Bucket, salobj.AsyncS3Bucket])
async def test_both_kinds_of_buckets(tmp_path: Path, kind: type[AsyncS3Bucket]) -> None:
    topic = Topic()
    bucket = kind("rubinobs-lfa-test", domock=True)
    async with LargeFileAnnex(bucket, "GC", 1, event=topic, spool=tmp_path) as annex:
        file = await annex.publish(b"data", generator="image")
        assert topic.written == [file.event_fields()]
        assert (await bucket.download(file.key)).getvalue() == b"data"
    await bucket.aclose()


async def test_the_annex_of_a_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("S3_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("LSST_SITE", "test")
    with pytest.raises(errors.ConfigurationError, match="domock=True"):
        LargeFileAnnex.for_site("GC", 1)
    annex = LargeFileAnnex.for_site("GC", 1, domock=True, spool=tmp_path, upload_timeout=5)
    for _ in range(2):
        file = await annex.publish(b"data", generator="image")
        assert file.stored
        assert "/rubinobs-lfa-test/GC:1/image/" in file.url
        await annex.aclose()
    real = LargeFileAnnex.for_site("GC", 1, site="tucson")
    assert real.bucket.url("k") == "https://s3.tu.lsst.org/rubinobs-lfa-tuc/k"
    await real.aclose()
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://elsewhere")
    with pytest.raises(errors.ConfigurationError, match="http://elsewhere"):
        LargeFileAnnex.for_site("GC", 1, site="tucson")


# The loop


async def test_forty_frames_at_once_while_s3_dies(tmp_path: Path) -> None:
    frame = os.urandom(MiB // 4)
    async with play(tmp_path, upload_timeout=3) as it:
        it.server.script(Fault("*", Reset(), nth=30, times=10_000))
        await asyncio.gather(
            *(it.annex.publish(frame + b"%d" % n, generator="image", key=f"{n}", id=f"{n}") for n in range(40))
        )
        assert it.topic.ids == [f"{n}" for n in range(40)]
        it.server.script()
        assert await it.annex.wait_stored(20)
        it.check(40)


async def test_an_impatient_session(tmp_path: Path) -> None:
    """A bucket that gives up before the annex does."""
    session = S3Session(
        endpoint_url="http://127.0.0.1:9",
        access_key_id="id",
        secret_access_key="secret",
        config=TransferConfig(max_attempts=1),
    )
    topic = Topic()
    async with session, LargeFileAnnex(session.bucket(BUCKET), "GC", event=topic, spool=tmp_path) as annex:
        began = time.monotonic()
        file = await annex.publish(b"data", generator="image")
        assert time.monotonic() - began < 2
        assert isinstance(file.error, errors.UnreachableError)
        assert topic.written == [file.event_fields()]
