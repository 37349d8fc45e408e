"""One server for the session; every test gets a bucket of its own, over http and over https."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from lsst_lfa import S3Session
from tests.conftest import make_server
from tests.servers import CertificateAuthority, Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lsst_lfa import AsyncS3Bucket
    from tests.servers import S3Server


@dataclass(frozen=True)
class Service:
    """A server, as one scheme reaches it."""

    server: S3Server
    scheme: str
    client: Any
    """A synchronous botocore client, to prepare and to inspect; not the library."""

    @property
    def endpoint_url(self) -> str:
        url = self.server.https_endpoint_url if self.scheme == "https" else self.server.endpoint_url
        assert url is not None
        return url

    def session(self, credentials: Credentials | None = None, **options: Any) -> S3Session:
        """Make a session of the first user, or of another; it is the test's to close."""
        who = credentials or Credentials(self.server.access_key_id, self.server.secret_access_key)
        explicit = {
            "endpoint_url": self.endpoint_url,
            "access_key_id": who.access_key_id,
            "secret_access_key": who.secret_access_key,
            "verify": self.server.ca_file,
        }
        return S3Session(**explicit | options)

    def make_bucket(self, client: Any = None, prefix: str = "test") -> str:
        """Make a bucket and return its name."""
        name = f"{prefix}-{secrets.token_hex(6)}"
        (client or self.client).create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Return the keys in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of the multipart uploads in a bucket that were not ended."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    def content(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())

    def remove(self, bucket: str) -> None:
        """Delete a bucket and what is in it."""
        for key in self.keys(bucket):
            self.client.delete_object(Bucket=bucket, Key=key)
        self.client.delete_bucket(Bucket=bucket)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "service" in metafunc.fixturenames:
        name = metafunc.config.getoption("server")
        # The mock serves no https.
        schemes = ("http",) if name == "moto" else ("http", "https")
        metafunc.parametrize("service", schemes, indirect=True, ids=[f"{name}-{each}" for each in schemes])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not meant for this server or scheme; run the rest in one loop."""
    name = config.getoption("server")

    def wanted(item: pytest.Item) -> bool:
        servers = item.get_closest_marker("servers")
        schemes = item.get_closest_marker("schemes")
        callspec = getattr(item, "callspec", None)  # only parametrised tests have one
        scheme = callspec.params.get("service") if callspec is not None else None
        return (servers is None or name in servers.args) and (schemes is None or scheme in schemes.args)

    for item in items:
        if pytest_asyncio.is_async_test(item) and item.path.is_relative_to(Path(__file__).parent):
            # One loop, so that the tests can share a client: to open one takes longer than most tests.
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    left_out = [item for item in items if not wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run the server that was chosen."""
    with make_server(pytestconfig, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Return a certificate authority other than the server's own."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def somebody(server: S3Server) -> Credentials:
    """Make another user."""
    return server.add_user("somebody")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the environment's own S3 settings out of the tests."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name == "S3_ENDPOINT_URL" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def _nothing_blocks() -> Iterator[None]:
    """Fail a test in which the library makes a blocking call on the event loop."""
    with blockbuster_ctx("lsst_lfa") as blockbuster:
        for function in blockbuster.functions.values():
            # Synchronous by contract.
            function.can_block_in("lsst_lfa/_client/boto3_resource.py", {"_make"})
            # Coverage's own, when a thread begins.
            function.can_block_in("coverage/collector.py", {"lock_data"})
            # In a thread, which has a loop of its own.
            function.can_block_in("lsst_lfa/_client/factory.py", {"_prepare"})
        yield


@pytest.fixture(scope="session")
def service(server: S3Server, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Return the server over the scheme that is the parameter."""
    client = server.client(https=request.param == "https")
    yield Service(server, request.param, client)
    client.close()


@pytest.fixture
def name(service: Service) -> Iterator[str]:
    """Make a bucket for one test, which must leave no multipart upload in it."""
    name = service.make_bucket()
    yield name
    uploads = service.uploads(name)
    for upload in service.client.list_multipart_uploads(Bucket=name).get("Uploads", ()):
        service.client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    service.remove(name)
    assert not uploads


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session(service: Service) -> AsyncIterator[S3Session]:
    """Open the first user's session; all tests share it, whatever befell the one before."""
    async with service.session() as session:
        yield session


@pytest.fixture
def bucket(session: S3Session, name: str) -> AsyncS3Bucket:
    """Return the bucket on that session."""
    return session.bucket(name)


@pytest.fixture
def environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment tell everything, as it does to a component."""
    settings = {
        "S3_ENDPOINT_URL": service.endpoint_url,
        "AWS_ACCESS_KEY_ID": service.server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": service.server.secret_access_key,
        "AWS_CA_BUNDLE": service.server.ca_file,
    }
    for variable, value in settings.items():
        if value is not None:
            monkeypatch.setenv(variable, value)
