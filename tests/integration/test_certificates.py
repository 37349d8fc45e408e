"""Over https the server has to prove who it is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import AsyncS3Bucket, errors
from tests.faults.proxy import Proxy

if TYPE_CHECKING:
    from tests.integration.conftest import Service
    from tests.servers import CertificateAuthority, TlsFiles

pytestmark = [pytest.mark.servers("seaweedfs", "ceph"), pytest.mark.schemes("https")]

CURE = "AWS_CA_BUNDLE or S3Session(verify=...)"


async def refused(bucket: AsyncS3Bucket, *said: str) -> None:
    with pytest.raises(errors.CertificateError) as caught:
        await bucket.upload(b"x", "key")
    assert isinstance(caught.value, ConnectionError)
    for each in (CURE, bucket.name, *said):
        assert each in str(caught.value)
    with pytest.raises(errors.CertificateError):
        await bucket.exists("key")


async def test_untrusted(
    service: Service, name: str, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service.session(verify=None) as session:
        await refused(session.bucket(name), service.endpoint_url, "unable to get local issuer certificate")
    async with service.session(verify=authority.ca_file) as session:
        await refused(session.bucket(name), service.endpoint_url)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.ca_file))
    async with service.session(verify=None) as session:
        await refused(session.bucket(name), service.endpoint_url)


SAID = {"expired": "certificate has expired", "wrong_host": "IP address mismatch"}


@pytest.mark.parametrize("fault", SAID)
async def test_bad_certificate(service: Service, name: str, authority: CertificateAuthority, fault: str) -> None:
    tls: TlsFiles = getattr(authority, fault)()
    async with Proxy(service.server.endpoint_url, tls=tls.context()) as proxy:
        async with service.session(endpoint_url=proxy.endpoint_url, verify=authority.ca_file) as session:
            await refused(session.bucket(name), proxy.endpoint_url, SAID[fault])
        assert proxy.connections_made
        assert proxy.lines == []


async def test_private_authority_by_argument(service: Service, name: str) -> None:
    for verify in (str(service.server.ca_file), Path(str(service.server.ca_file))):
        async with service.session(verify=verify) as session:
            await session.bucket(name).upload(b"x", "key")
            assert await session.bucket(name).exists("key")


async def test_private_authority_by_environment(service: Service, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(service.server.ca_file))
    async with service.session(verify=None) as session:
        await session.bucket(name).upload(b"x", "key")
        assert await session.bucket(name).exists("key")


async def test_unverified_warns_once(service: Service, name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with service.session(verify=False) as session:
        for _ in range(2):
            await session.bucket(name).upload(b"x", "key")
            assert (await session.bucket(name).download("key")).read() == b"x"
            await session.aclose()
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert service.endpoint_url in warnings[0]
    assert "verify=False" in warnings[0]
