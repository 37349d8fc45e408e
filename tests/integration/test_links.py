"""An object by its URL, from an event or presigned."""

from __future__ import annotations

import asyncio
import re
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import TransferConfig, download_url, errors
from tests.faults.proxy import Proxy
from tests.integration.samples import MiB, sample
from tests.integration.web import fetch, store
from tests.servers import Credentials

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket
    from tests.integration.conftest import Service

# The mock verifies no signatures.
VERIFYING = pytest.mark.servers("seaweedfs", "ceph")
KEY = "Test:1/2020/04/01/Test:1-image-2020-04-01T12:00:00.000.fits"


async def refused(work: Coroutine[Any, Any, object], kind: type[errors.LfaError], *said: str) -> None:
    """Make sure that it fails with exactly this class, with these words, and without the signature."""
    with pytest.raises(errors.LfaError) as caught:
        await work
    assert type(caught.value) is kind, repr(caught.value)
    for each in said:
        assert each in str(caught.value)
    assert not re.search("Signature=|Signature:", "".join(traceback.format_exception(caught.value)))


def presign_v2(service: Service, bucket: AsyncS3Bucket, key: str, seconds: int) -> str:
    """Make a URL as botocore does by default: of signature version 2."""
    url = str(service.client.generate_presigned_url("get_object", {"Bucket": bucket.name, "Key": key}, seconds))
    assert "AWSAccessKeyId=" in url
    return url


async def test_all_that_is_needed(
    service: Service, bucket: AsyncS3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = sample(1000)
    await bucket.upload(data, KEY)
    url = await bucket.presigned_url(KEY)
    # A configuration with which nothing else works.
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, "nonsense")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported")
    (tmp_path / "config").write_text("this is not a configuration")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    if service.server.ca_file is not None:
        monkeypatch.setenv("AWS_CA_BUNDLE", service.server.ca_file)
    result = await download_url(url)
    assert result.tell() == 0
    assert result.getvalue() == data


async def test_event(service: Service, bucket: AsyncS3Bucket, environment: None) -> None:
    data = sample(17 * MiB)
    counts: list[int] = []
    url = await bucket.upload(data, KEY)
    assert (await download_url(url, counts.append)).getvalue() == data
    assert sum(counts) == len(data)
    assert (await download_url(f"s3://{bucket.name}/{KEY}")).getvalue() == data
    await refused(
        download_url(f"{url}2"), errors.KeyNotFoundError, f"s3://{bucket.name}/{KEY}2 at {service.endpoint_url}"
    )


@pytest.mark.parametrize("size", [0, 1, 33 * MiB + 1])
async def test_engine(service: Service, name: str, bucket: AsyncS3Bucket, size: int) -> None:
    """It is that of `download`: parallel ranges of one version, the exact progress, the ETag compared."""
    data = sample(size)
    await bucket.upload(data, KEY)
    counts: list[int] = []
    async with Proxy(service.server.endpoint_url) as proxy, service.session(endpoint_url=proxy.endpoint_url) as near:
        url = await near.bucket(name).presigned_url(KEY)
        result = await download_url(url, counts.append, config=TransferConfig(verify_etag=True))
        assert result.getvalue() == data
        assert sum(counts) == size
        # A range that is slow, as on a busy machine, is asked for in two halves.
        assert len(proxy.lines) >= (3 if size > 1 else 1)
        assert size <= 1 or proxy.connections_made > 1
        target = url.removeprefix(proxy.endpoint_url)
        assert set(proxy.lines) == {f"GET {target} HTTP/1.1"}


@VERIFYING
async def test_expired(service: Service, bucket: AsyncS3Bucket) -> None:
    data = sample(1000)
    await bucket.upload(data, KEY)
    verify = service.server.ca_file
    urls = [await bucket.presigned_url(KEY, expires=2), presign_v2(service, bucket, KEY, 2)]
    put = await bucket.presigned_url(KEY, expires=2, method="put")
    for url in urls:
        assert (await download_url(url, verify=verify)).getvalue() == data
    await asyncio.sleep(3)
    place = f"s3://{bucket.name}/{KEY} at {service.endpoint_url}"
    for url in urls:
        await refused(
            download_url(url, verify=verify),
            errors.ExpiredUrlError,
            place,
            "403 AccessDenied",
            "The URL has expired at 20",
            "ask for a new one",
        )
    assert (await store(put, b"x", verify))[0] == 403
    assert service.content(bucket.name, KEY) == data


@VERIFYING
async def test_altered(service: Service, bucket: AsyncS3Bucket) -> None:
    for key in ("key", "other"):
        await bucket.upload(b"x", key)
    verify = service.server.ca_file
    url, url_v2 = await bucket.presigned_url("key"), presign_v2(service, bucket, "key", 60)
    bad = [
        url.replace("/key?", "/other?"),
        url_v2.replace("/key?", "/other?"),
        url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        await bucket.presigned_url("key", method="put"),
    ]
    assert len({*bad, url, url_v2}) == 7
    for each in bad:
        assert (await fetch(each, verify))[0] == 403
        await refused(download_url(each, verify=verify), errors.WrongSecretError, "altered", "not for downloads")
    assert (await download_url(url, verify=verify)).getvalue() == b"x"


@VERIFYING
async def test_who_made_it(service: Service, somebody: Credentials, bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"x", "key")
    verify = service.server.ca_file
    async with service.session(somebody) as session:
        url = await session.bucket(bucket.name).presigned_url("key")
    await refused(download_url(url, verify=verify), errors.AccessDeniedError, "is not allowed to read the object")
    async with service.session(Credentials("nobodyaccess", "a-secret")) as session:
        url = await session.bucket(bucket.name).presigned_url("key")
    await refused(download_url(url, verify=verify), errors.UnknownKeyIdError, "no longer knows the user")


async def test_missing(service: Service, bucket: AsyncS3Bucket) -> None:
    url = await bucket.presigned_url(KEY)
    await refused(
        download_url(url, verify=service.server.ca_file), errors.KeyNotFoundError, f"s3://{bucket.name}/{KEY}"
    )


@VERIFYING
async def test_event_without_credentials(service: Service, bucket: AsyncS3Bucket) -> None:
    """It is asked for anonymously, and the service refuses."""
    url = await bucket.upload(b"x", KEY)
    with pytest.raises(errors.AccessDeniedError, match=re.escape(f"s3://{bucket.name}/{KEY}")):
        await download_url(url, verify=service.server.ca_file)
