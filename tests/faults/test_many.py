"""Copies, many deletions and folders, through everything that can go wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import errors

from . import Close, Fault, Hook, Reset, Silence, Status
from .harness import BUCKET, CONFIG, KEY, LARGE, REVERSED, MiB, open_harness
from .messages import NAMESPACE

if TYPE_CHECKING:
    from pathlib import Path

    from .harness import Harness
    from .server import FaultyS3Server, Seen

pytestmark = pytest.mark.fast_clock

LOST = [Close(carry_out=True), Reset(), Silence(carry_out=True), Status(503, "SlowDown")]
COPYING = {
    "CopyObject": CONFIG,
    "UploadPartCopy": dataclasses.replace(CONFIG, copy_threshold=MiB, copy_part_size=MiB),
}
"""The configuration with which objects are copied by this operation."""
COPIES = pytest.mark.parametrize("operation", COPYING)


def replace(server: FaultyS3Server) -> None:
    server.put(BUCKET, KEY, REVERSED)


def stored(harness: Harness, key: str) -> bytes | None:
    found = harness.server.objects.get((BUCKET, key))
    return None if found is None else found.data


# Copies


@COPIES
@pytest.mark.parametrize("fault", LOST, ids=repr)
async def test_a_copy_is_tried_again(tmp_path: Path, operation: str, fault: Any) -> None:
    async with open_harness(tmp_path, config=COPYING[operation]) as harness:
        harness.server.script(Fault(operation, fault, nth=1))
        await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") == LARGE
        assert not harness.server.uploads


async def test_a_lost_completion_is_recognised(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=COPYING["UploadPartCopy"]) as harness:
        harness.server.script(Fault("CompleteMultipartUpload", Close(carry_out=True), nth=1))
        await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") == LARGE
        assert not harness.server.uploads


@COPIES
async def test_a_source_that_is_replaced_meanwhile_is_told(tmp_path: Path, operation: str) -> None:
    """The test's server does not know the condition, like Ceph RGW 16."""
    async with open_harness(tmp_path, config=COPYING[operation]) as harness:
        harness.server.script(Fault(operation, Hook(before=replace), nth=1))
        with pytest.raises(errors.ObjectChangedError):
            await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") == (REVERSED if operation == "CopyObject" else None)
        assert not harness.server.uploads
        assert all(call.headers["x-amz-copy-source-if-match"] for call in harness.server.calls(operation))


@COPIES
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Status(200, body=b"<html>hotspot</html>"), errors.ProtocolError),
        (Status(200, "InternalError"), errors.UnavailableError),
        (Status(403, "AccessDenied"), errors.AccessDeniedError),
        (Reset(), errors.UnreachableError),
    ],
    ids=repr,
)
async def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path, operation: str, fault: Any, kind: type[errors.LfaError]
) -> None:
    async with open_harness(tmp_path, config=COPYING[operation]) as harness:
        harness.server.script(Fault(operation, fault))
        with pytest.raises(kind):
            await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") is None
        assert not harness.server.uploads


@COPIES
async def test_a_cancelled_copy_leaves_nothing(tmp_path: Path, operation: str) -> None:
    async with open_harness(tmp_path, config=COPYING[operation]) as harness:
        harness.server.script(Fault(operation, Silence(), nth=1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") is None
        assert not harness.server.uploads


async def test_few_parts_are_copied_at_a_time(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, copy_threshold=MiB, copy_part_size=MiB // 2, max_concurrency=9)
    async with open_harness(tmp_path, config=config) as harness:
        harness.server.script(Fault("UploadPartCopy", Silence(carry_out=True, seconds=0.05)))
        await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") == LARGE
        assert harness.server.peak_requests == 4


async def test_a_part_that_is_copied_may_take_as_long_as_all_that_share_the_disk(tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, copy_threshold=MiB, copy_part_size=5 * MiB, stall_timeout=0.2, retry_timeout=0.1
    )
    async with open_harness(tmp_path, config=config) as harness:
        harness.server.script(Fault("UploadPartCopy", Silence(carry_out=True, seconds=0.8), nth=1))
        await harness.bucket.copy(KEY, "copy")
        assert stored(harness, "copy") == LARGE


# Many deletions


def deleted(*keys: str, errors: tuple[tuple[str, str], ...] = ()) -> bytes:
    done = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
    left = "".join(f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>" for key, code in errors)
    return f'<DeleteResult xmlns="{NAMESPACE}">{done}{left}</DeleteResult>'.encode()


async def test_two_thousand_and_one_are_deleted_in_three_requests(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        keys = [f"k{number}" for number in range(2001)]
        for key in keys:
            harness.server.put(BUCKET, key, b"")
        harness.server.script(Fault("DeleteObjects", Close(carry_out=True), nth=2))
        assert await harness.bucket.delete_many(keys) == {}
        assert list(harness.server.objects) == [(BUCKET, KEY)]
        assert len(harness.server.calls("DeleteObjects")) == 4
        assert all("content-md5" in call.headers for call in harness.server.calls("DeleteObjects"))


async def test_each_error_is_told(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        body = deleted("a", errors=(("b", "AccessDenied"), ("c", "InternalError")))
        harness.server.script(Fault("DeleteObjects", Status(200, body=body)))
        failed = await harness.bucket.delete_many(["a", "b", "c", "d"])
        assert {key: type(error) for key, error in failed.items()} == {
            "b": errors.AccessDeniedError,
            "c": errors.UnavailableError,
            "d": errors.ProtocolError,
        }
        for key, error in failed.items():
            assert f"s3://{BUCKET}/{key} " in str(error)
        assert failed["c"].transient


@pytest.mark.parametrize("body", [b"", b"<html>hotspot</html>", b"not XML"])
async def test_a_web_page_deletes_nothing(tmp_path: Path, body: bytes) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("DeleteObjects", Status(200, body=body)))
        try:
            failed = await harness.bucket.delete_many([KEY])
        except errors.ProtocolError:
            return
        assert type(failed[KEY]) is errors.ProtocolError


# Folders


def make_files(folder: Path, count: int = 30) -> dict[str, bytes]:
    files = {f"{number % 3}/{number}": f"{number}".encode() * 3000 for number in range(count)}
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return files


def content(harness: Harness, prefix: str) -> dict[str, bytes]:
    return {
        key.removeprefix(prefix): found.data
        for (_, key), found in harness.server.objects.items()
        if key.startswith(prefix)
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    return tmp_path / "files", make_files(tmp_path / "files")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


# A request that is sent again may be the next one to fail.
PATIENT = dataclasses.replace(CONFIG, stall_timeout=0.6, retry_timeout=60, max_attempts=99)


@pytest.mark.parametrize("fault", [*LOST, Reset(request_byte=1000)], ids=repr)
async def test_a_folder_goes_up_through_faults(files: Any, home: Path, fault: Any) -> None:
    folder, expected = files
    async with open_harness(home, config=PATIENT) as harness:
        harness.server.script(*(Fault("PutObject", fault, nth=number) for number in range(1, 31, 4)))
        summary = await harness.bucket.upload_folder(folder, "f", harness.callback)
        assert summary.transferred == 30
        assert not summary.failed
        assert content(harness, "f/") == expected
        harness.succeeded(summary.size)
        harness.check_counts()


@pytest.mark.parametrize("fault", [*LOST, Close(response_byte=1000)], ids=repr)
async def test_a_folder_comes_down_through_faults(files: Any, home: Path, fault: Any) -> None:
    _, expected = files
    async with open_harness(home, config=PATIENT) as harness:
        for name, data in expected.items():
            harness.server.put(BUCKET, f"f/{name}", data)
        harness.server.put(BUCKET, "f/large", LARGE)
        harness.server.script(*(Fault("GetObject", fault, nth=number) for number in range(1, 31, 4)))
        there = home.parent / "there"
        summary = await harness.bucket.download_folder("f", there, harness.callback)
        assert summary.transferred == 31
        found = on_disk(there)
        assert found == expected | {"large": LARGE}
        harness.succeeded(summary.size)
        harness.check_counts(len(LARGE) + summary.size)


async def test_small_files_come_in_parallel_however_few_requests_large_ones_would_take(files: Any, home: Path) -> None:
    async with open_harness(home) as harness:
        for name, data in files[1].items():
            harness.server.put(BUCKET, f"f/{name}", data)
        harness.server.script(Fault("GetObject", Silence(), times=10**6))
        async with harness.bucket._borrow("list", None) as client:
            client.slots.down.took(0.0001)
            assert client.slots.down.width < 10
        there = home.parent / "there"
        task = asyncio.create_task(harness.bucket.download_folder("f", there, max_files=20))
        async with asyncio.timeout(30):
            while harness.server.peak_requests < 20:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not on_disk(there)


async def test_one_file_that_is_refused_does_not_end_the_others(files: Any, home: Path) -> None:
    folder, expected = files

    def is_one(seen: Seen) -> bool:
        return seen.key == "f/1/7"

    async with open_harness(home) as harness:
        harness.server.script(Fault("PutObject", Status(403, "AccessDenied"), where=is_one))
        summary = await harness.bucket.upload_folder(folder, "f")
        assert {name: type(error) for name, error in summary.failed.items()} == {"1/7": errors.AccessDeniedError}
        assert content(harness, "f/").keys() == expected.keys() - {"1/7"}
        harness.server.script(Fault("GetObject", Status(403, "AccessDenied"), where=is_one))
        harness.server.put(BUCKET, "f/1/7", b"data")
        summary = await harness.bucket.download_folder("f", home.parent / "there")
        assert summary.failed.keys() == {"1/7"}
        assert summary.transferred == 29


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Status(403, "InvalidAccessKeyId"), errors.UnknownKeyIdError),
        (Status(403, "QuotaExceeded"), errors.QuotaExceededError),
        (Status(503, "SlowDown"), errors.UnavailableError),
        (Reset(), errors.UnreachableError),
    ],
    ids=repr,
)
async def test_what_concerns_all_files_ends_it(files: Any, home: Path, fault: Any, kind: type[errors.LfaError]) -> None:
    folder, expected = files
    async with open_harness(home) as harness:
        harness.server.script(Fault("PutObject", fault, nth=11, times=10**6))
        with pytest.raises(kind):
            await harness.bucket.upload_folder(folder, "f", max_files=4)
        assert len(harness.server.calls("PutObject")) < 10 + 5 * 4
        harness.server.script()
        summary = await harness.bucket.upload_folder(folder, "f")
        assert summary.skipped >= 9, "it goes on with what is not there yet"
        assert content(harness, "f/") == expected


@pytest.mark.parametrize("verb", ["up", "down"])
async def test_a_cancelled_folder_leaves_nothing_half(files: Any, home: Path, verb: str) -> None:
    folder, expected = files
    async with open_harness(home) as harness:
        for name, data in expected.items() if verb == "down" else ():
            harness.server.put(BUCKET, f"f/{name}", data)
        harness.server.script(
            Fault("PutObject", Silence(), nth=8), Fault("GetObject", Silence(response_byte=100), nth=8)
        )
        there = home.parent / "there"
        work = harness.bucket.upload_folder(folder, "f") if verb == "up" else harness.bucket.download_folder("f", there)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await work
        if verb == "up":
            assert content(harness, "f/").items() <= expected.items()
        else:
            found = on_disk(there)
            assert found.items() <= expected.items()


async def test_many_files_hold_no_more_memory_than_one_upload(home: Path) -> None:
    folder = home.parent / "files"
    folder.mkdir()
    for number in range(8):
        (folder / str(number)).write_bytes(bytes([number]) * (MiB - 1))
    async with open_harness(home) as harness:
        with harness.bounded_upload():
            await harness.bucket.upload_folder(folder, "f", max_files=40)
        assert len(content(harness, "f/")) == 8
        assert harness.server.peak_requests <= 4, "of 1 MiB each, where an upload may hold 3.75"


async def test_a_callback_that_raises_ends_it(files: Any, home: Path) -> None:
    folder, _ = files

    def fail(_: int) -> None:
        raise ZeroDivisionError

    async with open_harness(home) as harness:
        with pytest.raises(ZeroDivisionError):
            await harness.bucket.upload_folder(folder, "f", fail)
