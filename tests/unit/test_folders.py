"""Uploads and downloads of folders."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import FolderSummary, errors

if TYPE_CHECKING:
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session

MiB = 1024 * 1024
FILES = {
    "a.fits": b"first",
    "empty": b"",
    "deep/er/ü x.yaml": b"key: value",
    "deep/medium": os.urandom(2 * MiB),
    "large.bin": os.urandom(11 * MiB),
}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "nothing" / "in it").mkdir(parents=True)
    return folder


@pytest.fixture
def own(session: S3Session, server: MockS3Server, request: pytest.FixtureRequest) -> AsyncS3Bucket:
    """Return a bucket of the test's own."""
    name = f"folders-{abs(hash(request.node.name))}"
    server.create_bucket(name)
    return session.bucket(name)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("prefix", ["", "night/1", "night/1/"])
async def test_a_folder_goes_up_and_comes_back(own: AsyncS3Bucket, folder: Path, tmp_path: Path, prefix: str) -> None:
    counts: list[int] = []
    assert await own.upload_folder(folder, prefix, counts.append) == FolderSummary(transferred=5, size=SIZE)
    assert sum(counts) == SIZE
    where = f"{prefix.rstrip('/')}/" if prefix else ""
    assert {item.key async for item in own.list()} == {where + name for name in FILES}
    assert (await own.head(f"{where}deep/er/ü x.yaml")).content_type == "application/yaml"
    counts.clear()
    there = tmp_path / "new" / "there"
    assert await own.download_folder(prefix, there, counts.append) == FolderSummary(transferred=5, size=SIZE)
    assert sum(counts) == SIZE
    assert content(there) == FILES


async def test_what_is_equal_is_skipped(own: AsyncS3Bucket, folder: Path, tmp_path: Path) -> None:
    await own.upload_folder(folder)
    assert await own.upload_folder(folder) == FolderSummary(skipped=5)
    (folder / "a.fits").write_bytes(b"other")  # as long as before
    (folder / "large.bin").write_bytes(FILES["large.bin"][:-1] + b"x")
    counts: list[int] = []
    assert (await own.upload_folder(folder, callback=counts.append)).transferred == 2
    assert sum(counts) == 5 + 11 * MiB
    there = tmp_path / "there"
    assert (await own.download_folder("", there)).transferred == 5
    assert await own.download_folder("", there) == FolderSummary(skipped=5)
    (there / "a.fits").write_bytes(b"third")
    (there / "empty").unlink()
    assert (await own.download_folder("", there)).transferred == 2
    assert content(there) == content(folder)
    assert (await own.download_folder("", there, skip_equal=False)).transferred == 5
    assert (await own.upload_folder(folder, skip_equal=False)).transferred == 5


async def test_links_that_lead_out_are_failures(own: AsyncS3Bucket, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "broken").symlink_to(folder / "gone")
    (folder / "itself").symlink_to("itself")
    (folder / "in").symlink_to(folder / "a.fits")
    os.mkfifo(folder / "pipe")
    summary = await own.upload_folder(folder)
    assert summary.failed.keys() == {"out", "folder", "broken", "itself", "pipe"}
    assert summary.transferred == 6
    assert await own.read("in") == b"first"
    assert "leads out" in str(summary.failed["out"])
    with pytest.raises(OSError, match="broken") as caught:
        summary.raise_for_failures()
    assert "one of 5" in caught.value.__notes__[0]
    FolderSummary().raise_for_failures()


async def test_a_folder_that_cannot_be_read_does_not_end_the_others(
    own: AsyncS3Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if path in refused:
            raise PermissionError(errno.EACCES, "no", str(path))
        return scandir(path)

    refused = {folder / "deep"}
    monkeypatch.setattr(os, "scandir", refuse)
    summary = await own.upload_folder(folder)
    assert summary.transferred == 3
    assert {name: type(error) for name, error in summary.failed.items()} == {"deep": PermissionError}
    refused.add(folder)
    with pytest.raises(PermissionError):
        await own.upload_folder(folder)


async def test_no_key_leaves_the_folder(own: AsyncS3Bucket, tmp_path: Path) -> None:
    for key in ("p/good", "p//double", "p/link/x", "p/a/b"):
        await own.upload(b"data", key)
    await own.upload(b"", "p/marker/")
    await own.upload(b"data", "p/full/")
    await own.upload(b"data", "p/")
    there = tmp_path / "there"
    there.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (there / "link").symlink_to(outside)
    (there / "a").write_text("a file where a folder should be")
    async with own._borrow("test", None) as client:
        for key in ("p/../up", "p/./same"):  # as a hostile client would
            await client.call("put_object", key, Body=b"evil")
    summary = await own.download_folder("p", there)
    assert summary.failed.keys() == {"", "/double", "link/x", "a/b", "full/", "../up", "./same"}
    assert summary.transferred == 2
    assert (there / "good").read_bytes() == b"data"
    assert (there / "marker").is_dir()
    assert list(outside.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"there", "outside"}


async def test_a_link_at_the_destination_is_replaced(own: AsyncS3Bucket, tmp_path: Path) -> None:
    await own.upload(b"data", "x")
    (tmp_path / "elsewhere").write_bytes(b"data")
    there = tmp_path / "there"
    there.mkdir()
    (there / "x").symlink_to(tmp_path / "elsewhere")
    assert (await own.download_folder("", there)).transferred == 1
    assert not (there / "x").is_symlink()


async def test_a_pipe_at_the_destination_is_a_failure(own: AsyncS3Bucket, tmp_path: Path) -> None:
    await own.upload(b"data", "x")
    await own.upload(b"data", "y")
    os.mkfifo(tmp_path / "x")
    summary = await own.download_folder("", tmp_path)
    assert {name: type(error) for name, error in summary.failed.items()} == {"x": FileExistsError}
    assert (tmp_path / "y").read_bytes() == b"data"


async def test_what_concerns_all_ends_it(session: S3Session, folder: Path, tmp_path: Path) -> None:
    for skip in (True, False):
        with pytest.raises(errors.BucketNotFoundError):
            await session.bucket("nowhere").upload_folder(folder, skip_equal=skip)
    with pytest.raises(errors.BucketNotFoundError):
        await session.bucket("nowhere").download_folder("", tmp_path)
    with pytest.raises(FileNotFoundError):
        await session.bucket("test").upload_folder(tmp_path / "missing")


async def test_one_file_that_fails_does_not_end_the_others(own: AsyncS3Bucket, folder: Path) -> None:
    (folder / "new\nline").write_text("no key has one")
    summary = await own.upload_folder(folder)
    assert summary.transferred == 5
    assert [type(error) for error in summary.failed.values()] == [ValueError]


async def test_arguments_are_checked(own: AsyncS3Bucket, folder: Path) -> None:
    with pytest.raises(ValueError, match="max_files"):
        await own.upload_folder(folder, max_files=0)
    with pytest.raises(ValueError, match="max_files"):
        await own.download_folder("", folder, max_files=0)
    with pytest.raises(ValueError, match="extra_args"):
        await own.upload_folder(folder, extra_args={"Nonsense": 1})


async def test_one_at_a_time_and_many_do_the_same(own: AsyncS3Bucket, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03}").write_bytes(str(number).encode() * 100)
    for max_files, expected in ((40, 60), (1, 0)):
        assert (await own.upload_folder(folder, "m", max_files=max_files)).transferred == expected
    there = tmp_path / "there"
    await own.download_folder("m", there, max_files=40)
    assert content(there) == content(folder)


async def test_downloads_are_verified_where_that_is_configured(
    session: S3Session, own: AsyncS3Bucket, folder: Path, tmp_path: Path
) -> None:
    await own.upload_folder(folder)
    bucket = session.bucket(own.name, config=replace(session.config, verify_etag=True))
    assert (await bucket.download_folder("", tmp_path / "there")).transferred == 5
