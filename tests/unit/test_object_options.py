"""What is stored with an object's data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa import errors
from lsst_lfa._transfer.object_options import decode_metadata, encode_metadata, guess_type, upload_options

if TYPE_CHECKING:
    from lsst_lfa import AsyncS3Bucket

MiB = 1024 * 1024
SIZES = pytest.mark.parametrize("size", [1000, 6 * MiB], ids=["one request", "parts"])


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("2026/11/a.fits", "application/fits"),
        ("a.FITS", "application/fits"),
        ("a.fits.fz", "application/fits"),
        ("a.fits.gz", "application/gzip"),
        ("a.json.bz2", "application/x-bzip2"),
        ("a.ecsv", "text/csv"),
        ("a.yaml", "application/yaml"),
        ("a.yml", "application/yaml"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.txt", "text/plain"),
        ("a.fits/b", "binary/octet-stream"),
        ("a", "binary/octet-stream"),
        ("data:text/html,a", "binary/octet-stream"),
    ],
)
def test_the_type_is_guessed_by_the_end_of_the_key(key: str, kind: str) -> None:
    assert guess_type(key) == kind


@given(st.dictionaries(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.text(max_size=80), max_size=5))
def test_metadata_come_back_as_they_were(metadata: dict[str, str]) -> None:
    encoded = encode_metadata(metadata)
    assert decode_metadata(encoded) == metadata
    for value in encoded.values():
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()


def test_plain_metadata_are_stored_as_they_are() -> None:
    assert encode_metadata({"Obs-Id": "GC1_O_20261125_000001"}) == {"obs-id": "GC1_O_20261125_000001"}


@pytest.mark.parametrize("value", ["=?utf-8?b?####?=", "=?utf-8?b?a?=", "=?nonsense?q?a?=", "=?utf-8?b?/w==?="])
def test_what_only_looks_encoded_is_left_alone(value: str) -> None:
    assert decode_metadata({"a": value}) == {"a": value}


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"under_score": "a"}, ValueError),
        ({"": "a"}, ValueError),
        ({"a b": "a"}, ValueError),
        ({"ü": "a"}, ValueError),
        ({"a": "1", "A": "2"}, ValueError),
        ({"a": 1}, TypeError),
        ({1: "a"}, TypeError),
        ({"a": "\ud800"}, ValueError),
        ({"a": "x" * 8000}, ValueError),
        ({"a": "ü" * 3000}, ValueError),
    ],
)
def test_metadata_that_would_not_come_back_are_refused(metadata: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        encode_metadata(metadata)


@pytest.mark.parametrize(
    "options",
    [
        {"extra_args": {"Nonsense": 1}},
        {"extra_args": {"IfNoneMatch": "*"}},
        {"extra_args": {"SSECustomerKey": "k"}},
        {"extra_args": {"ContentType": "a/b"}, "content_type": "c/d"},
        {"extra_args": {"Metadata": {}}, "metadata": {}},
    ],
    ids=str,
)
async def test_extra_arguments_that_are_unknown_or_given_twice_are_refused(
    bucket: AsyncS3Bucket, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"extra_args"):
        await bucket.upload(b"data", "refused", **options)
    assert not await bucket.exists("refused")


async def test_the_longest_metadata_come_back(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "long", metadata={"a": "x" * 7999})
    assert (await bucket.head("long")).metadata == {"a": "x" * 7999}


def test_an_empty_content_type_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        upload_options("k", "", None, None, if_none_match=False)


@pytest.mark.parametrize(
    "options", [{"content_type": "a/b\r\nx-evil: 1"}, {"extra_args": {"CacheControl": "a\0"}}], ids=["type", "control"]
)
def test_what_would_end_a_header_is_refused(options: dict[str, Any]) -> None:
    given = {"content_type": None, "extra_args": None} | options
    with pytest.raises(ValueError, match="control characters"):
        upload_options("k", metadata=None, if_none_match=False, **given)


def test_the_options_of_every_request_go_with_every_part() -> None:
    options = upload_options("k", None, None, {"RequestPayer": "requester", "ACL": "private"}, if_none_match=False)
    assert options.common == {"RequestPayer": "requester"}


@SIZES
async def test_head_tells_what_was_stored(bucket: AsyncS3Bucket, size: int) -> None:
    metadata = {"Observer": "Ängström", "program": "night survey", "empty": ""}
    await bucket.upload(
        bytes(size),
        "a.json",
        content_type="text/x-special",
        metadata=metadata,
        extra_args={"StorageClass": "STANDARD_IA", "CacheControl": "no-cache", "Tagging": "a=b"},
    )
    info = await bucket.head("a.json")
    assert info[:2] == ("a.json", size)
    assert info.content_type == "text/x-special"
    assert info.metadata == {"observer": "Ängström", "program": "night survey", "empty": ""}
    assert info.storage_class == "STANDARD_IA"
    async with bucket._borrow("test", "a.json") as client:
        head = await client.call("head_object", "a.json")
        assert head["CacheControl"] == "no-cache"
        tags = await client.call("get_object_tagging", "a.json")
    assert tags["TagSet"] == [{"Key": "a", "Value": "b"}]


async def test_without_arguments_the_type_is_the_guessed_one(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "x/a.yaml")
    info = await bucket.head("x/a.yaml")
    assert (info.content_type, info.metadata, info.version_id) == ("application/yaml", {}, None)
    assert info.storage_class == "STANDARD"
    listed = [item async for item in bucket.list("x/")]
    assert listed == [info._replace(content_type=None, metadata=None)]
    assert listed[0] in set(listed), "what is listed can be in a set"


async def test_a_version_is_told_where_they_are_kept(bucket: AsyncS3Bucket) -> None:
    bucket.service_resource.BucketVersioning("test").enable()
    try:
        await bucket.upload(b"data", "versioned")
        first = (await bucket.head("versioned")).version_id
        await bucket.upload(b"other", "versioned")
        assert first
        assert first != (await bucket.head("versioned")).version_id
    finally:
        bucket.service_resource.BucketVersioning("test").suspend()


async def test_fits_have_their_type_whatever_the_key_is(bucket: AsyncS3Bucket) -> None:
    hdulist = fits.HDUList([fits.PrimaryHDU(np.arange(4.0))])
    await bucket.upload_fits(hdulist, "image", metadata={"a": "b"})
    info = await bucket.head("image")
    assert (info.content_type, info.metadata) == ("application/fits", {"a": "b"})
    await bucket.upload_fits(hdulist, "image", extra_args={"ContentType": "image/fits"})
    assert (await bucket.head("image")).content_type == "image/fits"
    with pytest.raises(errors.KeyExistsError):
        await bucket.upload_fits(hdulist, "image", if_none_match=True)


@SIZES
async def test_if_none_match_never_replaces(bucket: AsyncS3Bucket, size: int) -> None:
    key = f"once-{size}"
    await bucket.upload(bytes(size), key, if_none_match=True)
    for _ in range(2):
        with pytest.raises(errors.KeyExistsError, match=key) as caught:
            await bucket.upload(b"\1" * size, key, if_none_match=True)
        assert isinstance(caught.value, FileExistsError)
        assert caught.value.errno is not None
        assert not caught.value.transient
    assert (await bucket.download(key)).getvalue() == bytes(size)
    await bucket.upload(b"\1" * size, key)
    assert (await bucket.download(key)).getvalue() == b"\1" * size
