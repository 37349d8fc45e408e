"""Ceph's tenants: namespaces of buckets, named ``tenant:bucket`` from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import download_url, errors
from tests.integration.samples import MiB, sample
from tests.integration.web import fetch, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsst_lfa import AsyncS3Bucket, S3Session
    from tests.integration.conftest import Service
    from tests.servers import Credentials, S3Server

pytestmark = pytest.mark.servers("ceph")

KEY = "Test:1/a +ü.fits"


@pytest.fixture(scope="session")
def astronomer(server: S3Server) -> Credentials:
    """Make a user of the tenant "lsst"."""
    return server.add_user("astronomer", tenant="lsst")


@pytest.fixture
def owner(service: Service, astronomer: Credentials) -> Iterator[Any]:
    """Make a plain client of that user."""
    client = service.server.client(astronomer, https=service.scheme == "https")
    yield client
    client.close()


@pytest.fixture
def name(service: Service, owner: Any) -> Iterator[str]:
    """Make a bucket of that user."""
    name = service.make_bucket(owner)
    yield name
    uploads = owner.list_multipart_uploads(Bucket=name).get("Uploads", ())
    for item in owner.list_objects_v2(Bucket=name).get("Contents", ()):
        owner.delete_object(Bucket=name, Key=item["Key"])
    owner.delete_bucket(Bucket=name)
    assert not uploads


async def all_verbs(service: Service, bucket: AsyncS3Bucket) -> None:
    for size in (1000, 20 * MiB):
        data = sample(size)
        assert await bucket.upload(data, KEY) == f"{service.endpoint_url}/{bucket.name}/{KEY}"
        assert (await bucket.download(KEY)).getvalue() == data
        assert await bucket.size(KEY) == size
    assert not await bucket.exists("missing")
    assert [item.key async for item in bucket.list()] == [KEY]
    url = await bucket.presigned_url(KEY)
    assert await fetch(url, service.server.ca_file) == (200, data)
    assert (await download_url(url, verify=service.server.ca_file)).getvalue() == data
    put = await bucket.presigned_url(KEY, method="put")
    assert await store(put, sample(10), service.server.ca_file) == (200, b"")
    assert [item.key for item in bucket.bucket.objects.all()] == [KEY]
    bucket.service_resource.meta.client.close()
    await bucket.delete(KEY)


async def test_own_tenant(service: Service, astronomer: Credentials, name: str) -> None:
    async with service.session(astronomer) as session:
        await all_verbs(service, session.bucket(f"lsst:{name}"))
        await all_verbs(service, session.bucket(name))


async def test_other_tenant(service: Service, owner: Any, name: str) -> None:
    owner.put_object(Bucket=name, Key="theirs", Body=b"theirs")
    async with service.session() as session:
        bucket = session.bucket(f"lsst:{name}")
        listing = bucket.list()
        for work in (
            bucket.upload(b"x", KEY),
            bucket.upload(sample(9 * MiB), KEY),
            bucket.download("theirs"),
            bucket.exists("theirs"),
            anext(listing),
            bucket.delete("theirs"),
        ):
            with pytest.raises(errors.AccessDeniedError, match=f"lsst:{name}"):
                await work
        url = await bucket.presigned_url("theirs")
        assert (await fetch(url, service.server.ca_file))[0] == 403
        # The same name without the tenant is another bucket, and there is none.
        with pytest.raises(errors.BucketNotFoundError):
            await session.bucket(name).download("theirs")
        with pytest.raises(errors.BucketNotFoundError):
            await session.bucket(f"lsst:{name}x").download("theirs")
    assert [item["Key"] for item in owner.list_objects_v2(Bucket=name)["Contents"]] == ["theirs"]
    owner.delete_object(Bucket=name, Key="theirs")


def allow(owner: Any, name: str, *actions: str) -> None:
    """Allow the first user something."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["arn:aws:iam:::user/test"]},
        "Action": actions,
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
    }
    owner.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))


async def test_bucket_policy(service: Service, session: S3Session, owner: Any, name: str) -> None:
    allow(owner, name, "s3:*")
    await all_verbs(service, session.bucket(f"lsst:{name}"))


async def test_may_read_but_not_list(session: S3Session, owner: Any, name: str) -> None:
    owner.put_object(Bucket=name, Key="theirs", Body=b"theirs")
    allow(owner, name, "s3:GetObject")
    bucket = session.bucket(f"lsst:{name}")
    assert await bucket.exists("theirs")
    assert (await bucket.download("theirs")).read() == b"theirs"
    # To such a user the server does not tell whether there is a key.
    with pytest.raises(errors.AccessDeniedError):
        await bucket.exists("missing")
    with pytest.raises(errors.AccessDeniedError):
        await bucket.upload(b"x", "theirs")
