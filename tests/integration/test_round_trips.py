"""Uploaded data come back byte for byte, by every operation."""

from __future__ import annotations

import asyncio
import hashlib
import io
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiofiles
import numpy as np
import pytest
from astropy.io import fits

from lsst_lfa import AsyncS3Bucket, TransferConfig
from tests.integration.samples import MiB, sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lsst_lfa import S3Session
    from tests.integration.conftest import Service

# What only these can do, or the mock takes too long for.
REAL = pytest.mark.servers("seaweedfs", "ceph")
PART = TransferConfig().part_size
KEY = "Test:1/2020/04/01/Test:1-image-2020-04-01T12:00:00.000.fits"


@pytest.mark.parametrize("size", [0, 1, 70_000, PART, PART + 1, 2 * PART + MiB, pytest.param(200 * MiB, marks=REAL)])
async def test_every_size(service: Service, name: str, bucket: AsyncS3Bucket, tmp_path: Path, size: int) -> None:
    data = sample(size)
    sent: list[int] = []
    received: list[int] = []
    assert not await bucket.exists(KEY)
    began = datetime.now(UTC)

    url = await bucket.upload(io.BytesIO(data), KEY, sent.append)

    assert url == bucket.url(KEY) == f"{service.endpoint_url}/{name}/{KEY}"
    assert sum(sent) == size
    assert all(sent) or sent == [0]
    assert await bucket.exists(KEY)
    assert await bucket.size(KEY) == size
    head = await bucket.head(KEY)
    assert head.key == KEY
    assert abs(head.last_modified - began) < timedelta(minutes=5)
    listed = [item async for item in bucket.list()]
    assert [(item.key, item.size, item.etag) for item in listed] == [(KEY, size, head.etag)]

    result = await bucket.download(KEY, received.append)
    assert result.tell() == 0
    assert result.getvalue() == data
    assert sum(received) == size
    position = 0
    async with aclosing(bucket.stream(KEY)) as chunks:
        async for chunk in chunks:
            assert chunk == data[position : position + len(chunk)]
            position += len(chunk)
    assert position == size
    path = await bucket.download_file(KEY, tmp_path / "file")
    assert path.read_bytes() == data
    assert [each.name for each in tmp_path.iterdir()] == ["file"]

    await bucket.delete(KEY)
    await bucket.delete(KEY)
    assert not await bucket.exists(KEY)
    assert service.keys(name) == []


@pytest.mark.parametrize("size", [70_000, 20 * MiB])
async def test_others_read_it(service: Service, name: str, bucket: AsyncS3Bucket, size: int) -> None:
    data = sample(size)
    await bucket.upload(data, KEY)
    assert service.content(name, KEY) == data
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert (await bucket.head(KEY)).etag == digest or size > PART


@pytest.mark.parametrize("size", [0, 70_000, 20 * MiB])
async def test_reads_what_others_wrote(service: Service, name: str, session: S3Session, size: int) -> None:
    data = sample(size)
    service.client.put_object(Bucket=name, Key=KEY, Body=data)
    bucket = session.bucket(name, config=TransferConfig(verify_etag=True))
    assert (await bucket.download(KEY)).getvalue() == data


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 300_000):
        yield data[start : start + 300_000]


async def test_every_source(service: Service, name: str, bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    data = sample(20 * MiB)
    path = tmp_path / "file"
    path.write_bytes(b"head" + data)
    with path.open("rb") as file:
        file.seek(4)
        await bucket.upload(file, "file")
        assert not file.closed
    async with aiofiles.open(path, "rb") as file:
        await file.seek(4)
        await bucket.upload(file, "aiofiles")
    whole = io.BytesIO(b"head" + data)
    whole.seek(4)
    await bucket.upload(whole, "BytesIO")
    await bucket.upload(_pieces(data), "iterator")
    await bucket.upload(bytearray(data), "bytearray")
    for key in service.keys(name):
        assert service.content(name, key) == data, key
    assert len(service.keys(name)) == 5
    await bucket.upload(path, "path")
    assert service.content(name, "path") == b"head" + data


async def test_verified_downloads(name: str, session: S3Session) -> None:
    data = sample(20 * MiB)
    for config in (
        TransferConfig(verify_etag=True),
        TransferConfig(verify_etag=True, part_size=5 * MiB, multipart_threshold=0),
    ):
        bucket = session.bucket(name, config=config)
        await bucket.upload(data, KEY)
        assert (await bucket.download(KEY)).getvalue() == data


@pytest.mark.parametrize("integrity", ["sha256", "md5"])
async def test_each_protection(name: str, session: S3Session, integrity: Any) -> None:
    bucket = session.bucket(name, config=TransferConfig(integrity=integrity))
    for size in (0, 70_000, 20 * MiB):
        await bucket.upload(sample(size), KEY)
        assert (await bucket.download(KEY)).getvalue() == sample(size)


async def test_replaces(bucket: AsyncS3Bucket) -> None:
    for number in range(3):
        await bucket.upload(sample(20 * MiB, number), KEY)
        assert (await bucket.download(KEY)).getvalue() == sample(20 * MiB, number)


async def test_many_at_once(service: Service, name: str, bucket: AsyncS3Bucket) -> None:
    keys = [f"many/{number:02d}" for number in range(40)]
    await asyncio.gather(*(bucket.upload(sample(50_000, number), key) for number, key in enumerate(keys)))
    results = await asyncio.gather(*(bucket.download(key) for key in keys))
    for number, result in enumerate(results):
        assert result.getvalue() == sample(50_000, number)
    assert [item.key async for item in bucket.list("many/1")] == keys[10:20]
    assert service.keys(name) == keys


@REAL
@pytest.mark.schemes("http")
async def test_list_of_many_pages(service: Service, name: str, bucket: AsyncS3Bucket) -> None:
    keys = [f"page/{number:04d} +&" for number in range(1010)]
    await asyncio.gather(*(bucket.upload(b"1", key) for key in keys))
    assert [item.key async for item in bucket.list("page/")] == keys
    # boto3's DeleteObjects, which needs a digest.
    await asyncio.to_thread(bucket.bucket.objects.all().delete)
    assert [item async for item in bucket.list()] == []


async def test_fits(bucket: AsyncS3Bucket) -> None:
    pixels = np.arange(1500 * 1500, dtype=np.int32).reshape(1500, 1500)
    table = np.array([(1, 2.5, b"a"), (2, -1.0, b"b")], dtype=[("i", "i4"), ("f", "f8"), ("s", "S3")])
    hdulist = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels, name="IMAGE"), fits.BinTableHDU(table)])
    hdulist[0].header["OBSERVER"] = "test"
    await bucket.upload_fits(hdulist, KEY)
    back = await bucket.download_fits(KEY)
    assert back[0].header["OBSERVER"] == "test"
    np.testing.assert_array_equal(back["IMAGE"].data, pixels)
    np.testing.assert_array_equal(np.asarray(back[2].data["f"]), table["f"])


async def test_as_a_component_does(service: Service, name: str, environment: None) -> None:
    bucket = AsyncS3Bucket(name)
    url = await bucket.upload(io.BytesIO(sample(1000)), KEY)
    assert url == f"{service.endpoint_url}/{name}/{KEY}"
    assert (await bucket.download(KEY)).getvalue() == sample(1000)
    assert bucket.service_resource.meta.client.meta.endpoint_url == service.endpoint_url
    bucket.service_resource.meta.client.close()
    await bucket.aclose()


async def test_create(service: Service, session: S3Session) -> None:
    name = service.make_bucket()
    service.client.delete_bucket(Bucket=name)
    await session.bucket(name, create=True).upload(b"x", KEY)
    await session.bucket(name, create=True).upload(b"y", KEY)
    await session.bucket(name).create()
    await session.bucket(name).check()
    assert service.content(name, KEY) == b"y"
    service.remove(name)


@REAL
async def test_stale_uploads(service: Service, name: str, bucket: AsyncS3Bucket) -> None:
    keys = ["stale/1", "stale/2 +ü"]
    for key in keys:
        service.client.create_multipart_upload(Bucket=name, Key=key)
    assert {upload.key async for upload in bucket.list_uploads()} == set(keys)
    assert [upload.key async for upload in bucket.list_uploads("stale/2")] == keys[1:]
    assert [upload async for upload in bucket.list_uploads(older_than=timedelta(hours=1))] == []
    assert await bucket.abort_stale_uploads(timedelta(hours=1)) == 0
    assert service.uploads(name) == keys
    await asyncio.sleep(1.1)  # a server's clock may tell whole seconds only
    assert await bucket.abort_stale_uploads(0) == 2
    assert service.uploads(name) == []


async def test_boto3_beside_it(bucket: AsyncS3Bucket) -> None:
    data = sample(20 * MiB)
    resource = bucket.service_resource
    assert bucket.name in [each.name for each in resource.buckets.all()]
    await asyncio.to_thread(bucket.bucket.upload_fileobj, io.BytesIO(data), KEY)
    assert (await bucket.download(KEY)).getvalue() == data
    resource.meta.client.close()
