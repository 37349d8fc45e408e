"""Files on disk with their sidecars: durable, locked, explained."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsst_lfa import Spool
from lsst_lfa._spool import Entry, NotKeptError, Record
from lsst_lfa._spool.record import change_line, parse_sidecar
from lsst_lfa._spool.scan import file_system, is_volatile
from lsst_lfa._transfer import files

RECORD = Record(bucket="bucket", key="GC:1/image/2026/01/31/a ü.fits", component="GC:1", sequence=5)
COUNT = 10_000 if "LSST_LFA_SOAK" in os.environ else 500


async def put(spool: Spool, data: bytes = b"data", record: Record = RECORD, *, release: bool = True) -> Entry:
    """Put a file in the spool."""
    entry, _ = await spool.reserve(record)
    file = entry.new_file()
    await file.create()
    await file.write(memoryview(data), 0)
    await entry.commit(file, len(data), hashlib.md5(data).hexdigest())
    await file.discard()
    if release:
        await entry.release()
    return entry


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Sidecars


def test_a_sidecar_is_read_as_it_was_written() -> None:
    record = replace(RECORD, version=1.5, id="GC1_image_1", announce="stored", if_exists="error")
    assert parse_sidecar(record.first_line()) == record
    data = record.first_line() + change_line(byte_size=3, check_sum="x") + change_line(announced=True)
    assert parse_sidecar(data) == replace(record, byte_size=3, check_sum="x", announced=True)


def test_a_torn_change_did_not_happen() -> None:
    line = change_line(stored=True)
    for length in range(len(line) - 1):
        assert not parse_sidecar(RECORD.first_line() + line[:length]).stored
    # And it does not spoil the one that comes after it.
    assert parse_sidecar(RECORD.first_line() + line[:5] + b"\n" + line).stored


def test_a_newer_versions_fields_are_passed_over() -> None:
    line = json.loads(RECORD.first_line())
    assert parse_sidecar(json.dumps({**line, "colour": "red"}).encode()) == RECORD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"[]\n",
        b"[" * 100_000,
        b"{}\n",
        b'{"lfa": 2}\n',
        RECORD.first_line()[:-20],
        RECORD.first_line().replace(b'"sequence": 5', b'"sequence": "5"'),
        RECORD.first_line().replace(b'"announce": "safe"', b'"announce": "loudly"'),
        RECORD.first_line().replace(b"GC:1/image", b"../../image"),
        RECORD.first_line() + b'{"stored": 1}\n',
    ],
)
def test_what_is_no_sidecar(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_sidecar(data)


# One file


async def test_layout(tmp_path: Path) -> None:
    entry = await put(Spool(tmp_path), b"some data")
    assert entry.payload == tmp_path / "bucket" / RECORD.key
    assert entry.payload.read_bytes() == b"some data"
    sidecar = tmp_path / "bucket" / f"{RECORD.key}.lfa.jsonl"
    lines = [json.loads(line) for line in sidecar.read_text().splitlines()]
    assert lines[0]["key"] == RECORD.key
    assert {"byte_size": 9, "check_sum": hashlib.md5(b"some data").hexdigest()} in lines
    assert [path for path in everything(tmp_path) if (tmp_path / path).is_file()] == [
        f"bucket/{RECORD.key}",
        f"bucket/{RECORD.key}.lfa.jsonl",
    ]


async def test_removing_leaves_nothing(tmp_path: Path) -> None:
    entry = await put(Spool(tmp_path), release=False)
    await entry.remove_and_release()
    await Spool(tmp_path).prune("bucket")
    assert everything(tmp_path) == []


async def test_a_removal_that_stops_in_the_middle_is_no_lost_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await put(Spool(tmp_path), release=False)
    real = os.unlink

    def unlink(path: Path, **options: Any) -> None:
        if path == entry.sidecar:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(OSError, match="Input/output"):
            await entry.remove_and_release()
    assert not entry.payload.exists()
    record = parse_sidecar(entry.sidecar.read_bytes())
    assert record.stored
    assert not record.to_announce


async def test_order_of_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, then its name, then the folder; and each before the sidecar says that it is safe."""
    steps: list[str] = []

    def name_of(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path))

    real_fsync, real_link, real_write = os.fsync, os.link, os.write

    def fsync(fd: int) -> None:
        steps.append(f"sync {name_of(fd)}")
        real_fsync(fd)

    def link(source: str, target: Path | str, **options: Any) -> None:
        steps.append(f"link {Path(target).name}")
        real_link(source, target, **options)

    def write(fd: int, data: bytes) -> int:
        steps.append("safe" if b'"safe": true' in bytes(data) else "note")
        return real_write(fd, data)

    spool = Spool(tmp_path)
    record = replace(RECORD, key="folder/file.fits")
    entry, _ = await spool.reserve(record)
    file = entry.new_file()
    await file.create()
    await file.write(memoryview(b"data"), 0)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "write", write)
    await entry.commit(file, 4, "md5")
    await file.discard()
    await entry.release()
    assert steps[0] == "note"
    assert steps[1].startswith("sync bucket/folder/.lfa-")  # the sidecar, by the name that it was made with
    assert steps[2].startswith("sync bucket/folder/#")  # the data: a file without a name
    assert steps[-1] == "safe"
    assert steps.index("link file.fits") < steps.index("sync bucket/folder") < steps.index("safe")
    assert {"sync bucket", "sync ."} <= set(steps), "the folders that are new"


async def test_a_file_of_the_same_file_system_is_linked(tmp_path: Path) -> None:
    source = tmp_path / "source.fits"
    source.write_bytes(b"data")
    entry, _ = await Spool(tmp_path / "spool").reserve(RECORD)
    file = entry.new_file()
    await file.link_to(source)
    await entry.commit(file, 4, "md5")
    await file.discard()
    await entry.release()
    assert entry.payload.samefile(source)
    source.unlink()
    assert entry.payload.read_bytes() == b"data"
    assert not list((tmp_path / "spool").rglob("*.part"))


async def test_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""
    monkeypatch.delattr(os, "O_TMPFILE")
    entry = await put(Spool(tmp_path))
    assert entry.payload.read_bytes() == b"data"
    assert not list(tmp_path.rglob("*.part"))


async def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await put(spool, b"one")
    entry, taken = await spool.reserve(RECORD)
    assert entry.record.key == entry.payload.relative_to(tmp_path / "bucket").as_posix()
    assert entry.record.key.endswith("/a ü_r1.fits")
    assert [each.record.check_sum for each in taken] == [hashlib.md5(b"one").hexdigest()]
    other, taken = await spool.reserve(replace(RECORD, if_exists="overwrite"))
    assert other.record.key == RECORD.key
    assert other.payload.name == "a ü_r2.fits"
    assert len(taken) == 2
    for each in (entry, other):
        await each.remove()
        await each.release()


async def test_a_foreign_file_keeps_its_place(tmp_path: Path) -> None:
    foreign = tmp_path / "bucket" / RECORD.key
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"foreign")
    entry = await put(Spool(tmp_path), b"ours")
    assert foreign.read_bytes() == b"foreign"
    assert entry.payload.read_bytes() == b"ours"


@pytest.mark.parametrize("key", ["a//b", "/a", "a.lfa.jsonl", "a/", "x" * 300])
async def test_keys_that_have_no_place_in_a_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(NotKeptError, match=str(tmp_path)):
        await Spool(tmp_path).reserve(replace(RECORD, key=key))


async def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "spool" / "bucket").mkdir(parents=True)
    (tmp_path / "spool" / "bucket" / "GC:1").symlink_to(outside)
    with pytest.raises(NotKeptError, match="leads out"):
        await Spool(tmp_path / "spool").reserve(RECORD)
    assert everything(outside) == []


async def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotKeptError, match="Read-only file system"):
        await Spool(tmp_path).reserve(RECORD)


def test_bytes_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=100)
    spool.require_room(100)
    spool.count(60)
    spool.require_room(40)
    with pytest.raises(OSError, match="60 of at most 100 bytes") as caught:
        spool.require_room(41)
    assert caught.value.errno == errno.EDQUOT
    spool.count(-60)
    spool.require_room(100)
    with pytest.raises(ValueError, match="max_bytes"):
        Spool(tmp_path, max_bytes=-1)


async def test_cancelled_in_mid_reservation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock
    begun, cancelled = threading.Event(), threading.Event()

    def slow(fd: int, operation: int) -> None:
        begun.set()
        cancelled.wait(10)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    task = asyncio.ensure_future(Spool(tmp_path).reserve(RECORD))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Locks


async def test_a_file_is_one_holders(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    entry = await put(spool, release=False)
    assert await spool.claim(str(entry.sidecar)) is None
    await entry.release()
    again = await spool.claim(str(entry.sidecar))
    assert again is not None
    assert again.record == entry.record
    await again.remove()
    await again.release()
    with pytest.raises(FileNotFoundError):
        await spool.claim(str(entry.sidecar))


async def test_a_file_that_was_removed_while_it_was_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    entry = await put(spool)
    real = fcntl.flock

    def remove_first(fd: int, operation: int) -> None:
        entry.sidecar.unlink(missing_ok=True)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with pytest.raises(FileNotFoundError):
        await spool.claim(str(entry.sidecar))


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


async def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    entry = await put(spool, release=False)
    inherited = os.dup(entry._fd)  # what a child has
    try:
        await entry.release()
        again = await spool.claim(str(entry.sidecar))
        assert again is not None
        await again.release()
    finally:
        os.close(inherited)


async def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    entry = await put(spool)
    holder = subprocess.Popen([sys.executable, "-S", "-c", HOLDER, entry.sidecar], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert await spool.claim(str(entry.sidecar)) is None
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    claimed = await spool.claim(str(entry.sidecar))
    assert claimed is not None
    await claimed.release()


# Looking through the folder


async def scan(spool: Spool) -> list[str]:
    return [Path(found.sidecar).name.removesuffix(".lfa.jsonl") for found in await spool.scan("bucket")]


async def test_the_oldest_comes_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for sequence, key in ((3, "a"), (1, "b"), (2, "c/d")):
        await put(spool, record=replace(RECORD, key=key, sequence=sequence))
    assert await scan(spool) == ["b", "d", "a"]
    assert await Spool(tmp_path).scan("other") == []


async def test_trouble_is_reported_once_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path)
    good, torn, gone = [await put(spool, record=replace(RECORD, key=key)) for key in ("good", "torn", "gone")]
    torn.sidecar.write_bytes(torn.sidecar.read_bytes()[:30])
    gone.payload.unlink()
    (tmp_path / "bucket" / "foreign.fits").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert await scan(spool) == ["good"]
        assert await scan(spool) == ["good"]
    assert len(caplog.records) == 3
    assert f"cannot read {torn.sidecar}" in caplog.text
    assert f"{gone.payload} was published and is gone" in caplog.text
    assert "1 files in" in caplog.text
    assert good.sidecar.exists()
    assert torn.sidecar.exists()
    assert gone.sidecar.exists()


@pytest.mark.parametrize("when", ["reserved", "written", "noted", "linked"])
def test_remains_of_a_crash(tmp_path: Path, when: str) -> None:
    """What was not complete is removed; what was, is found."""
    spool = Spool(tmp_path)
    entry = asyncio.run(spool.reserve(RECORD))[0]
    part = entry.payload.with_name(entry.record.part)
    if when != "reserved":
        part.write_bytes(b"data")
    if when in {"noted", "linked"}:
        entry._note({"byte_size": 4, "check_sum": "x"}, sync=False)
    if when == "linked":
        part.rename(entry.payload)
    assert asyncio.run(scan(Spool(tmp_path))) == (["a ü.fits"] if when == "linked" else []), "it is being written"
    assert entry.sidecar.exists()
    entry._release()  # as the kernel does when the process dies
    assert asyncio.run(scan(Spool(tmp_path))) == (["a ü.fits"] if when == "linked" else [])
    if when != "linked":
        assert everything(tmp_path) == []


def test_a_sidecar_that_was_being_made_when_its_process_died(tmp_path: Path) -> None:
    part = tmp_path / "bucket" / ".lfa-0123.part"
    part.parent.mkdir()
    part.write_bytes(b"{")
    assert asyncio.run(scan(Spool(tmp_path))) == []
    assert part.exists(), "it may be being made right now"
    os.utime(part, (1, 1))
    assert asyncio.run(scan(Spool(tmp_path))) == []
    assert everything(tmp_path) == []


def test_thousands_of_files_are_found_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "2026"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        record = replace(RECORD, key=f"2026/{number}", sequence=COUNT - number, byte_size=0, safe=True)
        (folder / f"{number}").touch()
        (folder / f"{number}.lfa.jsonl").write_bytes(record.first_line())
    spool = Spool(tmp_path)

    async def look() -> tuple[float, float, int]:
        loop = asyncio.get_running_loop()
        turns: list[float] = []

        async def tick() -> None:
            while True:
                before = time.thread_time()
                await asyncio.sleep(0)
                turns.append(time.thread_time() - before)
                await asyncio.sleep(0.002)

        ticking = asyncio.ensure_future(tick())
        began = loop.time()
        count = len(await spool.scan("bucket"))
        took = loop.time() - began
        ticking.cancel()
        return took, max(turns), count

    took, longest, count = asyncio.run(look())
    assert count == COUNT
    assert longest < 0.008
    assert took < 1


# Where it is


@pytest.mark.parametrize(("kind", "volatile"), [("overlay", True), ("tmpfs", True), ("ext4", False), ("nfs4", False)])
def test_types_of_file_systems_that_die_with_their_container(kind: str, volatile: bool) -> None:
    assert is_volatile(kind) is volatile


def test_a_folder_that_dies_with_its_container(
    tmp_path: Path, memory_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        asyncio.run(Spool(tmp_path / "spool").open("bucket"))
        assert bool(caplog.messages) == is_volatile(file_system(tmp_path))
        caplog.clear()
        asyncio.run(Spool(memory_folder / "spool").open("bucket"))
    assert f"{memory_folder}/spool is on tmpfs: it dies with the container" in caplog.text
    assert (memory_folder / "spool").is_dir()


def test_the_type_of_a_folders_file_system(memory_folder: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(memory_folder / "a" / "b") == "tmpfs"


async def test_a_folder_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool")
    with caplog.at_level(logging.WARNING):
        await spool.open("bucket")
    assert "cannot be used" in caplog.text
    assert await spool.scan("bucket") == []


# What AtomicFile does for it


async def test_a_file_that_must_not_replace_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    file = files.AtomicFile(path)
    await file.create()
    await file.write(memoryview(b"new"), 0)
    with pytest.raises(FileExistsError):
        await file.commit(replace=False)
    await file.discard()
    assert everything(tmp_path) == ["file"]
    assert path.read_bytes() == b"old"
