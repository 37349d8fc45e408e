"""Every test runs under blockbuster: a blocking call on the event loop fails it."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session, TransferConfig
from lsst_lfa._transfer.plan import MIN_PART_SIZE
from tests.unit.command_line import Shell, point_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(autouse=True)
def _nothing_blocks() -> Iterator[None]:
    with blockbuster_ctx("lsst_lfa") as blockbuster:
        for function in blockbuster.functions.values():
            # Synchronous by contract: the mock behind `domock`, and boto3's resource.
            function.can_block_in(
                "lsst_lfa/_mock/server.py", {"start", "stop", "create_bucket", "__enter__", "__exit__"}
            )
            function.can_block_in("lsst_lfa/_client/boto3_resource.py", {"_make"})
            # What astropy must not do in a thread.
            function.can_block_in("lsst_lfa/_fits.py", {"_written", "_write"})
            # Asks the system for the working directory, which is no I/O.
            function.can_block_in("lsst_lfa/_spool/spool.py", {"__init__"})
            # In a thread, which has a loop of its own.
            function.can_block_in("lsst_lfa/_client/factory.py", {"_prepare"})
            # Coverage's own, when a thread begins.
            function.can_block_in("coverage/collector.py", {"lock_data"})
        yield


@pytest.fixture(autouse=True)
def _no_credentials_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the environment's own S3 settings out of the tests."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    nothing = tmp_path_factory.getbasetemp() / "no-such-file"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nothing))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def server() -> Iterator[MockS3Server]:
    """Run one mock server for a module."""
    with MockS3Server() as server:
        server.create_bucket("test")
        yield server


@pytest_asyncio.fixture
async def session(server: MockS3Server) -> AsyncIterator[S3Session]:
    """Open a session on it, in which 5 MiB are large: whatever the defaults are."""
    config = TransferConfig(
        part_size=MIN_PART_SIZE,
        memory_part_size=MIN_PART_SIZE,
        multipart_threshold=MIN_PART_SIZE,
        range_size=MIN_PART_SIZE,
    )
    async with S3Session.for_mock(server, config) as session:
        yield session


@pytest.fixture
def bucket(session: S3Session) -> AsyncS3Bucket:
    """Return a bucket on that session."""
    return session.bucket("test")


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """Make a folder on a file system in memory, where Linux has one."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("/dev/shm is not mounted")
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def lfa(
    server: MockS3Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    """Return what runs commands on the mock server, in an empty folder."""
    point_at(server, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return Shell(capfd)
