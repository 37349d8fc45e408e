"""`spool`: what waits on this machine is listed, sent, and taken over; a look changes nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import LargeFileAnnex, MockS3Server, S3Session
from lsst_lfa._spool.entry import claim
from lsst_lfa._spool.record import change_line
from lsst_lfa._spool.survey import survey

from .command_line import Shell, in_bucket, point_at, start

if TYPE_CHECKING:
    from pathlib import Path

SIDECAR = ".lfa.jsonl"


class Topic:
    """An event that is not sent: the process ends before."""

    async def set_write(self, **_: Any) -> None:
        raise RuntimeError("the process ended")


def publish(folder: Path, *keys: str, bucket: str = "spool", event: Topic | None = None) -> None:
    """Publish files while S3 is down."""

    async def run() -> None:
        async with S3Session(endpoint_url="http://127.0.0.1:1", access_key_id="id", secret_access_key="secret") as s3:
            annex = LargeFileAnnex(s3.bucket(bucket), "GC", 1, spool=folder, upload_timeout=0.01, event=event)
            for key in keys:
                await annex.publish(key.encode(), generator="image", key=key)
            await annex.aclose()

    asyncio.run(run())


@pytest.fixture
def shell(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    point_at(server, monkeypatch)
    monkeypatch.chdir(tmp_path)
    server.create_bucket("spool")
    in_bucket(server, "spool", lambda bucket: bucket.delete_many(_keys(bucket)))
    return Shell(capsys)


async def _keys(bucket: Any) -> Any:
    async for item in bucket.list():
        yield item.key


def stored(server: MockS3Server) -> dict[str, bytes]:
    async def read(bucket: Any) -> dict[str, bytes]:
        return {key: await bucket.read(key) async for key in _keys(bucket)}

    found: dict[str, bytes] = in_bucket(server, "spool", read)
    return found


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what is in a folder, so that any change is seen."""
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture
def trouble(tmp_path: Path) -> Path:
    """A spool with a file in each state that there is."""
    folder = tmp_path / "spool"
    publish(folder, "a/waiting.fits", "a/lost.fits", "a/due.fits", "a/sent.fits")
    home = folder / "spool" / "a"
    (home / "lost.fits").unlink()
    for name, changes in (("due", {"announce": "safe", "stored": True}), ("sent", {"stored": True})):
        (home / f"{name}.fits").unlink()
        with (home / f"{name}.fits{SIDECAR}").open("ab") as file:
            file.write(change_line(**changes))
    (home / "torn.fits").write_bytes(b"x")
    (home / f"torn.fits{SIDECAR}").write_bytes(b'{"lfa": 1, "buck')
    (home / "foreign.fits").write_bytes(b"foreign")
    (home / ".lfa-1234.part").write_bytes(b"part")
    record = json.loads((home / f"waiting.fits{SIDECAR}").read_bytes().splitlines()[0])
    (home / f"begun.fits{SIDECAR}").write_bytes(json.dumps(record | {"key": "a/begun.fits"}).encode() + b"\n")
    return folder


STATES = {
    "foreign.fits": "foreign",
    "torn.fits": "damaged",
    "waiting.fits": "waiting",
    "lost.fits": "lost",
    "due.fits": "event due",
    "sent.fits": "sent",
    "begun.fits": "unfinished",
}


def test_each_state_is_listed_and_a_look_changes_nothing(shell: Shell, trouble: Path) -> None:
    before = everything(trouble)
    ran = shell("spool", "list", trouble, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert {row["key"].removeprefix("a/"): row["state"] for row in ran.json} == STATES
    waiting = next(row for row in ran.json if row["state"] == "waiting")
    assert (waiting["component"], waiting["size"], waiting["bucket"]) == ("GC:1", len("a/waiting.fits"), "spool")
    people = shell("spool", "list", trouble, "-v")
    assert everything(trouble) == before
    lines = people.out.splitlines()
    assert lines[0].split()[:2] == ["STATE", "SIZE"]
    assert len(lines) == 1 + len(STATES)
    assert "its first line does not describe a file" in people.out
    assert "1 waiting" in people.err


def test_what_a_process_works_on_is_busy_and_left_to_it(shell: Shell, tmp_path: Path, server: MockS3Server) -> None:
    folder = tmp_path / "spool"
    publish(folder, "one.fits", "two.fits")
    entry = claim(folder / "spool" / f"one.fits{SIDECAR}")
    assert entry is not None
    try:
        states = {row["key"]: row["state"] for row in shell("spool", "list", folder, "--json").json}
        assert states == {"one.fits": "busy", "two.fits": "waiting"}
        ran = shell("-v", "spool", "drain", folder)
        assert ran.code == 0, ran.err
        assert "one.fits is left to the process that works on it" in ran.err
        assert stored(server) == {"two.fits": b"two.fits"}
    finally:
        asyncio.run(entry.release())


def test_what_waits_is_sent_oldest_first_and_removed(shell: Shell, tmp_path: Path, server: MockS3Server) -> None:
    folder = tmp_path / "spool"
    keys = [f"{number}.fits" for number in (3, 1, 2)]
    publish(folder, *keys)
    ran = shell("spool", "drain", folder, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(row["key"] for row in ran.json) == sorted(keys)
    assert ran.json[0]["url"] == f"{server.endpoint_url}/spool/{ran.json[0]['key']}"
    assert stored(server) == {key: key.encode() for key in keys}
    assert list(folder.rglob("*.fits*")) == []
    assert shell("spool", "drain", folder).out == ""


def test_what_is_to_be_announced_is_left_to_its_component(shell: Shell, tmp_path: Path, server: MockS3Server) -> None:
    folder = tmp_path / "spool"
    publish(folder, "a.fits", event=Topic())
    assert shell("spool", "drain", folder).code == 0
    assert stored(server) == {"a.fits": b"a.fits"}
    (row,) = shell("spool", "list", folder, "--json").json
    assert (row["state"], row["component"]) == ("event due", "GC:1")
    assert shell("spool", "drain", folder).out == "", "it is not sent again"


def test_other_bytes_are_not_overwritten(shell: Shell, tmp_path: Path, server: MockS3Server) -> None:
    folder = tmp_path / "spool"
    publish(folder, "a.fits")
    in_bucket(server, "spool", lambda bucket: bucket.upload(b"other", "a.fits"))
    ran = shell("spool", "drain", folder)
    assert ran.code == 0
    assert "a_r1.fits" in ran.out
    assert stored(server) == {"a.fits": b"other", "a_r1.fits": b"a.fits"}


def test_trouble_is_told_and_does_not_stop_the_rest(shell: Shell, trouble: Path, server: MockS3Server) -> None:
    (trouble / "spool" / "a" / "changed.fits").write_bytes(b"")
    ran = shell("spool", "drain", trouble)
    assert ran.code == 1
    assert stored(server) == {"a/waiting.fits": b"a/waiting.fits"}
    told = [line for line in ran.err.splitlines() if "/a/" in line]
    assert len(told) == 2
    assert "lost.fits: lost" in ran.err
    assert "torn.fits: damaged" in ran.err
    left = {row["key"].removeprefix("a/") for row in shell("spool", "list", trouble, "--json").json}
    assert left == {"lost.fits", "due.fits", "torn.fits", "foreign.fits", "changed.fits"}


def test_damaged_bytes_are_never_sent(
    shell: Shell, tmp_path: Path, server: MockS3Server, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    publish(folder, "a.fits", "b.fits")
    (folder / "spool" / "a.fits").write_bytes(b"A.fits")
    ran = shell("spool", "drain", folder)
    assert ran.code == 1
    assert "a.fits is not what was published" in caplog.text
    assert stored(server) == {"b.fits": b"b.fits"}
    assert (folder / "spool" / "a.fits").exists()


@pytest.mark.parametrize(
    ("bucket", "endpoint", "code", "said"),
    [("spool", "http://127.0.0.1:1", 5, "list_objects_v2 on bucket spool"), ("nowhere", "", 3, "NoSuchBucket")],
)
def test_a_service_that_fails_ends_it_and_nothing_is_lost(  # noqa: PLR0917
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, endpoint: str, code: int, said: str
) -> None:
    folder = tmp_path / "spool"
    publish(folder, "a.fits", "b.fits", bucket=bucket)
    if endpoint:
        monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
    ran = shell("spool", "drain", folder)
    assert ran.code == code, ran.err
    assert sum(said in line for line in ran.err.splitlines()) == 1, "told once"
    assert {kept.state for kept in survey(folder)} == {"waiting"}


@pytest.mark.parametrize("options", [(), ("-v",)])
def test_what_the_annex_would_log_is_said_only_if_asked_for(
    shell: Shell, memory_folder: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    publish(memory_folder, "a.fits", bucket="nowhere")
    (memory_folder / "nowhere" / "foreign.fits").write_bytes(b"foreign")
    caplog.clear()
    assert shell(*options, "spool", "drain", memory_folder).code == 3
    log = caplog.text
    said = [text in log for text in ("dies with the container", "have no sidecar", "S3 did not accept one")]
    assert said == [bool(options)] * 3
    caplog.clear()
    publish(memory_folder, "b.fits", bucket="nowhere")
    assert "dies with the container" in caplog.text, "the annex itself is heard again"


def test_missing_credentials_are_4(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "spool", "a.fits")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    ran = shell("spool", "drain", tmp_path / "spool")
    assert ran.code == 4
    assert "Set AWS_ACCESS_KEY_ID" in ran.err


@pytest.mark.parametrize("verb", ["list", "drain", "adopt"])
def test_a_missing_folder_is_3_and_an_empty_one_is_fine(shell: Shell, tmp_path: Path, verb: str) -> None:
    ran = shell("spool", verb, tmp_path / "none")
    assert ran.code == 3
    assert "none" in ran.err
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    assert shell("spool", verb, tmp_path / "empty").code == 0
    (tmp_path / "file").write_bytes(b"")
    assert shell("spool", verb, tmp_path / "file").code == 1


def test_files_of_older_code_are_taken_in_and_sent(shell: Shell, tmp_path: Path, server: MockS3Server) -> None:
    home = tmp_path / "old" / "spool" / "GC"
    home.mkdir(parents=True)
    (home / "image.fits").write_bytes(b"data")
    (tmp_path / "old" / "Not a bucket").mkdir()
    (tmp_path / "old" / "Not a bucket" / "x").write_bytes(b"x")
    before = everything(tmp_path / "old")
    assert shell("spool", "adopt", tmp_path / "old", "--dry-run", "--json").json[1]["key"] == "GC/image.fits"
    assert everything(tmp_path / "old") == before
    ran = shell("-v", "spool", "adopt", tmp_path / "old")
    assert ran.code == 1
    assert "1 of 2 were taken over" in ran.err
    assert "Not a bucket is left alone" in ran.err
    assert shell("spool", "drain", tmp_path / "old").code == 0
    assert stored(server) == {"GC/image.fits": b"data"}


def test_what_cannot_be_taken_in_does_not_stop_the_rest(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "old" / "spool"
    home.mkdir(parents=True)
    for name in ("loop", "nowhere"):
        (home / name).symlink_to("loop" if name == "loop" else "gone")
    (home / "image.fits").write_bytes(b"data")
    ran = shell("spool", "adopt", tmp_path / "old")
    assert ran.code == 1
    assert {kept.state for kept in survey(tmp_path / "old") if kept.key == "image.fits"} == {"waiting"}
    assert len(list(home.glob(f"*{SIDECAR}"))) == 1


def test_an_empty_argument_is_not_the_current_folder(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "file").write_bytes(b"data")
    before = everything(tmp_path)
    for arguments in (("adopt", ""), ("adopt", tmp_path / "new", "--from", ""), ("drain", "")):
        assert shell("spool", *arguments).code == 2
    assert everything(tmp_path) == before


def test_files_are_taken_in_from_another_folder(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "old" / "spool"
    home.mkdir(parents=True)
    (home / "image.fits").write_bytes(b"data")
    assert shell("spool", "adopt", tmp_path / "new", "--from", tmp_path / "old").code == 0
    assert not (home / "image.fits").exists()
    (kept,) = survey(tmp_path / "new")
    assert (kept.bucket, kept.key, kept.state) == ("spool", "image.fits", "waiting")
    assert (tmp_path / "new" / "spool" / "image.fits").read_bytes() == b"data"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_drain_that_is_ended_loses_nothing(
    shell: Shell, tmp_path: Path, server: MockS3Server, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "spool"
    keys = [f"{number:02}.fits" for number in range(30)]
    publish(folder, *keys)
    with start("spool", "drain", folder) as drain:
        assert drain.stdout is not None
        drain.stdout.readline()
        drain.send_signal(number)
        _, said = drain.communicate(timeout=30)
    assert drain.returncode == code
    assert "Traceback" not in said
    assert {kept.state for kept in survey(folder)} <= {"waiting", "sent"}, "nothing is locked, nothing is torn"
    assert shell("spool", "drain", folder).code == 0
    assert stored(server) == {key: key.encode() for key in keys}
    assert list(folder.rglob("*.fits*")) == []


def test_a_reader_that_has_seen_enough_is_no_failure_of_the_drain(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    publish(folder, *[f"{number}.fits" for number in range(5)])
    with start("spool", "drain", folder) as drain:
        assert drain.stdout is not None
        drain.stdout.close()
        assert drain.stderr is not None
        said = drain.stderr.read()
        assert drain.wait(30) == 141
    assert said == ""
    assert {kept.state for kept in survey(folder)} <= {"waiting", "sent", "event due"}


def test_a_folder_that_may_not_be_written_to_is_listed_and_not_drained(
    shell: Shell, tmp_path: Path, server: MockS3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spool"
    publish(folder, "a.fits")
    opened = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert shell("spool", "list", folder, "--json").json[0]["state"] == "waiting"
    ran = shell("spool", "drain", folder)
    assert ran.code == 1
    assert "Read-only file system" in ran.err
    assert stored(server) == {}
