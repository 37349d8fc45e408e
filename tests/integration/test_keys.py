"""Keys that need quoting, and keys that no server should ever see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lsst_lfa import download_url
from tests.faults.proxy import Proxy
from tests.integration.samples import sample
from tests.integration.web import fetch, store

if TYPE_CHECKING:
    from lsst_lfa import AsyncS3Bucket
    from tests.integration.conftest import Service

ODD = {
    "the project's": "Test:1/2020/04/01/Test:1-image-2020-04-01T12:00:00.000.fits",
    "space": "a b/ c",
    "percent": "100%/%41/%2F",
    "plus": "1+1=2/+",
    "unicode": "ünïcode/日本/🔭.fits",
    "punctuation": "!-_.*'()/&$@=;:,?#",
    "more punctuation": '~`^|{}[]<>"',
    "dots": "...three/..two",
    # In segments of at most 255 bytes: servers that keep keys as paths have the file system's limit.
    "1024 bytes": "/".join(["a" * 255, "é" * 127 + "e", "日" * 85, "d" * 254]) + "/e",
}
BAD = {
    "1025 bytes": "/".join(["a" * 255, "é" * 127 + "e", "日" * 85, "d" * 254]) + "/ef",
    "empty": "",
    "newline": "a\nb",
    "nul": "a\0b",
    "delete": "a\x7fb",
    "parent": "a/../b",
    "only parent": "..",
    "last parent": "a/..",
    "itself": "a/./b",
    "half a character": "\ud800",
}


# SeaweedFS makes a slash of a backslash, so that it names another object.
BACKSLASH = pytest.param("a\\b", id="backslash", marks=pytest.mark.servers("moto", "ceph"))


@pytest.mark.parametrize("key", [*(pytest.param(key, id=what) for what, key in ODD.items()), BACKSLASH])
async def test_odd_keys(service: Service, name: str, bucket: AsyncS3Bucket, environment: None, key: str) -> None:
    data = sample(1000)
    assert len(key.encode()) <= 1024
    url = f"{service.endpoint_url}/{name}/{key}"
    assert await bucket.upload(data, key) == url
    assert service.keys(name) == [key]
    assert [item.key async for item in bucket.list(key[:1])] == [key]
    assert await bucket.exists(key)
    assert not await bucket.exists(f"{key[:3]}2")
    assert (await bucket.download(key)).getvalue() == data
    presigned = await bucket.presigned_url(key)
    assert await fetch(presigned, service.server.ca_file) == (200, data)
    for each in (presigned, url):
        assert (await download_url(each)).getvalue() == data
    other = sample(1000, 1)
    assert await store(await bucket.presigned_url(key, method="put"), other, service.server.ca_file) == (200, b"")
    assert service.content(name, key) == other
    await bucket.delete(key)
    assert service.keys(name) == []


@pytest.mark.schemes("http")
@pytest.mark.parametrize("key", BAD.values(), ids=BAD)
async def test_bad_keys(service: Service, key: str) -> None:
    async with Proxy(service.endpoint_url) as proxy:
        session = service.session(endpoint_url=proxy.endpoint_url)
        bucket = session.bucket("test")
        for verb in (
            lambda: bucket.upload(b"x", key),
            lambda: bucket.download(key),
            lambda: anext(bucket.stream(key)),
            lambda: bucket.download_file(key, "/nowhere/file"),
            lambda: bucket.head(key),
            lambda: bucket.exists(key),
            lambda: bucket.size(key),
            lambda: bucket.delete(key),
            lambda: bucket.presigned_url(key),
        ):
            with pytest.raises(ValueError, match="key="):
                await verb()
        await session.aclose()
        assert proxy.connections_made == 0
