"""Publishing while S3 or the disk misbehaves: nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import io
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import LargeFileAnnex, S3Session, Spool, TransferConfig, errors

from . import Close, Fault, ReceiveSlowly, Reset, Silence
from .annex_harness import DOWN, HANGS, Topic, open_annex_harness, sources, until
from .harness import BUCKET, LARGE, MiB

if TYPE_CHECKING:
    from pathlib import Path


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
    async with open_annex_harness(tmp_path, upload_timeout=0.3) as harness:
        harness.server.script(fault)
        began = time.monotonic()
        file = await harness.annex.publish(data, generator="image", key="k.fits", id="1")
        assert time.monotonic() - began < 1.6
        assert not file.stored
        assert isinstance(file.error, errors.LfaError)
        assert file.path is not None
        assert file.path.read_bytes() == data
        assert harness.topic.written == [file.event_fields()]
        assert harness.stored == []
        assert not await harness.annex.wait_stored(0.05)
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(1)
        assert [(each.key, each.stored, each.path) for each in harness.stored] == [("k.fits", True, None)]


@pytest.mark.parametrize(
    "fault",
    [DOWN, HANGS, Fault("UploadPart", Silence()), Fault("UploadPart", Reset(request_byte=100_000))],
    ids=["refuses", "hangs", "hangs in mid-upload", "dies in mid-upload"],
)
async def test_what_is_kept_on_disk_is_not_kept_in_memory(tmp_path: Path, fault: Fault) -> None:
    """Not even until the garbage collector comes by."""
    data = os.urandom(len(LARGE))
    async with open_annex_harness(tmp_path, upload_timeout=0.3) as harness:
        harness.server.script(fault)
        gc.disable()
        try:
            references = sys.getrefcount(data)
            await harness.annex.publish(data, generator="image", key="k.fits")
            await until(lambda: sys.getrefcount(data) == references)
        finally:
            gc.enable()
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(1)


async def test_an_upload_whose_response_is_lost(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, upload_timeout=0.3) as harness:
        harness.server.script(Fault("PutObject", Silence(carry_out=True)))
        file = await harness.annex.publish(b"data", generator="image", key="k")
        assert not file.stored
        harness.server.script()
        harness.server.seen.clear()
        assert await harness.annex.wait_stored(10)
        harness.check(1)
        assert harness.server.calls("PutObject") == [], "it is there"


async def test_without_a_spool_nothing_is_kept(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, spool=None) as harness:
        harness.server.script(DOWN)
        source = io.BytesIO(b"data")
        with pytest.raises(errors.NotStoredError, match=r"503.*no spool, so nothing was kept") as caught:
            await harness.annex.publish(source, generator="image")
        assert caught.value.transient
        assert isinstance(caught.value.__cause__, errors.UnavailableError)
        assert harness.topic.written == []
        harness.server.script()
        assert (await harness.annex.publish(source, generator="image")).byte_size == 4, "it is still there to be read"


async def test_without_a_spool_a_slow_upload_may_take_its_time(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path, spool=None, upload_timeout=0.1) as harness:
        harness.server.script(Fault("PutObject", ReceiveSlowly(500_000)))
        assert (await harness.annex.publish(bytes(200_000), generator="image")).stored


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
    async with open_annex_harness(tmp_path, upload_timeout=0.05) as harness:
        with caplog.at_level(logging.WARNING):
            for kind, source in given.items():
                file = await harness.annex.publish(source, generator="image", key=kind)
                assert file.stored
                assert file.check_sum == hashlib.md5(LARGE).hexdigest()
                assert harness.object(kind) == LARGE
        harness.check(len(given))
    given["file"].close()
    (warning,) = (record.message for record in caplog.records if "files go to S3 directly" in record.message)
    assert "No space left on device" in warning


async def test_a_full_disk_and_no_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sources(tmp_path)
    del given["path"]
    fill(monkeypatch, 4 * MiB)
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        for source in given.values():
            async with asyncio.timeout(5):
                with pytest.raises(errors.NotStoredError, match=r"503.*No space left on device"):
                    await harness.annex.publish(source, generator="image", key="k")
        assert harness.topic.written == []
        assert harness.files() == []
        assert given["file"].tell() == 0
    given["file"].close()


async def test_a_spool_that_may_take_no_more(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        harness.annex = harness.another(spool=Spool(harness.folder, max_bytes=10))
        harness.server.script(DOWN)
        await harness.annex.publish(b"8 bytes.", generator="image", key="k")
        with pytest.raises(errors.NotStoredError, match="8 of at most 10 bytes"):
            await harness.annex.publish(b"8 bytes!", generator="image", key="l")
        harness.server.script()
        await harness.annex.publish(b"8 bytes?", generator="image", key="m")
        assert await harness.annex.wait_stored(10)
        await harness.annex.publish(b"8 bytes!", generator="image", key="l")
        harness.check(3)


async def test_a_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    async with open_annex_harness(tmp_path) as harness:
        harness.annex = harness.another(spool=tmp_path / "file" / "spool")
        assert (await harness.annex.publish(b"data", generator="image", key="k")).stored
        harness.server.script(DOWN)
        with pytest.raises(errors.NotStoredError, match=r"503.*Not a directory"):
            await harness.annex.publish(b"data", generator="image", key="l")


# The loop


async def test_forty_frames_at_once_while_s3_dies(tmp_path: Path) -> None:
    frame = os.urandom(MiB // 4)
    async with open_annex_harness(tmp_path, upload_timeout=3) as harness:
        harness.server.script(Fault("*", Reset(), nth=30, times=10_000))
        await asyncio.gather(
            *(harness.annex.publish(frame + b"%d" % n, generator="image", key=f"{n}", id=f"{n}") for n in range(40))
        )
        assert harness.topic.ids == [f"{n}" for n in range(40)]
        harness.server.script()
        assert await harness.annex.wait_stored(20)
        harness.check(40)


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
