"""The annex on a real server that hangs, is killed, and returns.

Short by default; with ``LSST_LFA_SOAK`` a whole night. Each prints what it measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import re
import signal
import time
import urllib.parse
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import LargeFileAnnex, TransferConfig
from tests.benchmark.instruments import forget_peak, memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lsst_lfa import AsyncS3Bucket, LargeFile

    from .conftest import Service

pytestmark = [pytest.mark.servers("seaweedfs", "ceph"), pytest.mark.schemes("http")]

SOAK = "LSST_LFA_SOAK" in os.environ
SCANS = 200 if SOAK else 30
SNAPSHOTS, AWAY = (100, 20) if SOAK else (15, 5)
MiB = 1 << 20
ARCHIVE = re.compile(
    r"(?P<instrument>\w+)(?::(?P<index>\w+))?/(?P<generator>[^/]+)/(?P<y>\d{4})/(?P<m>\d\d)/(?P<d>\d\d)/(?P<name>[^/]+)"
)
CONFIG = TransferConfig(stall_timeout=5, max_attempts=3, retry_timeout=5, cleanup_timeout=1)


class Topic:
    """The event, and one client who reads it as scripts do."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self._unread: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
        assert force_output
        self.written.append(fields)
        self._unread.put_nowait(fields)

    def flush(self) -> None:
        while not self._unread.empty():
            self._unread.get_nowait()

    async def next(self, seconds: float) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            return await self._unread.get()


class Own:
    """The longest turn of the loop's own work, in CPU seconds of its thread."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(*work: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None, task.exception()


def processes(service: Service) -> list[int]:
    """Return the processes that serve S3."""
    guard = service.server._daemons[-1]._process.pid
    return [int(pid) for pid in Path(f"/proc/{guard}/task/{guard}/children").read_text().split()]


def send_signal(service: Service, number: signal.Signals) -> None:
    for pid in processes(service):
        os.kill(pid, number)


async def disturb(service: Service, dice: random.Random, counts: dict[str, int]) -> None:
    """Let the server hang, or kill it and start it again, time and again; it is well at the end."""
    while True:
        await asyncio.sleep(dice.uniform(1, 4))
        if dice.random() < 0.5:
            counts["hung"] += 1
            send_signal(service, signal.SIGSTOP)
            try:
                await asyncio.sleep(dice.uniform(1, 12))
            finally:
                send_signal(service, signal.SIGCONT)
        else:
            counts["killed"] += 1
            restart = asyncio.ensure_future(kill_and_restart(service, dice.uniform(0, 8)))
            await finish(restart)


async def kill_and_restart(service: Service, seconds: float) -> None:
    await asyncio.to_thread(service.server.kill)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(service.server.restart)


async def finish(task: asyncio.Future[None]) -> None:
    """Wait for a task to its end, even if cancelled."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def fetch_md5(bucket: AsyncS3Bucket, url: str) -> str:
    data = await bucket.download(url.partition(f"/{bucket.name}/")[2])
    return await asyncio.to_thread(lambda: hashlib.md5(data.getbuffer()).hexdigest())


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_night(service: Service, name: str, tmp_path: Path) -> None:
    """Each client gets the URL of its own scan; at the end each file is there, once and whole."""
    dice = random.Random(1)
    counts = {"hung": 0, "killed": 0}
    waits: list[float] = []
    expected: dict[str, str] = {}
    async with service.session(config=CONFIG) as session:
        bucket = session.bucket(name)
        topics = [Topic() for _ in range(6)]
        annexes = [
            LargeFileAnnex(bucket, "Spectrograph", n + 1, event=topic, spool=tmp_path / "spool")
            for n, topic in enumerate(topics)
        ]

        async def scan(task: int, number: int) -> None:
            topics[task].flush()
            data = await asyncio.to_thread(os.urandom, dice.choice((50_000, 500_000, 20 * MiB)))
            scan_id = f"S{task}_{number:04}"
            began = time.monotonic()
            command = asyncio.ensure_future(
                annexes[task].publish(data, generator="scan", id=scan_id, other=scan_id, suffix=".fits")
            )
            event = await topics[task].next(30)
            waits.append(time.monotonic() - began)
            file = await command
            assert event == file.event_fields()
            assert event["id"] == scan_id
            assert ARCHIVE.fullmatch(file.key)
            expected[file.url] = hashlib.md5(data).hexdigest()

        async def observe(task: int) -> None:
            for number in range(task, SCANS, 6):
                await scan(task, number)
                await asyncio.sleep(dice.uniform(0, 0.5))

        async with running(disturb(service, dice, counts)):
            await asyncio.gather(*(observe(task) for task in range(6)))
        began = time.monotonic()
        for annex in annexes:
            assert await annex.wait_stored(120)
        drained = time.monotonic() - began
        for annex in annexes:
            await annex.aclose()
        assert len(expected) == SCANS == sum(len(topic.written) for topic in topics)
        for url, md5 in expected.items():
            assert await fetch_md5(bucket, url) == md5
        assert len(service.keys(name)) == SCANS
        # A server that is killed in mid-upload cannot be told to abort it.
        orphans = await bucket.abort_stale_uploads(-5)
        assert files(tmp_path / "spool") == []
    print(
        f"\n{SCANS} scans, S3 {counts}: longest wait for an event {max(waits):.1f} s, median "
        f"{sorted(waits)[len(waits) // 2]:.2f} s; drained {drained:.1f} s after the end; "
        f"{orphans} uploads could not be aborted at once"
    )


async def test_snapshots(service: Service, name: str, tmp_path: Path) -> None:
    """The last event is always the newest file's, memory is flat, and a plain GET gives each file.

    While what was kept is sent, memory may grow by the parts under way; then it is what it was before.
    """
    topic, size = Topic(), 24 * MiB
    anyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
    service.client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [anyone]}))
    async with service.session(config=CONFIG) as session:
        annex = LargeFileAnnex(session.bucket(name), "Scheduler", 1, event=topic, spool=tmp_path, upload_timeout=2)
        digests: dict[str, str] = {}
        kept = 0
        for number in range(SNAPSHOTS):
            if number == SNAPSHOTS // 4:
                assert await annex.wait_stored(120)
                forget_peak()
                before = memory("VmRSS")
                await asyncio.to_thread(service.server.kill)
            if number == SNAPSHOTS // 4 + AWAY:
                await asyncio.to_thread(service.server.restart)
            data = os.urandom(size)  # not in a thread, for which malloc would keep as much
            file = await annex.publish(data, generator="snapshot", other=f"{number:04}", suffix=".p", id=f"{number}")
            kept += not file.stored
            assert topic.written[-1]["id"] == f"{number}"
            digests[file.url] = hashlib.md5(data).hexdigest()
            del data
        assert await annex.wait_stored(120)
        peak = memory("VmHWM") - before
        forget_peak()
        growth = memory("VmRSS") - before
        await annex.aclose()
    for url, md5 in digests.items():
        with await asyncio.to_thread(urllib.request.urlopen, urllib.parse.quote(url, safe=":/")) as response:
            assert hashlib.md5(await asyncio.to_thread(response.read)).hexdigest() == md5
    print(
        f"\n{SNAPSHOTS} snapshots of 24 MiB, {kept} kept first: memory {before / MiB:.0f} MiB while S3 was there, "
        f"{peak / MiB:.0f} more at most, {growth / MiB:.0f} more at the end"
    )
    assert kept >= AWAY
    assert growth < 64 * MiB
    assert peak < 64 * MiB + CONFIG.max_memory


async def test_the_same_id_twice_while_s3_is_away(service: Service, name: str, tmp_path: Path) -> None:
    topic = Topic()
    async with service.session(config=CONFIG) as session:
        bucket = session.bucket(name)

        def annex() -> LargeFileAnnex:
            return LargeFileAnnex(bucket, "AllSky", event=topic, spool=tmp_path, upload_timeout=1)

        def publish(by: LargeFileAnnex, data: bytes) -> Any:
            return by.publish(data, generator="image", date="2026-02-01T03:00:00", other="1", suffix=".fits", id="1")

        first = annex()
        one = await publish(first, b"one")
        await asyncio.to_thread(service.server.kill)
        two, three = await publish(first, b"two"), await publish(first, b"three")
        await first.aclose()
        await asyncio.to_thread(service.server.restart)
        async with annex() as second:
            assert await second.wait_stored(60)
        found = {each.key: (await bucket.download(each.key)).getvalue() async for each in bucket.list()}
        root = one.key.removesuffix(".fits")
        assert sorted(found) == [f"{root}.fits", f"{root}_r1.fits", f"{root}_r2.fits"]
        assert sorted(found.values()) == [b"one", b"three", b"two"]
        assert found[one.key] == b"one"
        # While S3 was away nobody could know that the key was taken: the right URL came later, in an event of its own.
        told = {(each["url"], each["checkSum"]) for each in topic.written}
        assert told >= {(bucket.url(key), hashlib.md5(data).hexdigest()) for key, data in found.items()}
        assert {two.url, three.url} <= {url for url, _ in told}
        assert files(tmp_path) == []


async def test_forty_frames_at_once(service: Service, name: str, tmp_path: Path) -> None:
    """S3 dies in the middle; the loop goes on, and without S3 `publish` returns in time."""
    topic, own = Topic(), Own()
    frames = [os.urandom(10 * MiB) for _ in range(40)]
    async with service.session(config=CONFIG) as session:
        bucket = session.bucket(name)
        annex = LargeFileAnnex(bucket, "Camera", event=topic, spool=tmp_path, upload_timeout=5)
        await annex.publish(b"first", generator="warm-up")
        times: list[float] = []

        async def publish(number: int) -> LargeFile:
            began = time.monotonic()
            file = await annex.publish(frames[number], generator="image", other=f"{number:02}", id=f"{number}")
            times.append(time.monotonic() - began)
            return file

        async def die() -> None:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(service.server.kill)
            await asyncio.Event().wait()

        async with running(own.watch(), die()):
            published = await asyncio.gather(*(publish(number) for number in range(40)))
        await asyncio.to_thread(service.server.restart)
        assert await annex.wait_stored(120)
        await annex.aclose()
        assert [each["id"] for each in topic.written[1:]] == [f"{number}" for number in range(40)]
        for file in published:
            assert await fetch_md5(bucket, file.url) == file.check_sum
        await bucket.abort_stale_uploads(-5)  # those that were under way when it was killed
    stored = sum(file.stored for file in published)
    print(
        f"\n40 frames of 10 MiB, {stored} stored before S3 died: the longest publish took {max(times):.2f} s "
        f"(upload_timeout 5), the loop's longest own turn {1000 * own.longest:.1f} ms"
    )
    assert files(tmp_path) == []


async def test_two_processes_worth_of_annexes_send_each_file_once(service: Service, name: str, tmp_path: Path) -> None:
    count = 40
    async with service.session(config=CONFIG) as session, service.session(config=CONFIG) as other:
        stored: list[LargeFile] = []
        first = LargeFileAnnex(session.bucket(name), "Camera", spool=tmp_path, upload_timeout=0.001)
        send_signal(service, signal.SIGSTOP)
        for number in range(count):
            await first.publish(os.urandom(1000), generator="image", other=f"{number}")
        await first.aclose()
        send_signal(service, signal.SIGCONT)
        annexes = [
            LargeFileAnnex(each.bucket(name), "Camera", spool=tmp_path, on_stored=stored.append)
            for each in (session, other)
        ]
        await asyncio.gather(*(annex.start() for annex in annexes))
        assert all(await asyncio.gather(*(annex.wait_stored(60) for annex in annexes)))
        for annex in annexes:
            await annex.aclose()
        assert len(stored) == len({file.key for file in stored}) == count
        assert len(service.keys(name)) == count


async def test_many_files_wait(service: Service, name: str, tmp_path: Path) -> None:
    """10,000 of them: `start` is quick, and the loop's turns are short."""
    from lsst_lfa._spool import Record

    count = 10_000 if SOAK else 1_000
    md5 = hashlib.md5(b"data").hexdigest()
    folder = tmp_path / name / "many"
    folder.mkdir(parents=True)
    record = Record(bucket=name, key="many/0", component="Camera", sequence=0, byte_size=4, check_sum=md5, safe=True)
    for number in range(count):
        (folder / f"{number}").write_bytes(b"data")
        mine = replace(record, key=f"many/{number}", sequence=number, announced=True)
        (folder / f"{number}.lfa.jsonl").write_bytes(mine.first_line())
    own = Own()
    async with service.session() as session:
        annex = LargeFileAnnex(session.bucket(name), "Camera", spool=tmp_path)
        await session.bucket(name).check()
        before = memory("VmRSS")
        async with running(own.watch()):
            began = time.perf_counter()
            await annex.start()
            took = time.perf_counter() - began
            at_start = own.longest
            assert await annex.wait_stored(1200)
            drained = time.perf_counter() - began
        growth = memory("VmRSS") - before
        await annex.aclose()
    print(
        f"\n{count} files: start took {took:.2f} s, the loop's longest own turn {1000 * at_start:.1f} ms at the start "
        f"and {1000 * own.longest:.1f} ms in all; memory grew by {growth / MiB:.0f} MiB; all sent in {drained:.0f} s"
    )
    assert files(tmp_path) == []
