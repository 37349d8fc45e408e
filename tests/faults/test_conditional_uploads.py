"""An upload that must not replace an object, where responses are lost and others come in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import errors

from . import Close, Fault, Hook, Reset, Silence, Status
from .harness import BUCKET, KEY, LARGE, SMALL, open_harness

if TYPE_CHECKING:
    from pathlib import Path

    from .server import FaultyS3Server

pytestmark = pytest.mark.fast_clock

MAKES = [("PutObject", SMALL), ("CompleteMultipartUpload", LARGE)]
BOTH = pytest.mark.parametrize(("operation", "data"), MAKES, ids=[name for name, _ in MAKES])
NEW = "new"
OTHER = b"somebody else's"


def put_other(server: FaultyS3Server) -> None:
    server.put(BUCKET, NEW, OTHER)


@BOTH
@pytest.mark.parametrize("lost", [Close(carry_out=True), Reset(carry_out=True), Silence(carry_out=True)], ids=repr)
async def test_a_lost_response_is_success_when_the_object_is_ours(
    tmp_path: Path, operation: str, data: bytes, lost: Any
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault(operation, lost, nth=1))
        await harness.bucket.upload(data, NEW, harness.callback, if_none_match=True)
        assert harness.server.objects[BUCKET, NEW].data == data
        assert len(harness.server.calls(operation)) == 2
        assert all(call.headers["if-none-match"] == "*" for call in harness.server.calls(operation))
        harness.succeeded(len(data))
        harness.check_counts()
        assert not harness.server.uploads


@BOTH
async def test_somebody_else_in_between_is_not_replaced(tmp_path: Path, operation: str, data: bytes) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault(operation, Hook(before=put_other), nth=1))
        with pytest.raises(errors.KeyExistsError):
            await harness.bucket.upload(data, NEW, if_none_match=True)
        assert harness.server.objects[BUCKET, NEW].data == OTHER
        assert len(harness.server.calls(operation)) == 1
        assert not harness.server.uploads


@BOTH
async def test_somebody_else_after_a_failed_attempt_is_not_replaced(
    tmp_path: Path, operation: str, data: bytes
) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault(operation, Reset(), nth=1), Fault(operation, Hook(before=put_other), nth=2))
        with pytest.raises(errors.KeyExistsError) as caught:
            await harness.bucket.upload(data, NEW, if_none_match=True)
        assert caught.value.attempts == 2
        assert harness.server.objects[BUCKET, NEW].data == OTHER
        assert not harness.server.uploads


async def test_the_same_bytes_by_somebody_else_are_not_ours(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("PutObject", Hook(before=lambda server: server.put(BUCKET, NEW, SMALL)), nth=1))
        with pytest.raises(errors.KeyExistsError):
            await harness.bucket.upload(SMALL, NEW, if_none_match=True)


@BOTH
async def test_a_conflict_is_tried_again(tmp_path: Path, operation: str, data: bytes) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault(operation, Status(409, "ConditionalRequestConflict"), nth=1, times=2))
        await harness.bucket.upload(data, NEW, if_none_match=True)
        assert harness.server.objects[BUCKET, NEW].data == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["one request", "parts"])
async def test_nothing_is_sent_when_the_object_is_there(tmp_path: Path, data: bytes) -> None:
    async with open_harness(tmp_path) as harness:
        with pytest.raises(errors.KeyExistsError):
            await harness.bucket.upload(data, KEY, if_none_match=True)
        assert [call.operation for call in harness.server.seen] == ["HeadObject"]


async def test_a_server_without_the_condition_is_asked_before_the_upload_is_completed(tmp_path: Path) -> None:
    """As Ceph RGW 16: what came during the upload is seen, though the server would not mind."""
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("UploadPart", Hook(after=put_other), nth=2))
        with pytest.raises(errors.KeyExistsError):
            await harness.bucket.upload(LARGE, NEW, if_none_match=True)
        assert harness.server.calls("CompleteMultipartUpload") == []
        assert harness.server.objects[BUCKET, NEW].data == OTHER
        assert not harness.server.uploads


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["one request", "parts"])
async def test_who_may_not_ask_does_not_upload(tmp_path: Path, data: bytes) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("HeadObject", Status(403, "AccessDenied")))
        with pytest.raises(errors.AccessDeniedError):
            await harness.bucket.upload(data, NEW, if_none_match=True)
        assert (BUCKET, NEW) not in harness.server.objects


async def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        datas = [bytes([number]) * 1000 for number in range(20)]
        results = await asyncio.gather(
            *(harness.bucket.upload(data, NEW, if_none_match=True) for data in datas), return_exceptions=True
        )
        won = [number for number, result in enumerate(results) if isinstance(result, str)]
        assert len(won) == 1
        assert sum(isinstance(result, errors.KeyExistsError) for result in results) == 19
        assert harness.server.objects[BUCKET, NEW].data == datas[won[0]]
