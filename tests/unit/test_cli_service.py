"""`uploads`, `sites` and `mock`; and the commands' help."""

from __future__ import annotations

import asyncio
import signal
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import MockS3Server, S3Session
from lsst_lfa._cli.durations import age_text, parse_duration

from .command_line import Shell, in_bucket, point_at, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shell(server: MockS3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    point_at(server, monkeypatch)
    return Shell(capsys)


# uploads


def begin(server: MockS3Server, *keys: str) -> None:
    async def run(bucket: Any) -> None:
        async with bucket._borrow("test", None) as client:
            for key in keys:
                await client.call("create_multipart_upload", key)

    in_bucket(server, "test", run)


@pytest.fixture
def pending(server: MockS3Server) -> Iterator[None]:
    begin(server, "a/1", "a/2", "b")
    yield
    in_bucket(server, "test", lambda bucket: bucket.abort_stale_uploads(0))


def keys(shell: Shell) -> list[str]:
    return [row["key"] for row in shell("uploads", "list", "s3://test", "--json").json]


@pytest.mark.usefixtures("pending")
def test_pending_uploads_are_listed(shell: Shell) -> None:
    assert keys(shell) == ["a/1", "a/2", "b"]
    assert [row["key"] for row in shell("uploads", "list", "s3://test/a/", "--json").json] == ["a/1", "a/2"]
    assert shell("uploads", "list", "s3://test", "--older-than", "36500d", "--json").out == "", "moto says 2010"
    people = shell("uploads", "list", "--bucket", "test")
    assert people.out.splitlines()[0].split() == ["BEGUN", "(UTC)", "AGE", "UPLOAD", "ID", "KEY"]
    assert people.out.splitlines()[-1].endswith("  b")


@pytest.mark.usefixtures("pending")
def test_stale_uploads_are_aborted_and_a_dry_run_only_lists_them(shell: Shell) -> None:
    assert shell("uploads", "abort", "s3://test", "--older-than", "36500d").code == 0
    ran = shell("-v", "uploads", "abort", "s3://test", "--older-than", "0s", "--dry-run")
    assert (ran.code, "3 would be aborted" in ran.err) == (0, True)
    assert keys(shell) == ["a/1", "a/2", "b"]
    ran = shell("-v", "uploads", "abort", "s3://test/a", "--older-than", "0s")
    assert (ran.code, "2 aborted" in ran.err) == (0, True)
    assert keys(shell) == ["b"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list", "s3://nowhere"], 3),
        (["list"], 2),
        (["abort", "s3://test"], 2),
        (["abort", "s3://test", "--older-than", "soon"], 2),
        (["abort", "s3://test", "--older-than=-7d"], 2),
        (["burn"], 2),
    ],
)
def test_what_cannot_be_done_with_uploads_has_its_exit_code(shell: Shell, arguments: list[str], code: int) -> None:
    ran = shell("uploads", *arguments)
    assert ran.code == code
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5 h", 5400), ("7d", 604_800), ("2W", 1_209_600), ("0s", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days", "1e9d", "9999999d", "٣d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        parse_duration(text)


def test_ages_are_in_their_largest_unit() -> None:
    ages = {5: "5 s", 90: "1.5 min", 7200: "2.0 h", 86_400 * 12: "12 d", -3: "0 s"}
    assert {seconds: age_text(timedelta(seconds=seconds)) for seconds in ages} == ages


# sites


def test_the_sites_are_listed_and_the_own_one_is_marked(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSST_SITE", "Summit")
    lines = shell("sites").out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("*")] == [["*", "summit"]]
    found = {row["name"]: row for row in shell("sites", "--json").json}
    assert found["summit"]["endpoint_url"] == "https://s3.cp.lsst.org"
    assert [name for name, row in found.items() if row["current"]] == ["summit"]


def test_sites_of_a_file_are_among_them(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sites.toml"
    file.write_text('[lab]\nendpoint_url = "https://s3.lab.example.org"\ninstance = "lab"\n')
    monkeypatch.setenv("LSST_LFA_SITES", str(file))
    assert "https://s3.lab.example.org" in shell("sites").out
    file.write_text("[lab\n")
    ran = shell("sites")
    assert (ran.code, str(file) in ran.err) == (2, True)


def test_what_counts_instead_of_the_site_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://user:secret@host:1")
    ran = shell("-v", "sites")
    assert "S3_ENDPOINT_URL is set, so without --site it is http://host:1" in ran.err
    assert "secret" not in ran.err
    monkeypatch.setenv("LSST_SITE", "mars")
    assert "LSST_SITE is mars, which is none of these" in shell("sites").err


# mock


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_mock_serves_what_it_says_until_it_is_told_to_end(number: signal.Signals, code: int, tmp_path: Path) -> None:
    port = free_port()
    with start("mock", "--port", str(port), "--bucket", "first", "--bucket", "second") as mock:
        assert mock.stdout is not None
        lines = [mock.stdout.readline() for _ in range(3)]
        exports = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
        assert exports["S3_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"

        async def use() -> list[str]:
            async with S3Session(
                endpoint_url=exports["S3_ENDPOINT_URL"],
                access_key_id=exports["AWS_ACCESS_KEY_ID"],
                secret_access_key=exports["AWS_SECRET_ACCESS_KEY"],
            ) as session:
                await session.bucket("second").upload(bytes(6 << 20), "key")
                return [item.key async for item in session.bucket("second").list()]

        assert asyncio.run(use()) == ["key"]
        mock.send_signal(number)
        out, said = mock.communicate(timeout=30)
    assert (mock.returncode, out, "Traceback" in said) == (code, "", False)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_taken_is_told(shell: Shell, server: MockS3Server) -> None:
    ran = shell("mock", "--port", server.endpoint_url.rpartition(":")[2])
    assert ran.code == 1
    assert "in use" in ran.err
    assert ran.out == ""
    assert shell("mock", "--port", "70000").code == 2
    assert shell("mock", "--bucket", "No Bucket").code == 2


# help


COMMANDS = "header preview check spool spool-list spool-drain spool-adopt uploads-list uploads-abort sites mock"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_each_command_has_help(shell: Shell, command: str) -> None:
    words = command.split("-")
    ran = shell(*words, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: lsst-lfa {' '.join(words)} ")
