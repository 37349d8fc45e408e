"""Reading parts of an object, through everything that can go wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from astropy.io import fits

from lsst_lfa import errors
from tests.unit.test_fits_ranges import many_hdus, to_bytes

from . import Close, Fault, Hook, IgnoreRange, Reset, Silence, Status
from .harness import BUCKET, KEY, LARGE, REVERSED, open_harness

if TYPE_CHECKING:
    from pathlib import Path

    from .server import FaultyS3Server, Seen

pytestmark = pytest.mark.fast_clock

START, STOP = 100_000, 4_000_000
BREAKS = [
    Close(response_byte=70_000),
    Reset(response_byte=1),
    Silence(response_byte=500_000),
    Status(503, "SlowDown"),
    Reset(),
]


def replace(server: FaultyS3Server) -> None:
    server.put(BUCKET, KEY, REVERSED)


@pytest.mark.parametrize("fault", BREAKS, ids=repr)
async def test_what_breaks_off_is_resumed(tmp_path: Path, fault: Any) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", fault, nth=1, times=2))
        file = await harness.bucket.download(KEY, harness.callback, start=START, stop=STOP)
        assert file.getvalue() == LARGE[START:STOP]
        harness.succeeded(STOP - START)
        harness.check_counts()
        assert all("if-match" in call.headers for call in harness.server.calls("GetObject"))


@pytest.mark.parametrize("fault", BREAKS, ids=repr)
async def test_a_reader_reads_on_after_a_break(tmp_path: Path, fault: Any) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", fault, nth=2, times=2))
        async with harness.bucket.open(KEY) as reader:
            data = b"".join([await reader.read(30_000) for _ in range(len(LARGE) // 30_000 + 1)])
        assert data == LARGE


async def test_a_failure_ahead_is_told_when_its_bytes_are_read_and_may_pass(tmp_path: Path) -> None:
    def is_ahead(seen: Seen) -> bool:
        return int(seen.headers["range"].removeprefix("bytes=").partition("-")[0]) >= 128 * 1024

    async with open_harness(tmp_path) as harness, harness.bucket.open(KEY) as reader:
        harness.server.script(Fault("GetObject", Status(503, "SlowDown"), where=is_ahead))
        for position in (0, 64 * 1024):  # what follows the second is on its way, and fails
            assert await reader.read(64 * 1024) == LARGE[position : position + 64 * 1024]
        with pytest.raises(errors.UnavailableError):
            await reader.read(1)
        assert await reader.tell() == 128 * 1024
        harness.server.script()
        assert await reader.read(5) == LARGE[128 * 1024 : 128 * 1024 + 5]
        assert await reader.read() == LARGE[128 * 1024 + 5 :]


async def test_a_replaced_object_is_never_mixed(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("HeadObject", Hook(after=replace), nth=1))
        with pytest.raises(errors.ObjectChangedError):
            await harness.bucket.read(KEY, START, STOP)
        async with harness.bucket.open(KEY) as reader:
            assert await reader.read(1000) == REVERSED[:1000]
            harness.server.put(BUCKET, KEY, LARGE)
            with pytest.raises(errors.ObjectChangedError):
                await reader.read()


async def test_a_server_that_ignores_ranges_gives_no_wrong_bytes(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", IgnoreRange()))
        with pytest.raises(errors.ProtocolError, match="does not match the request"):
            await harness.bucket.read(KEY, START, STOP)


async def test_a_head_without_etag_is_no_version(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("HeadObject", Status(200, headers={"ETag": "", "Content-Length": "5"})))
        with pytest.raises(errors.ProtocolError):
            await harness.bucket.read(KEY, 1, 2)


@pytest.mark.parametrize("what", ["download", "reader", "hdus", "headers"])
@pytest.mark.parametrize("operation", ["HeadObject", "GetObject"])
async def test_a_cancellation_leaves_nothing(tmp_path: Path, what: str, operation: str) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, to_bytes(many_hdus()))
        harness.server.script(
            Fault(operation, Silence(), nth=2 if operation == "GetObject" and what != "download" else 1)
        )

        async def read() -> None:
            async with harness.bucket.open(KEY) as reader:
                while await reader.read(30_000):
                    pass

        work: Any = {
            "download": lambda: harness.bucket.download(KEY, start=1),
            "reader": read,
            "hdus": lambda: harness.bucket.download_fits(KEY, hdus=[-1]),
            "headers": lambda: harness.bucket.fits_headers(KEY),
        }[what]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await work()


async def test_headers_come_through_faults(tmp_path: Path) -> None:
    hdulist = many_hdus()
    async with open_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, to_bytes(hdulist))
        harness.server.script(*(Fault("GetObject", Close(response_byte=1000), nth=number) for number in (1, 3, 5)))
        headers = await harness.bucket.fits_headers(KEY)
        assert [header.get("EXTNAME") for header in headers[1:]] == [hdu.name for hdu in hdulist[1:]]
        part = await harness.bucket.download_fits(KEY, harness.callback, hdus=["WCS"])
        assert fits.HDUDiff(part[0], hdulist["WCS"]).identical
        harness.succeeded(sum(harness.counts))
        harness.check_counts()


async def test_headers_take_few_requests_and_bytes(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.put(BUCKET, KEY, to_bytes(many_hdus()))
        await harness.bucket.fits_headers(KEY)
        assert len(harness.server.calls("HeadObject")) == 1
        assert len(harness.server.calls("GetObject")) <= 9, "as many as HDUs"
        assert harness.server.bytes_sent["GetObject"] < 9 * 10 * 2880 + 80_000
