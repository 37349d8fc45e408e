"""Threads: the user's are not waited for; ours leave nothing open, write into no other file, and delay nobody."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiofiles
import pytest
from aiofiles.threadpool.binary import AsyncBufferedReader

from lsst_lfa._transfer.concurrency import in_thread, threads

from . import Fault, Hook, Reset
from .harness import BUCKET, KEY, LARGE, OLD, SMALL, descriptors, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .harness import Harness

SOON = 10.0


@contextmanager
def small_default_executor() -> Iterator[None]:
    """Give the loop two threads; the tests' own end with it."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as executor:
        loop.set_default_executor(executor)
        yield
    loop.set_default_executor(ThreadPoolExecutor(2))


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[Any]:
    """Give the file's bytes in one of the forms that can be uploaded."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(SMALL), 100_000):
            yield SMALL[start : start + 100_000]

    class Own(io.BytesIO):
        """A kind of file that the library does not know."""

    match kind:
        case "bytes":
            yield SMALL
        case "path":
            yield path
        case "file":
            with path.open("rb") as file:
                yield file
        case "own":
            yield Own(SMALL)
        case "iterator":
            yield pieces()
        case "aiofiles" | "aiofiles, unbuffered":
            # Opened before the executor is full; that it has to be is aiofiles' own.
            async with aiofiles.open(path, "rb", buffering=0 if "un" in kind else -1) as aiofile:
                yield aiofile


KINDS = ["bytes", "path", "file", "own", "iterator", "aiofiles", "aiofiles, unbuffered"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_default_executor_full_of_jobs_that_wait_for_uploads(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    path = tmp_path_factory.mktemp("source") / "source"
    path.write_bytes(SMALL)
    loop = asyncio.get_running_loop()
    async with open_harness(tmp_path) as harness:
        with small_default_executor():
            async with opened(kind, path) as first, opened(kind, path) as second:
                sources = [first, second, SMALL, SMALL]

                def wait_for(number: int) -> str:
                    upload = harness.bucket.upload(sources[number], f"{number}")
                    return asyncio.run_coroutine_threadsafe(upload, loop).result(SOON)

                await asyncio.gather(*(asyncio.to_thread(wait_for, number) for number in range(4)))
                assert {harness.server.objects[BUCKET, f"{number}"].data for number in range(4)} == {SMALL}


async def test_a_default_executor_full_of_jobs_that_wait_for_downloads(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with open_harness(tmp_path) as harness:
        with small_default_executor():

            async def both() -> bytes:
                await harness.bucket.download(KEY)
                return (await harness.bucket.download_file(KEY, harness.destination)).read_bytes()

            def wait() -> bytes:
                return asyncio.run_coroutine_threadsafe(both(), loop).result(SOON)

            assert set(await asyncio.gather(*(asyncio.to_thread(wait) for _ in range(4)))) == {LARGE}


@pytest.mark.parametrize("private", ["_file", "nothing"])
async def test_a_file_of_aiofiles_whose_inside_is_hidden_is_read_by_its_methods(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, private: str
) -> None:
    path = tmp_path_factory.mktemp("source") / "source"
    path.write_bytes(b"header" + LARGE)

    class Hidden(AsyncBufferedReader):
        def __getattribute__(self, name: str) -> Any:
            if name == private and sys._getframe(1).f_globals["__name__"].startswith("lsst_lfa"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    async with open_harness(tmp_path) as harness:
        with path.open("rb") as file:
            hidden = Hidden(file, None, None)
            await hidden.seek(6)
            await harness.bucket.upload(hidden, "k")
        assert harness.server.objects[BUCKET, "k"].data == LARGE


class Gate:
    """Holds some of the system's calls up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.open = threading.Event()
        self.reached = asyncio.Event()
        self.targets: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._function = getattr(os, name)
        monkeypatch.setattr(os, name, self._call)

    def _call(self, fd: int, *args: Any) -> Any:
        self._loop.call_soon_threadsafe(self.reached.set)
        self.open.wait(SOON)
        with suppress(OSError):
            self.targets.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        return self._function(fd, *args)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not holds():
            await asyncio.sleep(0.01)


def temporary_files(harness: Harness) -> list[str]:
    """Return what is open, or lies, in the folder of the downloads, besides the destination."""
    named = [path.name for path in harness.folder.iterdir() if path != harness.destination]
    return named + [target for target in descriptors().values() if target.startswith(str(harness.folder))]


@pytest.mark.parametrize("named", [False, True], ids=["without a name", "with a name"])
async def test_a_slow_write_goes_to_its_own_file_however_late(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    others = tmp_path_factory.mktemp("others")
    async with open_harness(tmp_path) as harness:
        gate = Gate(monkeypatch, "pwrite")
        task = asyncio.create_task(harness.bucket.download_file(KEY, harness.destination))
        await gate.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        files = [(others / f"{number}").open("wb+") for number in range(20)]  # the next numbers
        gate.open.set()
        await until(lambda: bool(gate.targets) and not temporary_files(harness))
        assert all(target.startswith(str(tmp_path)) for target in gate.targets)
        for file in files:
            file.close()
            assert Path(file.name).stat().st_size == 0
        harness.check_folder(OLD)


async def test_a_slow_commit_that_was_cancelled_replaces_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(tmp_path) as harness:
        gate = Gate(monkeypatch, "fsync")
        task = asyncio.create_task(harness.bucket.download_file(KEY, harness.destination))
        await gate.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        harness.destination.write_bytes(b"what was put there since")
        gate.open.set()
        await until(lambda: not temporary_files(harness))
        harness.check_folder(b"what was put there since")


@pytest.mark.parametrize("named", [False, True], ids=["without a name", "with a name"])
@pytest.mark.parametrize("when", ["before it is made", "when it is there"])
async def test_threads_that_are_busy_leave_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, *, named: bool
) -> None:
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    free = threading.Event()
    jobs: list[asyncio.Task[Any]] = []

    def make_busy(*_: Any) -> None:
        while len(jobs) < 40:
            jobs.append(asyncio.create_task(in_thread(free.wait, SOON, executor=threads("disk"))))

    async with open_harness(tmp_path) as harness:
        if when == "before it is made":
            make_busy()
        else:
            harness.server.script(Fault("GetObject", Hook(before=make_busy)))
        await asyncio.sleep(0)
        task = asyncio.create_task(harness.bucket.download_file(KEY, harness.destination))
        await asyncio.sleep(0.3)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 5
        free.set()
        await asyncio.gather(*jobs)
        await until(lambda: not temporary_files(harness))
        harness.check_folder(OLD)


async def test_a_disk_that_hangs_keeps_nobody_from_uploading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_harness(tmp_path) as harness:
        gate = Gate(monkeypatch, "pwrite")
        for number in range(9):
            harness.server.put(BUCKET, f"{number}", LARGE)
        downloads = [
            asyncio.create_task(harness.bucket.download_file(f"{number}", tmp_path / f"{number}"))
            for number in range(9)
        ]
        await gate.reached.wait()
        await asyncio.sleep(0.2)
        async with asyncio.timeout(SOON / 2):
            await harness.bucket.upload(LARGE, "k")
        gate.open.set()
        for path in await asyncio.gather(*downloads):
            path.unlink()


@contextmanager
def silent_pipes(count: int) -> Iterator[list[io.BufferedReader]]:
    """Open pipes into which nobody writes; at the end they are closed there."""
    ends = [os.pipe() for _ in range(count)]
    files = [os.fdopen(read, "rb") for read, _ in ends]
    try:
        yield files
    finally:
        for _, write in ends:
            os.close(write)
        for file in files:
            file.close()  # a thread that reads it sees the end, and lets go of it


async def test_pipes_that_are_silent_keep_nobody_from_uploading(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        with silent_pipes(20) as pipes:
            tasks = [asyncio.create_task(harness.bucket.upload(pipe, "pipe")) for pipe in pipes]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(SOON):
                await harness.bucket.upload(harness.destination, "path")
                with harness.destination.open("rb") as file:
                    await harness.bucket.upload(file, "file")
                await harness.bucket.upload(LARGE, "bytes")
                await harness.bucket.download_file("bytes", harness.destination)
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(SOON):
                await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
        assert (BUCKET, "pipe") not in harness.server.objects
        await until(lambda: not any(thread.name == "lsst_lfa-source" for thread in threading.enumerate()))


class Hanging(io.BytesIO):
    """A file that can seek, and whose reads hang."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reading = threading.Event()
        self.go_on = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        self.reading.set()
        self.go_on.wait(SOON)
        return super().read(size)


async def test_a_file_that_hangs_is_left_behind_and_gets_its_position_back_later(tmp_path: Path) -> None:
    file = Hanging(b"header" + SMALL)
    file.seek(6)
    async with open_harness(tmp_path) as harness:
        task = asyncio.create_task(harness.bucket.upload(file, KEY))
        await asyncio.to_thread(file.reading.wait, SOON)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 6
        file.go_on.set()
        await until(lambda: file.tell() == 6)
        await until(lambda: not any(thread.name == "lsst_lfa-source" for thread in threading.enumerate()))


async def test_what_went_wrong_is_told_though_the_file_was_closed_meanwhile(tmp_path: Path) -> None:
    class Own(io.BytesIO):
        pass

    file = Own(SMALL)
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("PutObject", Hook(before=lambda _: file.close())), Fault("PutObject", Reset()))

        def fail(_: int) -> None:
            file.close()
            raise LookupError("the callback's own")

        with pytest.raises(LookupError, match="own") as caught:
            await harness.bucket.upload(file, KEY, fail)
        assert "position could not be restored" in "".join(caught.value.__notes__)


LEAVES = """
import asyncio, io, os, sys
from lsst_lfa import S3Session

async def main():
    read, write = os.pipe()
    async with S3Session(endpoint_url="http://127.0.0.1:9", access_key_id="id", secret_access_key="secret") as session:
        try:
            async with asyncio.timeout(0.2):
                await session.bucket("test").upload(SOURCE, "k")
        except TimeoutError:
            print("timed out")

asyncio.run(main())
"""


@pytest.mark.parametrize("source", ["io.FileIO(read)", "os.fdopen(read, 'rb')", "sys.stdin.buffer"])
def test_a_silent_pipe_does_not_keep_the_interpreter_from_ending(source: str) -> None:
    program = [sys.executable, "-c", LEAVES.replace("SOURCE", source)]
    read, write = os.pipe()  # its stdin, which stays open and silent
    try:
        done = subprocess.run(program, stdin=read, capture_output=True, timeout=30, check=False)
    finally:
        os.close(read)
        os.close(write)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"timed out\n", b"")
