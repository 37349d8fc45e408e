"""Completing an upload, with servers that take their time, or do nothing at all, under the status 200."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import errors
from tests.clock import FastClockLoop

from . import Action, Fault, Silence, Status
from .harness import BUCKET, CONFIG, LARGE, open_harness

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from .harness import Harness
    from .messages import Response
    from .server import Exchange

pytestmark = pytest.mark.fast_clock

IMPATIENT = replace(CONFIG, stall_timeout=0.3, max_attempts=3, retry_delay=0.01, cleanup_timeout=0.25)
COMPLETE = "CompleteMultipartUpload"
NEW = "a key that has no object yet"
XML = b'<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass
class AtWork(Action):
    """Responds at once with the status 200, and sends white space until it is done, as S3 does.

    Parameters
    ----------
    seconds : float
        For how long.
    pause : float, optional
        The time between two of its white spaces.
    result : bytes, optional
        The body in the end; by default it does what was asked for, and says so.
    """

    seconds: float
    pause: float = 0.05
    result: bytes = b""

    async def respond(self, exchange: Exchange) -> Response:
        write = exchange.connection.write
        await write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while loop.time() < end:
            await write(b"1\r\n\n\r\n")
            await asyncio.sleep(self.pause)
        body = self.result or b"".join(map(bytes, exchange.carry_out().body))
        await write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        exchange.connection.close_sending()
        await exchange.connection.gone()
        raise AssertionError


@pytest.fixture
def opening(tmp_path: Path) -> AbstractAsyncContextManager[Harness]:
    return open_harness(tmp_path, config=IMPATIENT)


def check(harness: Harness, *, calls: int) -> None:
    assert harness.server.objects[BUCKET, NEW].data == LARGE
    assert len(harness.server.calls(COMPLETE)) == calls
    assert not harness.server.uploads


@pytest.mark.parametrize("seconds", [0.0, 0.8], ids=["for a moment", "for longer than stall_timeout"])
async def test_white_space_says_that_the_server_is_at_work(
    opening: AbstractAsyncContextManager[Harness], seconds: float
) -> None:
    async with opening as harness:
        harness.server.script(Fault(COMPLETE, AtWork(seconds)))
        await harness.bucket.upload(LARGE, NEW)
        check(harness, calls=1)
        assert not harness.server.calls("AbortMultipartUpload")


async def test_white_space_for_ever_is_a_timeout(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, FastClockLoop):
        pytest.skip("without a fast clock this takes ten minutes")
    async with open_harness(tmp_path, config=replace(IMPATIENT, stall_timeout=60)) as harness:
        harness.server.script(Fault(COMPLETE, AtWork(3600, pause=30)))
        began = loop.time()
        with pytest.raises(errors.TransferTimeoutError):
            await harness.bucket.upload(LARGE, NEW)
        assert 600 < loop.time() - began < 700
        assert not harness.server.uploads


@pytest.mark.parametrize(
    ("code", "error", "calls"),
    [("InternalError", errors.UnavailableError, 3), ("AccessDenied", errors.AccessDeniedError, 1)],
)
async def test_white_space_and_then_an_error(
    opening: AbstractAsyncContextManager[Harness], code: str, error: type[errors.LfaError], calls: int
) -> None:
    async with opening as harness:
        body = b"  \r\n" + XML + f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        harness.server.script(Fault(COMPLETE, Status(200, body=body)))
        with pytest.raises(error, match=code):
            await harness.bucket.upload(LARGE, NEW)
        assert len(harness.server.calls(COMPLETE)) == calls
        assert not harness.server.uploads


@pytest.mark.parametrize("status", [200, 204, 206])
async def test_a_success_that_says_nothing_and_no_object(
    opening: AbstractAsyncContextManager[Harness], status: int
) -> None:
    """Twice it is a lapse; for ever it is a response that is not S3's, and not a missing key."""
    async with opening as harness:
        nothing = Status(status, body=b"" if status == 204 else b"<html><body>Welcome</body></html>")
        harness.server.script(Fault(COMPLETE, nothing, times=2))
        await harness.bucket.upload(LARGE, NEW)
        check(harness, calls=3)
        harness.server.script(Fault(COMPLETE, nothing))
        with pytest.raises(errors.ProtocolError, match="does not exist"):
            await harness.bucket.upload(LARGE, f"{NEW} either")
        assert not harness.server.uploads


async def test_the_log_says_why_an_upload_could_not_be_aborted(
    opening: AbstractAsyncContextManager[Harness], caplog: pytest.LogCaptureFixture
) -> None:
    async with opening as harness:
        harness.server.script(
            Fault("UploadPart", Status(403, "AccessDenied")), Fault("AbortMultipartUpload", Silence())
        )
        with pytest.raises(errors.AccessDeniedError):
            await harness.bucket.upload(LARGE, NEW)
        (said,) = caplog.messages
        (upload_id,) = harness.server.uploads
        assert f"could not abort multipart upload {upload_id} of s3://{BUCKET}/{NEW} (TimeoutError)" in said
