"""Responses to range requests that are not what they claim: they end with the right bytes, or an error of ours."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import LfaError

from . import Action, Fault
from .harness import BUCKET, CONFIG, KEY, LARGE, open_harness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .messages import Request, Response
    from .server import Exchange

    Lie = Callable[[int, Request], bytes]

pytestmark = pytest.mark.fast_clock

IMPATIENT = replace(CONFIG, stall_timeout=1, max_attempts=3, retry_delay=0.01)
SIZE = len(LARGE)
MD5 = hashlib.md5(LARGE, usedforsecurity=False).hexdigest()
WEAK = ("ETag", f'W/"{MD5}"')


@dataclass
class Tell(Action):
    """Sends what a function makes of the request, which it is given with its number."""

    lie: Lie
    number: int = 0

    async def respond(self, exchange: Exchange) -> Response:
        self.number += 1
        await exchange.connection.write(self.lie(self.number, exchange.request))
        exchange.connection.close_sending()
        await exchange.connection.gone()
        raise AssertionError


def response(status: int, *headers: tuple[str, Any], body: bytes = b"") -> bytes:
    """Make a response; what the headers lack is right."""
    good = {"ETag": f'"{MD5}"', "Last-Modified": "Thu, 26 Nov 2026 00:00:00 GMT", "Connection": "close"}
    if not {"Content-Length", "Transfer-Encoding"} & {name for name, _ in headers}:
        good["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**good, **dict(headers)}.items())
    return f"HTTP/1.1 {status} Reason\r\n{lines}\r\n".encode() + body


def bounds(request: Request) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    return (int(found[1]), min(int(found[2]) + 1, SIZE)) if found else (0, SIZE)


def ranged(start: int, stop: int, *headers: tuple[str, Any], body: bytes | None = None, total: int = SIZE) -> bytes:
    """Make the response to a range."""
    said = ("Content-Range", f"bytes {start}-{stop - 1}/{total}")
    return response(206, said, *headers, body=LARGE[start:stop] if body is None else body)


def good(request: Request, *headers: tuple[str, Any], **more: Any) -> bytes:
    if "range" not in request.headers:
        return response(200, *headers, body=LARGE)
    return ranged(*bounds(request), *headers, **more)


def third(lie: Callable[[int, int], bytes]) -> Lie:
    """Tell the truth, but to the third request."""
    return lambda number, request: lie(*bounds(request)) if number == 3 else good(request)


def framed(start: int, stop: int) -> bytes:
    return ranged(start, stop, ("Content-Type", "multipart/byteranges"), body=b"--x\r\n" + LARGE[start:stop] + b"--x--")


def strongly(_: int, request: Request) -> bytes:
    """Give a weakened ETag, as a proxy does; to the service behind it, as to RFC 9110, weak ones never match."""
    if request.headers.get("if-match", f'"{MD5}"') != f'"{MD5}"':
        return response(412)
    return good(request, WEAK)


def beyond(then: bytes) -> Lie:
    return lambda number, _: response(416) if number == 1 else then


def compressed(_: int, __: Request) -> bytes:
    body = gzip.compress(LARGE)
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    return response(200, WEAK, ("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"), body=chunks)


LIES: dict[str, Lie] = {
    "fewer bytes than the range": lambda _, q: good(q, body=LARGE[bounds(q)[0] : bounds(q)[1] - 1]),
    "more bytes than the range": lambda _, q: good(q, body=LARGE[bounds(q)[0] : bounds(q)[1]] + b"x"),
    "the framing of several ranges": lambda _, q: framed(*bounds(q)),
    "a 206 to a request without a range, of the end": beyond(ranged(1000, SIZE)),
    "a 206 to a request without a range, of the beginning": beyond(ranged(0, 1000)),
    "compressed on its way": compressed,
}
LAPSES: dict[str, Lie] = {
    "fewer bytes, once": third(lambda start, stop: ranged(start, stop, body=LARGE[start : stop - 1])),
    "more bytes, once": third(lambda start, stop: ranged(start, stop, body=LARGE[start:stop] + b"x")),
    "a later begin, once": third(lambda start, stop: ranged(start + 1, stop)),
    "an earlier end, once": third(lambda start, stop: ranged(start, stop - 1)),
    "a later end, once": third(lambda start, stop: ranged(start, stop + 1)),
    "no content, once": third(lambda _, __: response(204)),
    "a 206 to a request without a range, of all": beyond(ranged(0, SIZE)),
    "a shorter first range": lambda number, q: ranged(0, 1000) if number == 1 else good(q),
    "the unit in capitals": lambda _, q: good(q).replace(b": bytes", b": Bytes"),
    "weak ETags": strongly,
    "a weak ETag, once": lambda number, q: good(q, WEAK) if number == 1 else good(q),
}


async def _download(harness: Any) -> bytes:
    return bytes((await harness.bucket.download(KEY)).getvalue())


async def _download_file(harness: Any) -> bytes:
    return bytes((await harness.bucket.download_file(KEY, harness.destination)).read_bytes())


async def _stream(harness: Any) -> bytes:
    return b"".join([chunk async for chunk in harness.bucket.stream(KEY)])


VERBS = [_download, _download_file, _stream]


@pytest.mark.parametrize("get", VERBS)
@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_an_error(tmp_path: Path, get: Any, lie: str) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        harness.server.script(Fault("GetObject", Tell(LIES[lie])))
        with pytest.raises(LfaError):
            await get(harness)


@pytest.mark.parametrize("get", VERBS)
@pytest.mark.parametrize("lapse", LAPSES)
async def test_a_lapse_is_made_good(tmp_path: Path, get: Any, lapse: str) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        harness.server.script(Fault("GetObject", Tell(LAPSES[lapse])))
        assert await get(harness) == LARGE


async def test_what_is_stored_compressed_comes_as_it_is(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        data = gzip.compress(LARGE)
        await harness.bucket.upload(data, KEY, extra_args={"ContentEncoding": "gzip"})
        assert harness.server.objects[BUCKET, KEY].headers["content-encoding"] == "gzip"
        for get in VERBS:
            assert await get(harness) == data
