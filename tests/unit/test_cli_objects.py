"""``ls``, ``stat``, ``rm`` and ``share``: objects without their data."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, download_url

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server
    from tests.unit.command_line import Shell

KEYS = ("2026/03/01/a.fits", "2026/03/01/b.fits", "2026/03/02/c.fits", "2026.txt", "x//y")


@pytest.fixture(scope="module")
def place(server: MockS3Server) -> str:
    """Return the URL of a bucket that has some objects."""
    server.create_bucket("listed")
    fill(server, "listed", *KEYS)
    return "s3://listed/"


def fill(server: MockS3Server, bucket: str, *keys: str, **options: Any) -> None:
    async def upload() -> None:
        async with S3Session.for_mock(server) as session:
            for key in keys:
                await session.bucket(bucket).upload(key.encode(), key, **options)

    asyncio.run(upload())


def test_a_bucket_s_folders_are_listed_like_folders(lfa: Shell, place: str, server: MockS3Server) -> None:
    for target in (place, place[:-1], f"{server.endpoint_url}/listed", f"{server.endpoint_url}/listed/"):
        assert lfa("ls", target) == (0, "2026.txt\n2026/\nx/\n", "")
    assert lfa("ls", "--bucket", "listed", "2026/").lines == ["03/"]
    assert lfa("ls", f"{place}2026/03").lines == ["01/", "02/"], "a folder without its /, which is all that begins so"
    assert lfa("ls", f"{place}2026").lines == ["2026.txt", "2026/"]
    assert lfa("ls", f"{place}2026/03/01/a").lines == ["a.fits"]
    assert lfa("ls", f"{place}x/").lines == ["/"]
    assert lfa("ls", "-r", f"{place}2026/03").lines == ["03/01/a.fits", "03/01/b.fits", "03/02/c.fits"]
    assert lfa("ls", "-r", place).lines == sorted(KEYS)


def test_a_long_listing_has_sizes_and_times(lfa: Shell, place: str) -> None:
    file, folder, _ = lfa("ls", "-l", place).lines
    assert re.fullmatch(r"      8 B  20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ  2026\.txt", file)
    assert folder == f"   folder  {'':20}  2026/"


def test_json_has_all_that_the_listing_tells(lfa: Shell, place: str) -> None:
    file, folder, _ = lfa("ls", "--json", place).json
    assert folder == {"type": "folder", "bucket": "listed", "key": "2026/"}
    assert (file["type"], file["key"], file["size"]) == ("object", "2026.txt", 8)
    assert re.fullmatch(r"[0-9a-f]{32}", file["etag"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", file["last_modified"])


def test_what_is_not_there_is_not_found_but_an_empty_bucket_is_empty(lfa: Shell, server: MockS3Server) -> None:
    assert lfa("ls", "s3://test") == (0, "", "")
    assert lfa("ls", "s3://test/nothing") == (3, "", "lsst-lfa: bucket test has no key that begins with 'nothing'\n")
    done = lfa("ls", "s3://no-such-bucket")
    assert (done.code, done.out) == (3, "")
    assert "no-such-bucket" in done.err
    assert server.endpoint_url in done.err


def test_stat_tells_all_that_head_does(lfa: Shell, server: MockS3Server) -> None:
    fill(server, "test", "k.fits", metadata={"night": "ünï", "esc": "x"})
    done = lfa("stat", "s3://test/k.fits")
    assert (done.code, done.err) == (0, "")
    for line in (
        rf"url: +{server.endpoint_url}/test/k\.fits",
        r"key: +k\.fits",
        r"size: +6 \(6 B\)",
        r"etag: +[0-9a-f]{32}",
        r"last modified: +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ",
        r"content type: +application/fits",
        r"metadata night: ünï",
        r"storage class: +STANDARD",
    ):
        assert re.search(f"^{line}$", done.out, re.MULTILINE), line
    (facts,) = lfa("stat", "--json", "--bucket", "test", "k.fits").json
    assert (facts["size"], facts["metadata"]) == (6, {"night": "ünï", "esc": "x"})
    assert lfa("stat", "s3://test/gone", "s3://test/k.fits", "--json").code == 3
    assert lfa("rm", "s3://test/k.fits").code == 0


def test_rm_deletes_what_is_named_and_says_what_is_not_there(lfa: Shell, server: MockS3Server) -> None:
    fill(server, "test", "f/a", "f/b", "f2", "g")
    assert lfa("rm", "-n", "s3://test/g").out == "g\n"
    done = lfa("rm", "s3://test/gone", "s3://test/g")
    assert (done.code, done.out) == (3, "g\n")
    assert "s3://test/gone" in done.err
    assert lfa("rm", "-r", "-n", "s3://test/f").lines == ["f/a", "f/b"]
    assert lfa("ls", "-r", "s3://test").lines == ["f/a", "f/b", "f2"]
    assert lfa("rm", "-r", "s3://test/f").lines == ["f/a", "f/b"]
    assert lfa("ls", "-r", "s3://test").lines == ["f2"], "but not what begins alike"
    assert lfa("rm", "-r", "s3://test/f").code == 3
    assert lfa("rm", "s3://test/f2").code == 0


@pytest.mark.parametrize("target", ["s3://test", "s3://test/", "s3://test//"])
def test_no_whole_bucket_is_deleted(lfa: Shell, target: str) -> None:
    done = lfa("rm", "-r", target)
    assert (done.code, done.out) == (2, "")
    assert "everything in bucket test" in done.err


def test_a_shared_url_is_read_by_anybody_for_a_while(lfa: Shell, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = lfa("share", f"{place}2026.txt", "--expires", "15m")
    assert (done.code, done.err) == (0, "")
    assert "X-Amz-Expires=900" in done.out
    assert lfa("share", f"{place}gone").code == 3
    assert lfa("share", f"{place}2026.txt", "--expires", "8d").code == 2
    assert lfa("share", f"{place}2026.txt", "--expires", "soon").code == 2
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    assert asyncio.run(download_url(done.out.strip())).read() == b"2026.txt"


async def put_odd(server: MockS3Server, name: str, key: str) -> None:
    """Store an object whose key this package would refuse."""
    bucket = S3Session.for_mock(server).bucket(name, create=True)
    async with aclosing(bucket._client), bucket._borrow("test", None) as client:
        await client.call("put_object", key, Body=b"")


def test_a_key_that_cannot_be_deleted_does_not_stop_the_others(lfa: Shell, server: MockS3Server) -> None:
    asyncio.run(put_odd(server, "undeletable", "f/a\x1b"))
    fill(server, "undeletable", "f/b")
    done = lfa("rm", "-r", "s3://undeletable/f")
    assert (done.code, done.lines) == (1, ["f/b"])
    assert "control characters" in done.err
    assert lfa("ls", "-r", "s3://undeletable").lines == ["f/a\\x1b"]


def test_names_that_command_terminals_are_escaped_and_exact_in_json(lfa: Shell, server: MockS3Server) -> None:
    key = "a\x1b[31mred\x07\tb\u202e"
    asyncio.run(put_odd(server, "odd", key))
    assert lfa("ls", "s3://odd").out == "a\\x1b[31mred\\x07\\tb\\u202e\n"
    assert lfa("ls", "--json", "s3://odd").json[0]["key"] == key
