"""Copies on the server."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import AsyncS3Bucket, errors

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server, S3Session

MiB = 1024 * 1024
LARGE = os.urandom(12 * MiB + 7)


@pytest.fixture
def in_parts(session: S3Session) -> AsyncS3Bucket:
    """Return the bucket, where 12 MiB are copied in three parts."""
    return session.bucket("test", config=replace(session.config, copy_threshold=6 * MiB, copy_part_size=5 * MiB))


@pytest.fixture
async def source(bucket: AsyncS3Bucket) -> str:
    await bucket.upload(
        LARGE,
        "source ü+%41.fits",
        metadata={"observer": "Ängström"},
        extra_args={"CacheControl": "no-cache", "ContentDisposition": "inline"},
    )
    return "source ü+%41.fits"


async def everything(bucket: AsyncS3Bucket, key: str) -> tuple[object, ...]:
    async with bucket._borrow("test", key) as client:
        head = await client.call("head_object", key)
    info = await bucket.head(key)
    return info.content_type, info.metadata, head.get("CacheControl"), head.get("ContentDisposition")


KEPT = ("application/fits", {"observer": "Ängström"}, "no-cache", "inline")


async def check_copies(bucket: AsyncS3Bucket, source: str) -> None:
    assert await bucket.copy(source, "copy") == bucket.url("copy")
    assert await bucket.read("copy") == LARGE
    assert await everything(bucket, "copy") == KEPT
    await bucket.copy(source, "copy", content_type="image/fits")
    assert await everything(bucket, "copy") == ("image/fits", *KEPT[1:])
    await bucket.copy(source, "copy", metadata={"a": "ü"}, extra_args={"CacheControl": "max-age=1"})
    assert await everything(bucket, "copy") == (KEPT[0], {"a": "ü"}, "max-age=1", "inline")
    await bucket.copy(source, "copy", metadata={})
    assert await everything(bucket, "copy") == (KEPT[0], {}, *KEPT[2:])
    await bucket.copy(source, "copy", extra_args={"StorageClass": "STANDARD_IA"})
    assert await everything(bucket, "copy") == KEPT
    assert (await bucket.head("copy")).storage_class == "STANDARD_IA"
    assert await bucket.read(source) == LARGE


async def test_a_copy_keeps_what_the_source_has_but_for_what_is_given(bucket: AsyncS3Bucket, source: str) -> None:
    await check_copies(bucket, source)


async def test_a_copy_in_parts_does_too(bucket: AsyncS3Bucket, source: str, in_parts: AsyncS3Bucket) -> None:
    await check_copies(in_parts, source)
    assert (await bucket.head("copy")).etag.endswith("-3")
    async with bucket._borrow("test", None) as client:
        assert not (await client.call("list_multipart_uploads")).get("Uploads")


async def test_an_object_copied_to_itself_has_other_metadata(bucket: AsyncS3Bucket, source: str) -> None:
    await bucket.copy(source, source, metadata={"a": "b"})
    assert await everything(bucket, source) == (KEPT[0], {"a": "b"}, *KEPT[2:])
    assert await bucket.read(source) == LARGE


async def test_tags_are_kept_or_replaced(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "tagged", extra_args={"Tagging": "a=b"})
    for given, expected in (({}, {"a": "b"}), ({"Tagging": "c=d"}, {"c": "d"})):
        await bucket.copy("tagged", "copy", extra_args=given)
        async with bucket._borrow("test", None) as client:
            tags = (await client.call("get_object_tagging", "copy"))["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == expected


async def test_from_another_bucket(
    bucket: AsyncS3Bucket, session: S3Session, server: MockS3Server, source: str
) -> None:
    server.create_bucket("other")
    other = session.bucket("other")
    await other.copy(source, "copy", source_bucket="test")
    assert await other.read("copy") == LARGE


async def test_what_is_missing_is_told(bucket: AsyncS3Bucket, source: str) -> None:
    with pytest.raises(errors.KeyNotFoundError, match="missing"):
        await bucket.copy("missing", "copy")
    with pytest.raises(errors.BucketNotFoundError, match="nowhere"):
        await bucket.copy(source, "copy", source_bucket="nowhere")
    for bad in ("", "a/../b"):
        with pytest.raises(ValueError, match="key="):
            await bucket.copy(source, bad)
        with pytest.raises(ValueError, match="key="):
            await bucket.copy(bad, "copy")


async def test_an_old_version_is_not_mixed_up_with_the_new_one(bucket: AsyncS3Bucket) -> None:
    bucket.service_resource.BucketVersioning("test").enable()
    try:
        await bucket.upload(b"first", "versioned")
        await bucket.copy("versioned", "copy-of-version")
        assert await bucket.read("copy-of-version") == b"first"
    finally:
        bucket.service_resource.BucketVersioning("test").suspend()
