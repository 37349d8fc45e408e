"""``put``, ``get`` and ``cat``: what becomes of files, objects, and of what cannot be moved."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session
from lsst_lfa._cli import downloading, uploading
from lsst_lfa._urls import ObjectUrl

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server
    from tests.unit.command_line import Shell

MiB = 1024 * 1024
ODD = ("with space.fits", "ünï¢ode.fits", "-leading", "plus+%2F?#.txt", "empty")


@pytest.fixture
def place(server: MockS3Server, request: pytest.FixtureRequest) -> str:
    """Return the URL of a bucket of the test's own."""
    name = f"cli-{abs(hash(request.node.name))}"
    server.create_bucket(name)
    return f"s3://{name}/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "night"
    for name in (*ODD, "deep/er/a.fits"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else name.encode())
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# put


def test_a_file_keeps_its_name_in_a_folder_and_gets_the_key_it_is_given(
    lfa: Shell, server: MockS3Server, place: str
) -> None:
    Path("a.fits").write_bytes(b"data")
    url = place.replace("s3:/", server.endpoint_url)
    assert lfa("put", "a.fits", f"{place}p/") == (0, f"{url}p/a.fits\n", "")
    assert lfa("put", "a.fits", f"{place}p/b.bin", "--content-type", "text/x-mine") == (0, f"{url}p/b.bin\n", "")
    assert lfa("put", "a.fits", place[:-1]) == (0, f"{url}a.fits\n", "")
    assert lfa("put", "a.fits", f"{url}https/") == (0, f"{url}https/a.fits\n", "")
    bucket = place.split("/")[2]
    assert lfa("put", "a.fits", "--bucket", bucket, "--key", "k/") == (0, f"{url}k/a.fits\n", "")
    assert lfa("put", "a.fits", "--bucket", bucket) == (0, f"{url}a.fits\n", "")
    types = [each["content_type"] for each in lfa("stat", "--json", f"{place}p/a.fits", f"{place}p/b.bin").json]
    assert types == ["application/fits", "text/x-mine"]


def test_files_and_folders_go_up_together_and_equal_ones_of_a_folder_once(lfa: Shell, place: str, folder: Path) -> None:
    Path("one").write_bytes(b"1")
    done = lfa("put", "one", "night", f"{place}to/", "--json")
    assert (done.code, done.err) == (0, "")
    assert {each["url"].rpartition("/to/")[2] for each in done.json} == {
        "one",
        *(f"night/{n}" for n in content(folder)),
    }
    assert not any(each["skipped"] for each in done.json)
    again = lfa("put", "night/", f"{place}to/", "--json").json
    assert [each["skipped"] for each in again] == [True] * 6
    assert lfa("put", "night", f"{place}other", "-q").code == 0
    assert lfa("ls", f"{place}other/deep/er/").lines == ["a.fits"], "the folder itself became that key"
    os.chdir("night")
    assert lfa("put", ".", f"{place}dot/").code == 0
    assert set(lfa("ls", "-r", f"{place}dot/").lines) == set(content(folder)), "the current folder has no name"


def test_odd_names_go_up_and_come_back(lfa: Shell, place: str, folder: Path) -> None:
    os.chdir(folder)
    assert lfa("put", place, *ODD).code == 2, "the destination stands last"
    assert lfa("put", "--", *ODD, place).code == 0
    os.chdir("..")
    Path("back").mkdir()
    done = lfa("get", "-o", "back", *(place + name for name in ODD))
    assert (done.code, done.err) == (0, "")
    assert set(done.lines) == {f"back/{name}" for name in ODD}
    assert content(Path("back")) == {name: (folder / name).read_bytes() for name in ODD}
    assert lfa("get", "-r", place, "-o", "all").code == 0
    assert content(Path("all")) == content(Path("back"))


def test_one_that_fails_does_not_stop_the_others_and_is_told_at_the_end(lfa: Shell, place: str) -> None:
    for name in ("a", "b", "new\nline"):
        Path(name).write_bytes(b"data")
    Path(os.fsdecode(b"caf\xe9")).write_bytes(b"data")
    done = lfa("put", "a", "gone", "new\nline", os.fsdecode(b"caf\xe9"), "b", place)
    assert done.code == 1
    assert {line.rpartition("/")[2] for line in done.lines} == {"a", "b"}
    assert done.err.count("lsst-lfa: ") == done.err.count("\n") == 3
    for text in ("No such file or directory: 'gone'", "control characters", "cannot be encoded"):
        assert text in done.err
    assert lfa("put", "gone", place).code == 3, "alone: not found"
    assert lfa("put", "gone", "gone too", place).code == 3


def test_a_folder_that_cannot_be_read_does_not_stop_the_others(
    lfa: Shell, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "file").write_bytes(b"data")
    monkeypatch.setattr(os, "scandir", refuse)
    done = lfa("put", "a", "b", place)
    assert done.code == 4
    assert [line.rpartition("/b/")[2] for line in done.lines] == ["file"]
    assert "Permission denied" in done.err


def test_a_standard_input_that_is_closed_is_no_empty_object(
    lfa: Shell, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert lfa("put", "-", f"{place}k") == (2, "", "lsst-lfa: the standard input is closed\n")
    assert lfa("ls", place).out == ""


def test_to_plan_many_files_takes_no_time() -> None:
    count, begun = 20_000, time.process_time()
    urls = [ObjectUrl(None, "bucket", f"k/{number}") for number in range(count)]
    assert len(downloading.plan(urls, "folder/", recursive=False)) == count
    assert len(uploading.plan([url.key for url in urls], "").files) == count
    assert time.process_time() - begun < 10, "not for each file a look at all the others"


def test_a_folder_with_links_out_of_it_and_pipes_is_sent_without_them(lfa: Shell, place: str) -> None:
    Path("f/sub").mkdir(parents=True)
    Path("f/a").write_bytes(b"data")
    Path("f/in").symlink_to("a")
    Path("f/out").symlink_to("/etc/hostname")
    Path("f/loop").symlink_to("sub")
    os.mkfifo("f/pipe")
    done = lfa("put", "f", place)
    assert done.code == 1
    assert {line.rpartition("/f/")[2] for line in done.lines} == {"a", "in"}
    assert all(f"'{name}' is" in done.err for name in ("out", "loop", "pipe"))
    assert lfa("put", "f/pipe", place).code == 2, "nobody waits for its writer"


def test_nothing_is_replaced_if_that_is_not_wanted(lfa: Shell, place: str, folder: Path) -> None:
    Path("x").write_bytes(b"new")
    assert lfa("put", "night", f"{place}n").code == 0
    done = lfa("put", "--if-none-match", "x", f"{place}n/empty")
    assert (done.code, done.out) == (4, "")
    assert "the key already exists" in done.err
    (folder / "empty").write_bytes(b"changed")
    done = lfa("put", "--if-none-match", "night", f"{place}n")
    assert done.code == 4
    assert len(done.lines) == 5, "those that are equal"
    assert lfa("cat", f"{place}n/empty").out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "a", "b", "s3://test/key"),
        ("put", "s3://test/p/"),
        ("put", "a"),
        ("put", "a", "s3://test/", "--key", "k"),
        ("put", "a", "s3://test/", "--bucket", "test"),
        ("put", "a", "--key", "k"),
        ("put", "a", "s3://test/../k"),
        ("put", "a", "file:///tmp/"),
        ("put", "", "s3://test/p/"),
        ("put", "-", "s3://test/p/"),
        ("put", "-", "a", "s3://test/p/"),
        ("put", "a", "d/a", "s3://test/p/"),
        ("put", "a", "http://host/test/", "--site", "summit"),
        ("get", "key"),
        ("get", "--bucket", "test", "a/../b"),
        ("get", "s3://test/p/"),
        ("get", "s3://test/a", "s3://test/p/a"),
        ("get", "s3://test/a", "s3://test/b", "-o", "file"),
        ("get", "s3://test/a", "-o", "-"),
        ("get", "s3://test/a", "-o", ""),
        ("get", "-r", "file:///tmp/"),
        ("get", "ftp://host/a/b"),
        ("get", "s3://test/a", "--wait", "-1"),
        ("get", "-r", "s3://test/p/", "--wait", "1"),
        ("cat", "s3://test"),
        ("get", "s3://test/a", "--site", "nowhere"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error_and_nothing_is_sent(lfa: Shell, arguments: tuple[str, ...]) -> None:
    Path("d").mkdir()
    for name in ("a", "b", "d/a"):
        Path(name).write_bytes(b"data")
    done = lfa(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert "Traceback" not in done.err
    assert lfa("ls", "-r", "s3://test").out == ""


# get


def test_what_is_equal_is_skipped_and_what_differs_is_replaced(lfa: Shell, place: str) -> None:
    data = os.urandom(MiB)
    Path("here").mkdir()
    Path("here/a").write_bytes(data)
    assert lfa("put", "here/a", place).code == 0
    first = lfa("get", f"{place}a", "--json").json
    assert first == [{"path": "a", "size": MiB, "skipped": False}]
    before = Path("a").stat()
    assert lfa("get", f"{place}a", "--json").json == [{"path": "a", "size": None, "skipped": True}]
    assert Path("a").stat().st_ino == before.st_ino
    Path("a").write_bytes(b"x" * MiB)
    assert lfa("get", f"{place}a").lines == ["a"]
    assert Path("a").read_bytes() == data
    Path("link").symlink_to("a")
    assert lfa("get", f"{place}a", "-o", "link").code == 0
    assert not Path("link").is_symlink(), "replaced, not followed"
    assert lfa("get", f"{place}a", "-o", "new/folder/").lines == ["new/folder/a"]


def test_a_prefix_comes_with_all_that_is_in_it(lfa: Shell, place: str, folder: Path) -> None:
    assert lfa("put", "night", place).code == 0
    Path("x").write_bytes(b"not in it")
    assert lfa("put", "x", f"{place}nights").code == 0
    assert lfa("get", "-r", f"{place}night", "-o", "out/").code == 0
    assert content(Path("out/night")) == content(folder)
    assert content(Path("out")).keys() == {f"night/{name}" for name in content(folder)}, "but not what begins alike"
    assert [each["skipped"] for each in lfa("get", "-r", f"{place}night/", "-o", "out/", "--json").json] == [True] * 6
    done = lfa("get", "-r", f"{place}nothing")
    assert (done.code, done.out) == (3, "")
    assert not Path("nothing").exists()


def test_a_key_that_is_missing_leaves_nothing_and_the_others_come(lfa: Shell, place: str) -> None:
    Path("a").write_bytes(b"data")
    assert lfa("put", "a", place).code == 0
    Path("a").unlink()
    done = lfa("get", f"{place}gone", f"{place}a")
    assert (done.code, done.lines) == (3, ["a"])
    assert "gone" in done.err
    assert {path.name for path in Path().iterdir()} == {"a"}
    assert lfa("get", f"{place}a", "-o", "no/such/file").code == 0, "the folder is made"
    done = lfa("get", f"{place}a", "-o", "/proc/no")
    assert (done.code, "/proc" in done.err) == (3, True)


def test_a_link_that_was_shared_is_downloaded_and_nothing_shows_its_signature(lfa: Shell, place: str) -> None:
    data = os.urandom(MiB)
    Path("a").write_bytes(data)
    lfa("put", "a", place)
    url = lfa("share", f"{place}a").out.strip()
    assert lfa("get", url, "-o", "b") == (0, "b\n", "")
    assert Path("b").read_bytes() == data
    assert lfa("get", url, "-o", "c/").lines == ["c/a"]
    for option in ((), ("-v",), ("--debug",)):
        done = lfa(*option, "get", url[:-3], "x", "-o", "d/")
        assert done.code == 2
        done = lfa(*option, "get", url.replace("/a?", "/gone?"), "-o", "d/")
        assert done.code == 3
        assert "X-Amz-Signature" not in done.out + done.err
    assert not list(Path("d").iterdir())


def test_a_file_s_url_is_copied(lfa: Shell, tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"data" * MiB)
    url = (tmp_path / "a b").as_uri()
    assert lfa("get", url, "-o", "copy/", "--json").json == [{"path": "copy/a b", "size": 4 * MiB, "skipped": False}]
    assert Path("copy/a b").read_bytes() == b"data" * MiB
    assert lfa("get", url, "-o", "copy/", "--json").json == [{"path": "copy/a b", "size": None, "skipped": True}]
    assert lfa("get", f"{url}x").code == 3


def test_an_object_that_comes_later_is_waited_for(lfa: Shell, server: MockS3Server, place: str) -> None:
    async def upload_later() -> None:
        await asyncio.sleep(0.3)
        async with S3Session.for_mock(server) as session:
            await session.bucket(place.split("/")[2]).upload(b"data", "late")

    writer = threading.Thread(target=lambda: asyncio.run(upload_later()))
    writer.start()
    try:
        assert lfa("get", f"{place}late", "--wait", "20").lines == ["late"]
    finally:
        writer.join()
    began = time.monotonic()
    assert lfa("cat", f"{place}never", "--wait", "0.1").code == 3
    assert time.monotonic() - began > 0.1


# cat


def test_cat_writes_what_it_is_given_in_its_order(lfa: Shell, place: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Path(name).write_text(name * MiB)
    lfa("put", "a", "b", place)
    url = lfa("share", f"{place}b").out.strip()
    (tmp_path / "c").write_text("c")
    done = lfa("cat", url, f"{place}a", (tmp_path / "c").as_uri())
    assert (done.code, done.err) == (0, "")
    assert done.out == "b" * MiB + "a" * MiB + "c"
    done = lfa("cat", f"{place}gone", f"{place}a")
    assert (done.code, done.out) == (3, "a" * MiB)
    assert "gone" in done.err
