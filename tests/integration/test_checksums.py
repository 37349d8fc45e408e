"""Ceph over https and the checksums that botocore sends by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from lsst_lfa import AsyncS3Bucket, errors
from tests.integration.samples import MiB, sample

if TYPE_CHECKING:
    from tests.integration.conftest import Service

pytestmark = [pytest.mark.servers("ceph"), pytest.mark.schemes("https")]


async def test_botocores_defaults_are_refused(service: Service, name: str, environment: None) -> None:
    client = boto3.client("s3", endpoint_url=service.endpoint_url, region_name="us-east-1")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=name, Key="key", Body=b"x")
    client.close()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 411
    assert caught.value.response["Error"]["Code"] == "MissingContentLength"


async def test_our_defaults_work(name: str, environment: None) -> None:
    async with AsyncS3Bucket(name) as bucket:
        for size in (0, 1, 9 * MiB):
            await bucket.upload(sample(size), "key")
            assert (await bucket.download("key")).getvalue() == sample(size)
        bucket.bucket.put_object(Key="key", Body=b"x")
        bucket.bucket.delete_objects(Delete={"Objects": [{"Key": "key"}]})
        bucket.service_resource.meta.client.close()
        assert not await bucket.exists("key")


async def test_the_environment_wins(name: str, environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    async with AsyncS3Bucket(name) as bucket:
        with pytest.raises(errors.ServiceError, match="411 MissingContentLength"):
            await bucket.upload(b"x", "key")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    async with AsyncS3Bucket(name) as bucket:
        await bucket.upload(b"x", "key")
