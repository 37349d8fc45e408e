"""Publishing: what is published, under which key, from which source."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import AsyncS3Bucket, LargeFile, LargeFileAnnex, errors, salobj

from . import Fault, Hook
from .annex_harness import DATE, DOWN, HANGS, KEY, Topic, chunks, large_file_on_disk, open_annex_harness, sources, url
from .harness import BUCKET, LARGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


SPOOLED: dict[str, Any] = {}
UNSPOOLED: dict[str, Any] = {"spool": None}


async def test_all_is_well(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        file = await harness.annex.publish(b"data", generator="image", date=DATE, id="GC1_1", version=1.5)
        assert file == LargeFile(
            bucket=BUCKET,
            key=KEY,
            url=url(harness.server),
            generator="GC:1",
            version=1.5,
            byte_size=4,
            check_sum=hashlib.md5(b"data").hexdigest(),
            mime_type="application/fits",
            id="GC1_1",
            stored=True,
        )
        assert harness.topic.written == [file.event_fields()]
        assert harness.stored == [file]
        assert harness.object(KEY) == b"data"
        assert harness.files() == []
        assert await harness.annex.wait_stored(0)


@pytest.mark.parametrize("spooled", [True, False])
async def test_sources(tmp_path: Path, spooled: bool) -> None:
    given = sources(tmp_path)
    async with open_annex_harness(tmp_path, **(SPOOLED if spooled else UNSPOOLED)) as harness:
        for kind, source in given.items():
            file = await harness.annex.publish(source, generator="image", key=kind)
            assert file.stored
            assert (file.byte_size, file.check_sum) == (len(LARGE), hashlib.md5(LARGE).hexdigest())
            assert harness.object(kind) == LARGE
            assert harness.files() == []
        assert given["BytesIO"].read() == given["file"].read() == b""
    given["file"].close()


async def test_sources_while_s3_hangs(tmp_path: Path) -> None:
    given = sources(tmp_path)
    async with open_annex_harness(tmp_path, upload_timeout=1) as harness:
        harness.server.script(HANGS)
        files = await asyncio.gather(
            *(harness.annex.publish(source, generator="image", key=kind) for kind, source in given.items())
        )
        for file in files:
            assert not file.stored
            assert file.path is not None
            assert file.path.read_bytes() == LARGE
            assert file.path.samefile(given["path"]) == (file.key == "path")
        given["bytearray"].clear()  # it is its owner's again
        given["path"].unlink()
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        harness.check(len(given))
    given["file"].close()


async def test_a_path_on_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large_file_on_disk(tmp_path)
    real = os.link

    def link(source: Any, target: Any, **options: Any) -> None:
        if source == path:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        file = await harness.annex.publish(path, generator="image", key="k")
        assert file.path is not None
        assert not file.path.samefile(path)
        assert file.path.read_bytes() == LARGE


async def test_hdu_lists(tmp_path: Path) -> None:
    from astropy.io import fits

    hdulist = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU([[1, 2], [3, 4]])])
    async with open_annex_harness(tmp_path) as harness:
        await harness.annex.publish(hdulist, generator="image", key="k.fits")
        stored = harness.object("k.fits")
    assert stored is not None
    with fits.open(io.BytesIO(stored)) as found:
        assert found[1].data.tolist() == [[1, 2], [3, 4]]


async def test_a_path_that_changes_meanwhile(tmp_path: Path) -> None:
    path = large_file_on_disk(tmp_path)
    async with open_annex_harness(tmp_path, spool=None) as harness:
        harness.server.script(Fault("CreateMultipartUpload", Hook(before=lambda _: path.write_bytes(b"other"))))
        with pytest.raises(errors.SourceChangedError, match="changed while"):
            await harness.annex.publish(path, generator="image", key="k")
        assert harness.topic.written == []


@pytest.mark.parametrize("spooled", [True, False])
async def test_what_a_source_raises_comes_through(tmp_path: Path, spooled: bool) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"data"
        raise OSError(errno.EIO, "the camera's own")

    async with open_annex_harness(tmp_path, **(SPOOLED if spooled else UNSPOOLED)) as harness:
        with pytest.raises(OSError, match="the camera's own"):
            await harness.annex.publish(failing(), generator="image")
        with pytest.raises(FileNotFoundError):
            await harness.annex.publish(tmp_path / "no-such-file", generator="image")
        with pytest.raises(TypeError, match="text mode"):
            await harness.annex.publish(io.StringIO("text"), generator="image")
        await harness.annex.publish(b"good", generator="image", id="good")
        assert harness.topic.ids == ["good"]
        assert harness.files() == []
        assert len(harness.stored) == 1


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
    async with open_annex_harness(tmp_path) as harness:
        with pytest.raises(error):
            await harness.annex.publish(chunks(), **{"generator": "image", **wrong})
        assert harness.topic.written == []
        assert harness.server.seen == []


async def test_files_that_are_published_together_begin_one_by_one(tmp_path: Path) -> None:
    """In one turn of the loop each: they would all begin in the same one."""
    async with open_annex_harness(tmp_path, **UNSPOOLED) as harness:
        await harness.annex.start()
        given: list[Any] = [object()] * 100
        tasks = [
            asyncio.ensure_future(harness.annex.publish(source, generator="image", key=f"{number}"))
            for number, source in enumerate(given)
        ]
        for _ in range(20):
            await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) < 20
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {TypeError}


def test_wrong_options(tmp_path: Path) -> None:
    bucket = AsyncS3Bucket("b")
    for options in ({"upload_timeout": 0}, {"announce": "never"}, {"salname": ""}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LargeFileAnnex(**{"bucket": bucket, "salname": "GC", **options})  # type: ignore[arg-type]


async def test_keys_and_generators(tmp_path: Path) -> None:
    async with open_annex_harness(tmp_path) as harness:
        file = await harness.annex.publish(b"1", generator="image", stem="GC1_image_1", suffix=".yaml", date=DATE)
        assert file.key == "GC:1/image/2026/01/31/GC1_image_1.yaml"
        file = await harness.annex.publish(b"2", generator="image", other="raw", date=DATE, event_generator="dimm")
        assert file.key == "GC:1/image/2026/01/31/GC:1_image_raw.fits"
        assert file.generator == "dimm"
        file = await harness.annex.publish(b"3", generator="image", key="a/b.png", mime_type="image/x")
        assert (file.key, file.mime_type) == ("a/b.png", "image/x")
    plain = LargeFileAnnex(AsyncS3Bucket("b"), "ATPtg")
    assert plain.component == "ATPtg"
    assert repr(plain) == "LargeFileAnnex(AsyncS3Bucket('b', endpoint_url=None), 'ATPtg', spool=None)"


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
