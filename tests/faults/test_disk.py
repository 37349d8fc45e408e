"""The local disk is full, or is not what it should be."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import TransferConfig
from lsst_lfa.errors import AccessDeniedError, LfaError

from . import Fault, Hook, Status
from .disks import make_read_only, mounted_disk
from .harness import BUCKET, CONFIG, KEY, LARGE, OLD, MiB, open_harness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from . import FaultyS3Server


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Limit what this process may write to one file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MiB."""
    with mounted_disk(tmp_path / "disk", "2m") as folder:
        yield folder


async def test_a_full_disk(small_disk: Path) -> None:
    async with open_harness(small_disk) as harness:
        with pytest.raises(OSError, match="No space left") as caught, harness.bounded_download():
            await harness.bucket.download_file(KEY, harness.destination, harness.callback)
        assert caught.value.errno == errno.ENOSPC
        assert BUCKET in caught.value.__notes__[0]
        harness.check_folder(OLD)
        harness.check_counts()


async def test_a_limit(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with (
            no_file_larger_than(3_000_000),
            pytest.raises(OSError, match="File too large") as caught,
            harness.bounded_download(),
        ):
            await harness.bucket.download_file(KEY, harness.destination, harness.callback)
        assert not isinstance(caught.value, LfaError)
        assert KEY in caught.value.__notes__[0]
        harness.check_folder(OLD)


async def test_a_read_only_disk(small_disk: Path) -> None:
    async with open_harness(small_disk) as harness:
        make_read_only(small_disk)
        with pytest.raises(OSError, match="Read-only"):
            await harness.bucket.download_file(KEY, harness.destination)
        harness.check_folder(OLD)
        assert not harness.server.seen


@pytest.fixture(params=["without a name", "with a name"])
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let temporary files have no name until they are whole, as Linux can, or one from the beginning."""
    if request.param == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return str(request.param)


async def test_the_temporary_file(tmp_path: Path, temporary: str) -> None:
    beside: list[int] = []

    def look(_: FaultyS3Server) -> None:
        beside.append(len(list(tmp_path.iterdir())) - 1)

    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", Hook(before=look)))
        before = os.umask(0o027)
        try:
            await harness.bucket.download_file(KEY, harness.destination)
        finally:
            os.umask(before)
        harness.check_folder(LARGE)
        assert harness.destination.stat().st_mode & 0o777 == 0o640
        assert set(beside) == {int(temporary == "with a name")}


async def test_the_temporary_file_of_a_failure(tmp_path: Path, temporary: str) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", Status(403, "AccessDenied"), nth=3))
        with pytest.raises(AccessDeniedError):
            await harness.bucket.download_file(KEY, harness.destination)
        harness.check_folder(OLD)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Nothing is forbidden to root: be nobody meanwhile, in all threads."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


async def test_a_folder_without_permission(tmp_path: Path) -> None:
    # Not in `tmp_path`, which nobody but its owner may enter.
    with TemporaryDirectory() as name:
        folder = Path(name)
        async with open_harness(tmp_path) as harness:
            await harness.bucket.download_file(KEY, folder / "file")  # imports all that it takes
            folder.chmod(0o555)
            with unprivileged(), pytest.raises(PermissionError) as caught:
                await harness.bucket.download_file(KEY, folder / "other")
            assert str(folder) in str(caught.value)
            assert [file.name for file in folder.iterdir()] == ["file"]
            folder.chmod(0o700)


async def test_no_such_folder(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with pytest.raises(FileNotFoundError) as caught:
            await harness.bucket.download_file(KEY, tmp_path / "none" / "file")
        assert not isinstance(caught.value, LfaError)
        assert not harness.server.seen
        harness.check_folder(OLD)


async def test_the_destination_is_a_directory(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with pytest.raises(IsADirectoryError):
            await harness.bucket.download_file(KEY, tmp_path)
        assert not harness.server.seen
        harness.check_folder(OLD)


async def test_the_destination_is_a_fifo(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        with pytest.raises(FileExistsError, match="not a regular file"):
            await harness.bucket.download_file(KEY, fifo)
        assert fifo.is_fifo()
        assert sorted(tmp_path.iterdir()) == [harness.destination, fifo]
        assert not harness.server.seen


async def test_the_destination_is_a_symbolic_link(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_bytes(OLD)
    async with open_harness(tmp_path) as harness:
        harness.destination.unlink()
        harness.destination.symlink_to(elsewhere)
        await harness.bucket.download_file(KEY, harness.destination)
        assert not harness.destination.is_symlink()
        harness.check_folder(LARGE)
        assert elsewhere.read_bytes() == OLD


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["the file", "its folder", "its folder's folder"])
async def test_a_key_is_led_out_of_the_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, depth: int
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    victim = elsewhere / "file"
    victim.write_bytes(OLD)
    folder = tmp_path_factory.mktemp("into")
    key = "a/b/file"
    async with open_harness(tmp_path) as harness:
        harness.server.put(BUCKET, key, LARGE)
        if depth == 0:  # the link is replaced
            (folder / "a" / "b").mkdir(parents=True)
            (folder / key).symlink_to(victim)
            path = await harness.bucket.download_file(key, directory=folder)
            assert path.read_bytes() == LARGE
            assert not path.is_symlink()
        else:
            where = folder / "a" / "b" if depth == 1 else folder / "a"
            where.parent.mkdir(exist_ok=True)
            where.symlink_to(elsewhere)
            with pytest.raises(ValueError, match="would leave"):
                await harness.bucket.download_file(key, directory=folder)
            assert not harness.server.seen
        assert victim.read_bytes() == OLD
        assert list(elsewhere.iterdir()) == [victim]


@pytest.mark.parametrize("key", ["../file", "a/../../file", "a/..", ".."])
async def test_a_key_that_climbs(tmp_path: Path, key: str) -> None:
    async with open_harness(tmp_path) as harness:
        with pytest.raises(ValueError, match="key"):
            await harness.bucket.download_file(key, directory=tmp_path)
        assert not harness.server.seen
        harness.check_folder(OLD)


# Those that sound as if the network had failed.
OF_THE_DISK = [
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ECONNREFUSED,
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
]


@pytest.mark.parametrize("number", OF_THE_DISK, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["pwrite", "fsync", "pread", "open"])
async def test_the_disks_errors_are_the_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    error = OSError(number, os.strerror(number), "a file")

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    async with open_harness(tmp_path, config=replace(CONFIG, verify_etag=call == "pread")) as harness:
        await harness.bucket.exists(KEY)
        before = len(harness.server.seen)
        with monkeypatch.context() as broken:
            broken.setattr(os, call, fail)
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                await harness.bucket.download_file(KEY, harness.destination)
        assert caught.value is error
        assert type(error) is type(OSError(number, ""))
        assert KEY in error.__notes__[0]
        # Nothing was tried again.
        asked = [seen.headers.get("range") for seen in harness.server.seen[before:]]
        assert len(asked) == len(set(asked))
        harness.check_folder(OLD)


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "the disk is broken")])
async def test_a_large_file_is_flushed_while_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    data, flush, flushed = bytes(64 * MiB), os.fsync, asyncio.Event()
    loop = asyncio.get_running_loop()

    def fsync(fd: int) -> None:
        loop.call_soon_threadsafe(flushed.set)
        if error is not None:
            raise error
        flush(fd)

    async def hold_back_the_end(server: FaultyS3Server) -> None:
        if server.seen[-1].headers["range"].endswith(f"-{len(data) - 1}"):
            await asyncio.wait_for(flushed.wait(), 10)

    config = TransferConfig(max_concurrency=1, range_size=16 * MiB)
    async with open_harness(tmp_path, config=config) as harness:
        harness.server.put(BUCKET, "large", data)
        harness.server.script(Fault("GetObject", Hook(before=hold_back_the_end)))
        monkeypatch.setattr(os, "fsync", fsync)
        if error is None:
            await harness.bucket.download_file("large", harness.destination)
            harness.check_folder(data)
        else:
            with pytest.raises(OSError, match="the disk is broken") as caught:
                await harness.bucket.download_file("large", harness.destination)
            assert caught.value is error
            harness.check_folder(OLD)
