"""A transfer can be cancelled at once, at any stage, and nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from lsst_lfa import errors

from . import Fault, Hook, Reset, Silence, Status
from . import harness as users
from .harness import BUCKET, CONFIG, KEY, LARGE, OLD, Harness, open_harness
from .store import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from . import FaultyS3Server

pytestmark = pytest.mark.fast_clock

SOON = 5.0
"""Seconds after which a cancelled transfer must have ended; the machine may be busy."""


async def cancelled(task: asyncio.Task[Any], times: int = 1) -> None:
    """Cancel a task, more than once perhaps, and see that it ends."""
    began = time.monotonic()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < SOON


async def seen(server: FaultyS3Server, operation: str, times: int = 1) -> None:
    async with asyncio.timeout(SOON):
        while len(server.calls(operation)) < times:
            await asyncio.sleep(0.01)


async def test_before_its_first_step(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        await cancelled(asyncio.create_task(users.upload_in_parts(harness)))
        assert not harness.server.seen


@pytest.mark.parametrize("given", [0, 1, 2], ids=["before it is begun", "after one part", "after two parts"])
async def test_while_the_source_is_silent(tmp_path: Path, given: int) -> None:
    waits = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(given):
            yield LARGE[: CONFIG.part_size]
        waits.set()
        await asyncio.Event().wait()

    async with open_harness(tmp_path) as harness:
        with harness.bounded_upload():
            task = asyncio.create_task(harness.bucket.upload(source(), KEY, harness.callback))
            await waits.wait()
            await asyncio.sleep(0.2)
            await cancelled(task)
        assert len(harness.server.calls("CreateMultipartUpload")) == min(given, 1)
        assert not harness.server.uploads
        harness.check_counts(given * CONFIG.part_size)


class SlowFile(io.BytesIO):
    """A file one of whose calls takes a while, in its thread."""

    def __init__(self, data: bytes, nth: int) -> None:
        super().__init__(data)
        self.slow = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._left = nth

    def _call(self) -> None:
        self._left -= 1
        if not self._left:
            self._loop.call_soon_threadsafe(self.slow.set)
            time.sleep(0.1)

    def seekable(self) -> bool:
        self._call()
        return True

    def tell(self) -> int:
        self._call()
        return super().tell()

    def seek(self, position: int, whence: int = 0) -> int:
        self._call()
        return super().seek(position, whence)

    def read(self, size: int | None = -1) -> bytes:
        self._call()
        return super().read(size)


@pytest.mark.parametrize("nth", range(1, 9))
async def test_while_a_thread_works_on_the_source(tmp_path: Path, nth: int) -> None:
    async with open_harness(tmp_path) as harness:
        file = SlowFile(b"header" + LARGE, nth + 1)
        file.seek(6)
        task = asyncio.create_task(harness.bucket.upload(file, KEY, harness.callback))
        async with asyncio.timeout(SOON):
            await file.slow.wait()
        await cancelled(task)
        assert file.tell() == 6  # to be tried again
        assert not harness.server.uploads


async def test_again_in_the_abort(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("UploadPart", Silence()), Fault("AbortMultipartUpload", Silence()))
        task = asyncio.create_task(users.upload_in_parts(harness))
        await seen(harness.server, "UploadPart")
        task.cancel()
        await seen(harness.server, "AbortMultipartUpload")
        await cancelled(task, times=3)
        (upload_id,) = harness.server.uploads
        assert upload_id in caplog.text
        harness.server.script()
        assert await harness.bucket.abort_stale_uploads(-5) == 1


async def test_while_the_upload_is_begun(tmp_path: Path) -> None:
    # Its id is in a response that is yet to come.
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("CreateMultipartUpload", Silence(seconds=0.2, carry_out=True)))
        task = asyncio.create_task(users.upload_in_parts(harness))
        await seen(harness.server, "CreateMultipartUpload")
        await cancelled(task)
        assert harness.server.calls("AbortMultipartUpload")
        assert not harness.server.uploads


async def test_the_abort_is_tried_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(
            Fault("UploadPart", Status(403, "AccessDenied")),
            Fault("AbortMultipartUpload", Status(503, "SlowDown"), times=2),
        )
        with pytest.raises(errors.AccessDeniedError):
            await users.upload_in_parts(harness)
        assert not harness.server.uploads


@pytest.mark.parametrize("action", [Status(500, "InternalError"), Silence(), Reset(), Status(403, "AccessDenied")])
async def test_an_abort_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, action: Any) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("UploadPart", Status(403, "AccessDenied")), Fault("AbortMultipartUpload", action))
        with pytest.raises(errors.AccessDeniedError) as caught:
            await users.upload_in_parts(harness)
        assert "upload_part" in str(caught.value)
        (upload_id,) = harness.server.uploads
        assert upload_id in caplog.text


async def test_an_abort_is_repeated_until_the_upload_is_gone(tmp_path: Path) -> None:
    # A part that was on its way when the upload was aborted brings it back, with some servers.
    async with open_harness(tmp_path, config=replace(CONFIG, cleanup_timeout=2)) as harness:

        def bring_back(server: FaultyS3Server) -> None:
            upload_id = str(server.seen[-1].upload_id)
            server.uploads[upload_id] = Upload(upload_id, BUCKET, KEY)

        harness.server.script(
            Fault("UploadPart", Status(403, "AccessDenied")),
            Fault("AbortMultipartUpload", Hook(meanwhile=bring_back), times=2),
        )
        with pytest.raises(errors.AccessDeniedError):
            await users.upload_in_parts(harness)
        assert not harness.server.uploads
        assert len(harness.server.calls("AbortMultipartUpload")) == 4


class SlowDisk:
    """A disk whose next calls of some functions of the system take a while, in their threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.started = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for name in names:
            monkeypatch.setattr(os, name, functools.partial(self._call, getattr(os, name)))

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        if not self.started.is_set():
            self._loop.call_soon_threadsafe(self.started.set)
            time.sleep(0.3)
        return function(*args)


@pytest.mark.parametrize(
    "stage", [("pwrite", "pwritev"), ("fsync",), ("pread", "preadv")], ids=["write", "commit", "verify"]
)
async def test_while_a_thread_works_on_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: tuple[str, ...]
) -> None:
    async with open_harness(tmp_path, config=replace(CONFIG, verify_etag=True)) as harness:
        disk = SlowDisk(monkeypatch, *stage)
        task = asyncio.create_task(harness.bucket.download_file(KEY, harness.destination, harness.callback))
        async with asyncio.timeout(SOON):
            await disk.started.wait()
        await cancelled(task)
        monkeypatch.undo()
        if stage == ("fsync",):  # it was all there: either is whole
            harness.check_folder(harness.destination.read_bytes())
            assert harness.destination.read_bytes() in (OLD, LARGE)
        else:
            harness.check_folder(OLD)


@pytest.mark.parametrize("act", [users.upload, users.upload_in_parts, users.download, users.download_file])
async def test_at_random_moments(tmp_path: Path, act: Callable[[Harness], Awaitable[None]]) -> None:
    dice = random.Random(4)
    async with open_harness(tmp_path) as harness:
        whole = harness.server.objects[BUCKET, KEY]
        for _ in range(15):
            harness.counts.clear()
            harness.expected = None
            harness.destination.write_bytes(OLD)
            harness.server.objects[BUCKET, KEY] = whole
            task = asyncio.ensure_future(act(harness))
            await asyncio.wait({task}, timeout=dice.uniform(0, 0.12))
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert result is None or type(result) is asyncio.CancelledError
            harness.check_counts()
            harness.check_folder(harness.destination.read_bytes())
            assert not harness.server.uploads


@pytest.mark.parametrize("act", [users.upload, users.upload_in_parts, users.download, users.download_file])
async def test_a_deadline_bounds_the_whole_transfer(tmp_path: Path, act: Callable[[Harness], Awaitable[None]]) -> None:
    async with open_harness(
        tmp_path, config=replace(CONFIG, total_timeout=0.4, retry_timeout=60, max_attempts=99)
    ) as harness:
        harness.server.script(Fault("*", Silence(), where=lambda seen: seen.operation != "AbortMultipartUpload"))
        with pytest.raises(errors.TransferTimeoutError, match=f"{BUCKET}/2026.*more than 0.4 s"):
            async with asyncio.timeout(SOON):
                await act(harness)
        assert not harness.server.uploads


async def test_a_stream_left_early_does_not_wait_for_what_it_asked_ahead(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", Silence(), where=lambda seen: seen.number > 1))
        chunks = harness.bucket.stream(KEY)
        await anext(chunks)
        ahead = 1 + CONFIG.max_concurrency
        await seen(harness.server, "GetObject", ahead)
        await chunks.aclose()
        assert len(harness.server.calls("GetObject")) == ahead  # nothing was tried again


async def test_a_failure_is_no_cancellation(tmp_path: Path) -> None:
    """A transfer that fails leaves the task that asked for it able to be cancelled, and to time out."""
    async with open_harness(tmp_path) as harness:
        task = asyncio.current_task()
        assert task is not None
        harness.server.script(Fault("*", Status(403, "AccessDenied"), where=lambda seen: seen.number > 1))
        for work in (
            harness.bucket.upload(LARGE, KEY),
            harness.bucket.download(KEY),
            harness.bucket.upload(LARGE, KEY, harness.callback),
        ):
            with pytest.raises(errors.AccessDeniedError):
                await work
            assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(1)


class Limited:
    """Ways to limit a work in time; each tells whether it was cut short, by its own means."""

    @staticmethod
    async def move_on_after(work: Awaitable[None], delay: float) -> bool:
        with anyio.move_on_after(delay) as scope:
            await work
        return scope.cancelled_caught

    @staticmethod
    async def fail_after(work: Awaitable[None], delay: float) -> bool:
        try:
            with anyio.fail_after(delay):
                await work
        except TimeoutError:
            return True
        return False

    @staticmethod
    async def outer_scope(work: Awaitable[None], delay: float) -> bool:
        with anyio.move_on_after(delay) as outer:
            with anyio.move_on_after(delay + 9) as middle, anyio.CancelScope() as inner:
                await work
            assert not middle.cancelled_caught
            assert not inner.cancelled_caught
        return outer.cancelled_caught

    @staticmethod
    async def inner_scope(work: Awaitable[None], delay: float) -> bool:
        with anyio.move_on_after(9) as outer:
            with anyio.move_on_after(delay) as inner:
                await work
            await asyncio.sleep(0)
        assert not outer.cancelled_caught
        return inner.cancelled_caught

    @staticmethod
    async def anyio_task_group(work: Awaitable[None], delay: float) -> bool:
        async def run() -> None:
            await work

        with anyio.move_on_after(delay) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(run)
        return scope.cancelled_caught

    @staticmethod
    async def timeout(work: Awaitable[None], delay: float) -> bool:
        try:
            async with asyncio.timeout(delay), asyncio.timeout(delay + 9):
                await work
        except TimeoutError:
            return True
        return False

    @staticmethod
    async def two_timeouts_at_once(work: Awaitable[None], delay: float) -> bool:
        try:
            async with asyncio.timeout(delay), asyncio.timeout(delay):
                await work
        except TimeoutError:
            return True
        return False

    @staticmethod
    async def wait_for(work: Awaitable[None], delay: float) -> bool:
        try:
            await asyncio.wait_for(work, delay)
        except TimeoutError:
            return True
        return False

    @staticmethod
    async def task_group_that_fails(work: Awaitable[None], delay: float) -> bool:
        async def run() -> None:
            await work

        async def fail() -> None:
            await asyncio.sleep(delay)
            raise ZeroDivisionError

        async def group_of_two() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(run())

        (result,) = await asyncio.gather(asyncio.create_task(group_of_two()), return_exceptions=True)
        assert isinstance(result, ExceptionGroup)
        assert [type(error) for error in result.exceptions] == [ZeroDivisionError]
        return True

    @staticmethod
    async def several_cancellations(work: Awaitable[None], delay: float) -> bool:
        task = asyncio.ensure_future(work)
        await asyncio.sleep(delay)
        for _ in range(3):
            task.cancel("enough")
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        return True


LIMITS = [name for name in vars(Limited) if not name.startswith("_")]
SILENT = {
    "PutObject": users.upload,
    "CreateMultipartUpload": users.upload_in_parts,
    "UploadPart": users.upload_in_parts,
    "CompleteMultipartUpload": users.upload_in_parts,
    "GetObject": users.download,
    "GetObject, a file": users.download_file,
    "GetObject, a stream": users.stream,
    "HeadObject": users.size,
    "ListObjectsV2": users.listing,
    "DeleteObject": users.delete,
    "ListMultipartUploads": users.abort_stale_uploads,
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("stage", SILENT)
async def test_whoever_set_a_limit_recognises_it(tmp_path: Path, stage: str, limit: str) -> None:
    async with open_harness(tmp_path, config=replace(CONFIG, stall_timeout=9)) as harness:
        harness.server.script(
            Fault(stage.partition(",")[0], Silence(seconds=0.3, carry_out=stage.startswith("Create")))
        )

        async def user() -> int:
            assert await getattr(Limited, limit)(SILENT[stage](harness), 0.1)
            task = asyncio.current_task()
            assert task is not None
            # And afterwards it can be cancelled, and limited, as before.
            with anyio.move_on_after(0.01) as scope:
                await asyncio.sleep(9)
            assert scope.cancelled_caught
            return task.cancelling()

        assert await asyncio.create_task(user()) == 0
        assert not harness.server.uploads


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_callback_is_cut_short(tmp_path: Path, limit: str) -> None:
    async def callback(_count: int) -> None:
        await asyncio.sleep(9)

    async with open_harness(tmp_path) as harness:
        verbs: tuple[Callable[[], Any], ...] = (
            lambda: harness.bucket.upload(LARGE, KEY, callback),
            lambda: harness.bucket.download(KEY, callback),
        )
        for verb in verbs:
            assert await getattr(Limited, limit)(verb(), 0.3)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert not harness.server.uploads
