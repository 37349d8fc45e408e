"""Every operation, as a type checker sees it: strict mypy and pyright find nothing to report in this file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import assert_type

from lsst_lfa import (
    AsyncS3Bucket,
    Folder,
    FolderSummary,
    LfaError,
    ObjectInfo,
    S3Session,
    bucket_for,
    download_url,
)


async def use(bucket: AsyncS3Bucket, url: str) -> None:
    assert_type(await bucket.upload(b"data", "a.txt", content_type="text/plain", metadata={"a": "b"}), str)
    assert_type(await bucket.upload(Path("a"), "a", print, if_none_match=True, extra_args={"Tagging": "a=b"}), str)
    info = await bucket.head("a.txt")
    assert_type(info, ObjectInfo)
    assert_type(info.content_type, str | None)
    assert_type(info.metadata, dict[str, str] | None)

    assert_type(await bucket.download("a.txt", start=1, stop=3), io.BytesIO)
    assert_type(await bucket.read("a.txt", 1, 3), bytes)
    async with bucket.open("a.txt") as file:
        assert_type(await file.read(3), bytes)
        assert_type(await file.seek(0), int)
        assert_type(file.size, int)
        await bucket.upload(file, "copy.txt")
    async with bucket.stream("a.txt") as chunks:
        async for chunk in chunks:
            assert_type(chunk, bytes)
    async for chunk in bucket.stream("a.txt"):
        assert_type(chunk, bytes)
    await bucket.fits_headers("a.fits")
    await bucket.download_fits("a.fits", hdus=[0, "WCS", ("SCI", 2)])

    assert_type(await bucket.copy("a.txt", "b.txt", metadata={}), str)
    async for item in bucket.list("a"):
        assert_type(item, ObjectInfo)
    async for entry in bucket.list("a", delimiter="/"):
        assert_type(entry, ObjectInfo | Folder)
    assert_type(await bucket.delete_many(["a", "b"]), dict[str, LfaError])
    assert_type(await bucket.delete_many(item.key async for item in bucket.list()), dict[str, LfaError])
    assert_type(await bucket.upload_folder("folder", "prefix", print), FolderSummary)
    assert_type(await bucket.download_folder("prefix", Path("folder")), FolderSummary)

    async with bucket_for(url) as (found, key):
        assert_type(found, AsyncS3Bucket)
        assert_type(key, str)
    assert_type(await download_url(url, wait=60), io.BytesIO)
    async with S3Session(anonymous=True, addressing_style="virtual") as session:
        assert_type(session.bucket("test"), AsyncS3Bucket)
