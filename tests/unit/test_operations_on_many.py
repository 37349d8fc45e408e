"""Listings with folders, and many deletions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import Folder, ObjectInfo, errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session

KEYS = ["a", "d!x", "d/", "d/b", "d/e/f", "d/e/g", "d/z", "ü x/y", "z"]


@pytest.fixture
async def own(session: S3Session, server: MockS3Server) -> AsyncS3Bucket:
    """Return a bucket with these keys alone."""
    server.create_bucket("own")
    bucket = session.bucket("own")
    await bucket.delete_many(bucket_keys(bucket))
    for key in KEYS:
        await bucket.upload(b"data" if not key.endswith("/") else b"", key)
    return bucket


async def bucket_keys(bucket: AsyncS3Bucket) -> AsyncIterator[str]:
    async for item in bucket.list():
        yield item.key


async def listed(bucket: AsyncS3Bucket, prefix: str, delimiter: str) -> list[tuple[type, str]]:
    return [(type(item), item.key) async for item in bucket.list(prefix, delimiter)]


async def test_folders_stand_between_the_objects(own: AsyncS3Bucket) -> None:
    assert await listed(own, "", "/") == [
        (ObjectInfo, "a"),
        (ObjectInfo, "d!x"),
        (Folder, "d/"),
        (ObjectInfo, "z"),
        (Folder, "ü x/"),
    ]
    assert await listed(own, "d/", "/") == [
        (ObjectInfo, "d/"),
        (ObjectInfo, "d/b"),
        (Folder, "d/e/"),
        (ObjectInfo, "d/z"),
    ]
    assert await listed(own, "d", "!") == [(Folder, "d!"), *((ObjectInfo, key) for key in KEYS if key[:2] == "d/")]
    assert await listed(own, "", "") == [(ObjectInfo, key) for key in sorted(KEYS)]
    assert await listed(own, "none", "/") == []


async def test_many_are_deleted_and_missing_ones_are_no_error(own: AsyncS3Bucket) -> None:
    assert await own.delete_many(["a", "missing", "ü x/y", "a"]) == {}
    assert [item.key async for item in own.list()] == sorted(set(KEYS) - {"a", "ü x/y"})
    assert await own.delete_many([]) == {}
    assert await own.delete_many(bucket_keys(own)) == {}
    assert [item async for item in own.list()] == []


@pytest.mark.parametrize(("keys", "kind"), [("abc", TypeError), (["a", ""], ValueError), (["a/../b"], ValueError)])
async def test_what_are_no_keys_is_refused(own: AsyncS3Bucket, keys: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="key"):
        await own.delete_many(keys)
    assert await own.exists("a")


async def test_deleting_from_no_bucket_is_an_error(session: S3Session) -> None:
    with pytest.raises(errors.BucketNotFoundError):
        await session.bucket("nowhere").delete_many(["a"])
