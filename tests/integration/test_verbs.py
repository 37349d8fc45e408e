"""What is stored, parts of objects, copies, many deletions and folders, on real servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from astropy.io import fits

from lsst_lfa import Folder, TransferConfig, download_url, errors
from tests.integration.samples import sample
from tests.integration.web import fetch
from tests.unit.test_fits_ranges import many_hdus, to_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket, ObjectReader, S3Session
    from tests.integration.conftest import Service

MiB = 1024 * 1024
SIZES = pytest.mark.parametrize("size", [1000, 17 * MiB], ids=["one request", "parts"])
IN_PARTS = TransferConfig(copy_threshold=6 * MiB, copy_part_size=5 * MiB)
METADATA = {"observer": "Ängström", "long": "日本" * 50, "program": "night survey", "empty": "", "spaces": " a  b "}


@SIZES
async def test_what_was_stored_comes_back(service: Service, name: str, bucket: AsyncS3Bucket, size: int) -> None:
    await bucket.upload(sample(size), "a.fits", metadata=METADATA, extra_args={"CacheControl": "no-cache"})
    info = await bucket.head("a.fits")
    assert (info.content_type, info.size, info.storage_class) == ("application/fits", size, "STANDARD")
    assert info.metadata == METADATA
    assert service.client.head_object(Bucket=name, Key="a.fits")["CacheControl"] == "no-cache"
    await bucket.upload(b"text", "unknown")
    assert (await bucket.head("unknown")).content_type == "binary/octet-stream"


@SIZES
async def test_nothing_is_replaced(bucket: AsyncS3Bucket, size: int) -> None:
    await bucket.upload(sample(size), "once", if_none_match=True)
    with pytest.raises(errors.KeyExistsError):
        await bucket.upload(sample(size, 1), "once", if_none_match=True)
    assert (await bucket.download("once")).getvalue() == sample(size)


async def test_of_many_at_once_one_wins(bucket: AsyncS3Bucket) -> None:
    results = await asyncio.gather(
        *(bucket.upload(bytes([number]) * 1000, "race", if_none_match=True) for number in range(10)),
        return_exceptions=True,
    )
    won = [number for number, result in enumerate(results) if isinstance(result, str)]
    assert len(won) == 1
    assert all(isinstance(result, (str, errors.KeyExistsError)) for result in results)
    assert await bucket.read("race") == bytes(won) * 1000


async def test_parts(bucket: AsyncS3Bucket) -> None:
    data = sample(20 * MiB + 3)
    await bucket.upload(data, "data")
    for start, stop in ((0, 5), (MiB, 18 * MiB), (20 * MiB, None), (len(data), None), (len(data) + 5, None)):
        assert await bucket.read("data", start, stop) == data[start:stop]
    async with bucket.open("data") as reader:
        pieces = [piece async for piece in _pieces(reader)]
        assert b"".join(pieces) == data
        await reader.seek(-7, 2)
        assert await reader.read() == data[-7:]
        await bucket.upload(data[::-1], "data")
        with pytest.raises(errors.ObjectChangedError):
            await reader.read_range(5, 10)
    async with bucket.stream("data") as chunks:
        assert b"".join([chunk async for chunk in chunks]) == data[::-1]


async def _pieces(reader: ObjectReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(300_000):
        yield piece


async def test_fits_by_ranges(bucket: AsyncS3Bucket) -> None:
    hdulist = many_hdus()
    await bucket.upload(to_bytes(hdulist), "a.fits")
    headers = await bucket.fits_headers("a.fits")
    assert [header.get("EXTNAME") for header in headers[1:]] == [hdu.name for hdu in hdulist[1:]]
    part = await bucket.download_fits("a.fits", hdus=["WCS", 3])
    assert fits.HDUDiff(part[0], hdulist["WCS"]).identical
    assert part[1].name == "LONG"


@pytest.mark.parametrize("in_parts", [False, True])
async def test_copies(
    service: Service, session: S3Session, name: str, bucket: AsyncS3Bucket, *, in_parts: bool
) -> None:
    if in_parts:
        bucket = session.bucket(name, config=IN_PARTS)
    data = sample(12 * MiB)
    source = "source ü+?#.fits" if in_parts else "source ü+%41.fits"
    await bucket.upload(data, source, metadata=METADATA)
    await bucket.copy(source, "copy")
    assert (await bucket.download("copy")).getvalue() == data
    info = await bucket.head("copy")
    assert (info.content_type, info.metadata) == ("application/fits", METADATA)
    await bucket.copy("copy", "copy", metadata={"a": "b"})
    info = await bucket.head("copy")
    assert (info.content_type, info.metadata) == ("application/fits", {"a": "b"})
    other = service.make_bucket()
    try:
        await bucket.copy("copy", "back")
        with pytest.raises(errors.KeyNotFoundError):
            await bucket.copy("missing", "copy", source_bucket=other)
    finally:
        service.remove(other)


@pytest.mark.servers("ceph")
async def test_ceph_is_not_asked_to_copy_what_it_would_mistake(service: Service, session: S3Session, name: str) -> None:
    bucket = session.bucket(name, config=IN_PARTS)
    data = sample(7 * MiB)
    await bucket.upload(data, "%41")
    await bucket.upload(data[::-1], "A")
    with pytest.raises(errors.LfaError, match="Ceph"):
        await bucket.copy("%41", "copy")
    assert "copy" not in service.keys(name)


async def test_folders_are_listed_and_many_are_deleted(bucket: AsyncS3Bucket) -> None:
    keys = ["a", "d/b", "d/e/f", "z ü+&"]
    for key in keys:
        await bucket.upload(b"data", key)
    assert [(type(item) is Folder, item.key) async for item in bucket.list("", "/")] == [
        (False, "a"),
        (True, "d/"),
        (False, "z ü+&"),
    ]
    assert [item.key async for item in bucket.list("d/", "/")] == ["d/b", "d/e/"]
    assert await bucket.delete_many([*keys, "missing"]) == {}
    assert [item.key async for item in bucket.list()] == []


async def test_folders_go_up_and_down(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    files = {"a.txt": b"text", "deep/ü x": b"", "deep/large": sample(17 * MiB)}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    assert (await bucket.upload_folder(source, "f")).transferred == 3
    assert (await bucket.upload_folder(source, "f")).skipped == 3
    assert (await bucket.download_folder("f", there)).transferred == 3
    assert (await bucket.download_folder("f", there)).skipped == 3
    assert {name: (there / name).read_bytes() for name in files} == files


@pytest.mark.servers("moto", "ceph")
async def test_what_is_public_is_read_without_credentials(service: Service, bucket: AsyncS3Bucket) -> None:
    url = await bucket.upload(b"data", "public.fits", extra_args={"ACL": "public-read"})
    session = service.session(access_key_id=None, secret_access_key=None, anonymous=True)
    async with session:
        assert await session.bucket(bucket.name).read("public.fits") == b"data"
    assert (await download_url(url, verify=service.server.ca_file)).getvalue() == b"data"
    assert await fetch(url, service.server.ca_file) == (200, b"data")


@pytest.mark.servers("ceph")
async def test_what_is_private_is_not_read_without_credentials(service: Service, bucket: AsyncS3Bucket) -> None:
    url = await bucket.upload(b"data", "private.fits")
    with pytest.raises(errors.AccessDeniedError):
        await download_url(url, verify=service.server.ca_file)
