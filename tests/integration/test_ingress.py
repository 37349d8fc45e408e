"""The observatory's ingress before the server: nginx, which ends TLS and caps a request's body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from lsst_lfa import TransferConfig, errors
from tests.integration.samples import MiB, sample
from tests.servers import NginxProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lsst_lfa import S3Session
    from tests.integration.conftest import Service
    from tests.servers import CertificateAuthority, S3Server

pytestmark = pytest.mark.servers("ceph")

KEY = "Test:1/a +ü.fits"
# What a session sends by default at most.
CAP = TransferConfig().memory_part_size


@pytest.fixture(scope="module")
def ingress(
    server: S3Server, authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NginxProxy]:
    """Run nginx before the server."""
    folder = tmp_path_factory.mktemp("nginx")
    with NginxProxy(folder, server, tls=authority.valid(), max_body_bytes=CAP) as ingress:
        yield ingress


@pytest_asyncio.fixture(loop_scope="session")
async def session(service: Service, ingress: NginxProxy, authority: CertificateAuthority) -> AsyncIterator[S3Session]:
    """Open a session through it."""
    url = ingress.https_endpoint_url if service.scheme == "https" else ingress.endpoint_url
    async with service.session(endpoint_url=url, verify=authority.ca_file) as session:
        yield session


async def test_large_file_goes_up_in_parts(service: Service, name: str, session: S3Session) -> None:
    data = sample(100 * MiB)
    bucket = session.bucket(name)
    await bucket.upload(data, KEY)
    assert "-" in (await bucket.head(KEY)).etag
    assert service.content(name, KEY) == data
    assert (await bucket.download(KEY)).getvalue() == data


@pytest.mark.parametrize(
    "config",
    [
        TransferConfig(part_size=CAP + 1, memory_part_size=CAP + 1, max_concurrency=1, max_attempts=3),
        TransferConfig(part_size=3 * CAP, multipart_threshold=3 * CAP, max_attempts=3),
    ],
    ids=["part", "whole"],
)
async def test_too_large(service: Service, name: str, session: S3Session, config: TransferConfig) -> None:
    # Parts are of equal lengths: these two just over the cap.
    data = sample(2 * (CAP + 1))
    with pytest.raises(errors.TooLargeError) as caught:
        await session.bucket(name, config=config).upload(data, KEY)
    for said in (
        "413",
        f"s3://{name}/{KEY}",
        "TransferConfig.part_size",
        "memory_part_size",
        "multipart_threshold",
        "client_max_body_size",
    ):
        assert said in str(caught.value)
    assert "<" not in str(caught.value)
    assert service.keys(name) == service.uploads(name) == []
    # The connections are fit for use.
    await session.bucket(name).upload(data, KEY)
    assert service.content(name, KEY) == data


async def test_part_at_the_cap(service: Service, name: str, session: S3Session) -> None:
    config = TransferConfig(part_size=CAP, multipart_threshold=CAP)
    for size in (CAP, CAP + 1):
        await session.bucket(name, config=config).upload(sample(size), KEY)
        assert service.content(name, KEY) == sample(size)
