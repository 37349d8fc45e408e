"""Keys as paths in a folder: each key has its own file, or an error; nothing leads out of the folder."""

from __future__ import annotations

import os
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session
from tests.faults import Fault, FaultyS3Server, Hook
from tests.faults.harness import CONFIG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lsst_lfa import AsyncS3Bucket


@pytest.fixture
async def server() -> AsyncIterator[FaultyS3Server]:
    async with FaultyS3Server(buckets=["b"]) as server:
        yield server


@pytest.fixture
async def bucket(server: FaultyS3Server) -> AsyncIterator[AsyncS3Bucket]:
    keys: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}
    async with S3Session(endpoint_url=server.endpoint_url, config=CONFIG, **keys) as session:
        yield session.bucket("b")


async def mirror(bucket: AsyncS3Bucket, folder: Path, keys: tuple[str, ...]) -> dict[str, str]:
    """Download keys in this order; return what became of those that could not be."""
    failed = {}
    for key in keys:
        try:
            path = await bucket.download_file(key, directory=folder)
        except (OSError, ValueError) as error:
            failed[key] = str(error)
        else:
            assert path.is_dir() if key.endswith("/") else path.read_text() == key
    return failed


@pytest.mark.parametrize("keys", list(permutations(["d/", "d/x", "d/e/", "d/e/y"])))
async def test_markers_become_folders(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    for key in keys:
        server.put("b", key, b"" if key.endswith("/") else key.encode())
    assert await mirror(bucket, tmp_path, keys) == {}
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["d", "d/e", "d/e/y", "d/x"]


@pytest.mark.parametrize("keys", list(permutations(["x//y", "/x/y", "x/y", "x/y//"])))
async def test_keys_with_empty_segments_are_refused(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    for key in keys:
        server.put("b", key, key.encode())
    failed = await mirror(bucket, tmp_path, keys)
    assert failed.keys() == {"x//y", "/x/y", "x/y//"}
    assert (tmp_path / "x/y").read_text() == "x/y"


@pytest.mark.parametrize("keys", list(permutations(["a", "a/b"])))
async def test_a_file_and_a_folder_of_one_name_collide(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    for key in keys:
        server.put("b", key, key.encode())
    assert (await mirror(bucket, tmp_path, keys)).keys() == {keys[1]}
    assert (tmp_path / keys[0]).read_text() == keys[0]
    assert not list(tmp_path.rglob("*.part"))


async def test_a_marker_with_data_is_not_lost(server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    server.put("b", "d/", b"data")
    assert "not empty" in (await mirror(bucket, tmp_path, ("d/",)))["d/"]
    assert (await bucket.download_file("d/", tmp_path / "file")).read_bytes() == b"data"


@pytest.mark.parametrize("keys", list(permutations(["d", "d/"])))
async def test_a_marker_and_a_file_of_one_name_collide(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    server.put("b", "d", b"d")
    server.put("b", "d/", b"")
    assert (await mirror(bucket, tmp_path, keys)).keys() == {keys[1]}


@pytest.mark.parametrize("link", ["d", "d/e"])
@pytest.mark.parametrize("key", ["d/e/", "d/e/x"])
async def test_no_link_leads_a_mirror_out_of_its_folder(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, link: str, key: str
) -> None:
    server.put("b", key, b"" if key.endswith("/") else key.encode())
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(elsewhere)
    assert "would leave" in (await mirror(bucket, folder, (key,)))[key]
    assert not list(elsewhere.iterdir())


async def test_a_link_in_the_middle_of_a_folder_stops_only_what_is_behind_it(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path
) -> None:
    keys = ["a/1", "a/2", "a/out/1", "a/out/2", "a/out/in/3", "a/z", "b", "c/1", "c/in/2", "c/z"]
    for key in keys:
        server.put("b", key, key.encode())
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (elsewhere / "in").mkdir(parents=True)
    (folder / "a").mkdir(parents=True)
    (folder / "a/out").symlink_to(elsewhere)
    (folder / "c").symlink_to(folder / "a")
    summary = await bucket.download_folder("", folder)
    assert summary.failed.keys() == {"a/out/1", "a/out/2", "a/out/in/3"}
    assert all("would leave" in str(error) for error in summary.failed.values())
    assert [path.name for path in elsewhere.rglob("*")] == ["in"]
    assert (folder / "a/in/2").read_bytes() == b"c/in/2"
    assert {path.name for path in folder.rglob("*")} == {"a", "1", "2", "out", "z", "b", "c", "in"}


@pytest.mark.parametrize("key", ["d/", "d/x"])
async def test_a_relative_folder_is_that_of_the_start(
    server: FaultyS3Server, bucket: AsyncS3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    server.put("b", key, b"" if key.endswith("/") else b"data")
    for name in ("here/out", "there/out"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    server.script(Fault("*", Hook(before=lambda _: os.chdir(tmp_path / "there"))))
    path = await bucket.download_file(key, directory="out")
    assert path == tmp_path / "here/out" / key
    assert path.exists()
    assert not list((tmp_path / "there/out").iterdir())
    if not key.endswith("/"):
        monkeypatch.chdir(tmp_path / "here")
        assert await bucket.download_file(key, "out/file") == tmp_path / "here/out/file"
        assert (tmp_path / "here/out/file").exists()
