"""Whatever a server sends, every operation soon returns the right data or raises an LfaError; nothing is left."""

from __future__ import annotations

import asyncio
import gzip
import traceback
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from lsst_lfa import LfaError, download_url
from lsst_lfa.errors import ProtocolError, UnavailableError

from . import Action, Fault, Raw
from .harness import BUCKET, CONFIG, KEY, Harness, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from lsst_lfa._transfer.responses import ObjectInfo

    from .messages import Response
    from .server import Exchange, Seen

    Verb = Callable[[Harness], Awaitable[object]]

pytestmark = pytest.mark.fast_clock

IMPATIENT = replace(
    CONFIG,
    stall_timeout=1,
    max_attempts=2,
    retry_delay=0.01,
    cleanup_timeout=0.5,
    part_size=64 * 1024,
    multipart_threshold=64 * 1024,
)
SOON = 10.0
"""Seconds for one call; the machine may be busy."""
DATA = b"hello"
SIGNED = "X-Amz-Date=20360301T120000Z&X-Amz-Expires=30&X-Amz-Signature=CANARY"


def response(status: object, *headers: tuple[str, object], body: bytes = DATA, length: bool = True) -> bytes:
    """Make a response, with whatever in it; ``Content-Length`` is added unless another length is told."""
    lines = [f"HTTP/1.1 {status} Reason".encode()]
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else str(value).encode()) for name, value in headers
    ]
    if length and not {name for name, _ in headers} & {"Content-Length", "Transfer-Encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def error(code: bytes, status: int = 403, **fields: bytes) -> bytes:
    inner = b"".join(b"<%s>%s</%s>" % (name.encode(), text, name.encode()) for name, text in fields.items())
    return response(status, body=b"<Error><Code>" + code + b"</Code>" + inner + b"</Error>")


def found(*headers: tuple[str, object], status: int = 200, body: bytes = DATA, length: bool = True) -> bytes:
    """Make a good response, but for some headers."""
    names = {name for name, _ in headers}
    good = [("ETag", '"0123456789abcdef0123456789abcdef"'), ("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")]
    return response(status, *[each for each in good if each[0] not in names], *headers, body=body, length=length)


def listing(*inner: bytes, root: bytes = b"ListBucketResult") -> bytes:
    return found(body=b"<" + root + b">" + b"".join(inner) + b"</" + root + b">")


def item(key: bytes = b"k", size: bytes = b"1", time: bytes = b"2026-01-01T00:00:00Z") -> bytes:
    return b"<Contents><Key>%s</Key><Size>%s</Size><LastModified>%s</LastModified></Contents>" % (key, size, time)


MORE, END = b"<IsTruncated>true</IsTruncated>", b"<IsTruncated>false</IsTruncated>"
UPLOAD = b"<Upload><Key>k</Key><UploadId>u</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload>"
UPLOADS = b"ListMultipartUploadsResult"
LONG = "9" * 5000
CHUNKED = ("Transfer-Encoding", "chunked")

HEADS = {
    **{f"status {status}, no body": response(status, body=b"") for status in (201, 204, 304, 404, 416, 600, 999)},
    **{f"status {status}": response(status, body=b"") for status in (101, 199, 0, -1, 2000, "abc")},
    "many times 100": b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
    "103, then the response": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + found(),
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x16",
    "half a head": b"HTTP/1.1 200 OK\r\nETa",
    "a header of 100 kB": found(("X", "y" * 100_000)),
    "a header twice": found(("ETag", '"a"'), ("ETag", '"b"')),
    "Latin-1 in headers": found(("x-amz-meta-a", b"\xfcber"), ("x-amz-expiration", b"\xfc")),
    **{
        f"Content-Length {text[:9]}": found(("Content-Length", text)) for text in ("-1", "abc", "", "5, 5", "1_0", LONG)
    },
    "no length": found(length=False),
    "chunked": found(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"),
    "chunked, a length that is none": found(CHUNKED, body=b"zz\r\nhello\r\n"),
    "an encoding of the transfer": found(("Transfer-Encoding", "gzip"), body=gzip.compress(DATA)),
    "gzip, an error": response(500, ("Content-Encoding", "gzip"), body=gzip.compress(b"<Error/>")),
    **{
        f"{name} {text[:9]!r}": found((name, text))
        for name in ("Last-Modified", "Date", "Expires", "Retry-After", "x-amz-missing-meta")
        for text in ("", "yesterday", LONG, "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2300")
    },
    **{
        f"206, Content-Range {text[:20]}": found(("Content-Range", text), status=206)
        for text in ("bytes 0-4/5", f"bytes 0-4/{10**18}", "bytes 0-4/-5", "bytes 0-4/*", f"bytes 0-4/{LONG}", "")
    },
    "206 without Content-Range": found(status=206),
    "416 without Content-Range": response(416),
}
BODIES = {
    "entities": found(body=b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "' + b"&a;" * 99 + b'">]><a>&b;</a>'),
    "XML of great depth": response(500, body=b"<a>" * 10_000 + b"</a>" * 10_000),
    "an encoding that nobody knows": found(body=b"<?xml version='1.0' encoding='nonsense'?><a/>"),
    "truncated": response(403, body=b"<Error><Code>AccessDenied</Code><Mess"),
    "an error without a code": response(403, body=b"<Error><Message>m</Message></Error>"),
    "an error with two codes": error(b"A</Code><Code>B"),
    "an error with a tree for a code": error(b"<x>A</x>"),
    "an error with a tree for a message": error(b"A", Message=b"<x>m</x>"),
    "an error of many lines": error(b"A", Message=b"a\n\tb\x7f" + b"c" * 9000),
    "a region that is a tree": error(b"AuthorizationHeaderMalformed", 400, Region=b"<x/>"),
    "a message with a signature": error(b"A", Message=f"https://h/b/k?{SIGNED}".replace("&", "&amp;").encode()),
    "bytes of any kind": response(403, body=bytes(range(256))),
}
LISTINGS = {
    "no token": listing(MORE, item()),
    "an empty token": listing(MORE, item(), b"<NextContinuationToken/>"),
    "the same token again": listing(MORE, item(), b"<NextContinuationToken>x</NextContinuationToken>"),
    "a tree for a token": listing(MORE, item(), b"<NextContinuationToken><x/></NextContinuationToken>"),
    **{
        f"truncated: {text!r}": listing(b"<IsTruncated>%s</IsTruncated>" % text, item())
        for text in (b"", b"yes", b"truefalse", b"<x/>", b"\xff")
    },
    "truncated: nothing": listing(b"<IsTruncated/>", item()),
    "nothing in an item": listing(END, b"<Contents/>"),
    "text for an item": listing(END, b"<Contents>hello</Contents>"),
    "no key": listing(END, item(key=b"")),
    "a key twice": listing(END, item(key=b"k</Key><Key>k")),
    **{f"size {size[:9]!r}": listing(END, item(size=size)) for size in (b"", b"abc", b"-1", LONG.encode())},
    **{f"time {time!r}": listing(END, item(time=time)) for time in (b"", b"soon", b"9999-12-31T23:59:59-23:00")},
    "uploads, no marker": listing(MORE, UPLOAD, root=UPLOADS),
    "uploads, the same marker again": listing(MORE, UPLOAD, b"<NextKeyMarker>k</NextKeyMarker>", root=UPLOADS),
    "uploads, no id": listing(END, UPLOAD.replace(b">u<", b"><"), root=UPLOADS),
    "uploads, no time": listing(END, UPLOAD.replace(b"2020", b""), root=UPLOADS),
    "begun, without an id": response(200, body=b"<InitiateMultipartUploadResult/>"),
    "begun, with two ids": response(200, body=b"<I><UploadId>a</UploadId><UploadId>b</UploadId></I>"),
    "completed, with a tree for an ETag": response(200, body=b"<C><ETag><x/></ETag></C>"),
}
ALL = {**HEADS, **BODIES, **LISTINGS}


async def _stream(harness: Harness) -> bytes:
    return b"".join([chunk async for chunk in harness.bucket.stream(KEY)])


async def _download(harness: Harness) -> bytes:
    return (await harness.bucket.download(KEY)).getvalue()


async def _download_file(harness: Harness) -> bytes:
    return (await harness.bucket.download_file(KEY, harness.destination)).read_bytes()


async def _download_url(harness: Harness) -> bytes:
    url = f"{harness.server.endpoint_url}/{BUCKET}/{quote(KEY)}?{SIGNED}"
    return (await download_url(url, config=IMPATIENT)).getvalue()


async def _list(harness: Harness) -> int:
    return len([info async for info in harness.bucket.list()])


async def _list_uploads(harness: Harness) -> int:
    return len([upload async for upload in harness.bucket.list_uploads()])


async def _abort(harness: Harness) -> int:
    harness.server.store.create_upload(BUCKET, KEY)
    try:
        return await harness.bucket.abort_stale_uploads(-5)
    finally:
        harness.server.uploads.clear()  # they are not the library's


async def _upload(harness: Harness) -> str:
    return await harness.bucket.upload(bytes(100_000), "new")


VERBS: dict[str, tuple[str, Verb]] = {
    "upload": ("PutObject", lambda harness: harness.bucket.upload(DATA, "new")),
    "upload in parts: begin": ("CreateMultipartUpload", _upload),
    "upload in parts: part": ("UploadPart", _upload),
    "upload in parts: complete": ("CompleteMultipartUpload", _upload),
    "upload in parts: abort": ("AbortMultipartUpload", _abort),
    "download": ("GetObject", _download),
    "download_file": ("GetObject", _download_file),
    "stream": ("GetObject", _stream),
    "download_url": ("GetObject", _download_url),
    "head": ("HeadObject", lambda harness: harness.bucket.head(KEY)),
    "list": ("ListObjectsV2", _list),
    "list_uploads": ("ListMultipartUploads", _list_uploads),
    "check": ("ListObjectsV2", lambda harness: harness.bucket.check()),
    "delete": ("DeleteObject", lambda harness: harness.bucket.delete(KEY)),
    "create": ("CreateBucket", lambda harness: harness.bucket.create()),
    "abort_stale_uploads": ("ListMultipartUploads", lambda harness: harness.bucket.abort_stale_uploads(3600)),
}
DATA_OF_OURS = {"download", "download_file", "stream", "download_url"}


@pytest.mark.parametrize("verb", VERBS)
async def test_each_response_to_each_verb(verb: str, tmp_path: Path) -> None:
    operation, act = VERBS[verb]
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(f"the loop: {context}"))
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        await harness.bucket.exists(KEY)
        for name, data in ALL.items():
            harness.server.script(Fault(operation, Raw(data)))
            found = await outcome(act(harness))
            if isinstance(found, LfaError):
                problems += [f"{name}: {what}" for what in unfit_words(found)]
            elif isinstance(found, BaseException):
                problems.append(f"{name}: {found!r}")
            elif verb in DATA_OF_OURS and not data.endswith((found, b"hello\r\n0\r\n\r\n")):
                problems.append(f"{name}: {found[:50]!r}")
            if harness.server.uploads:
                problems.append(f"{name}: a multipart upload is left")
                harness.server.uploads.clear()
    assert not problems


async def outcome(work: Any) -> Any:
    try:
        async with asyncio.timeout(SOON):
            return await work
    except Exception as error:  # noqa: BLE001 - whichever it is
        return error


def unfit_words(error: LfaError) -> list[str]:
    """Say what is wrong with how an error reads."""
    text = str(error)
    wrong = [] if text.isprintable() and len(text) < 1500 else [f"not one short line: {text[:200]!r}"]
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    return [*wrong, "it shows a signature"] if "CANARY" in shown else wrong


async def test_a_chunked_download_is_all_of_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        for data in (HEADS["chunked"],):
            harness.server.script(Fault("GetObject", Raw(data)))
            for get in (_download, _download_file, _stream, _download_url):
                assert await get(harness) == DATA


async def test_a_listing_that_runs_in_a_circle_ends(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        pages = [listing(MORE, item(), b"<NextContinuationToken>%d</NextContinuationToken>" % n) for n in (1, 2, 3)]
        asked_for = [{"", "3"}, {"1"}, {"2"}]
        harness.server.script(
            *(
                Fault("ListObjectsV2", Raw(page), where=partial(_asks_for, asked))
                for page, asked in zip(pages, asked_for, strict=True)
            )
        )
        keys: list[str] = []
        error = await outcome(_extend(keys, harness.bucket.list()))
        assert isinstance(error, LfaError)
        assert "repeats itself" in str(error)
        assert keys == ["k"] * 3


def _asks_for(tokens: set[str], seen: Seen) -> bool:
    return seen.query.get("continuation-token", "") in tokens


async def _extend(keys: list[str], listed: AsyncIterator[ObjectInfo]) -> None:
    async for info in listed:
        keys.append(info.key)  # noqa: PERF401 - what came before the error counts


@pytest.mark.parametrize("more", [b"true", b"True", b"TRUE", b"1", b" true\n"])
@pytest.mark.parametrize("end", [b"false", b"False", b"0"])
async def test_a_listing_goes_on_however_the_server_says_so(tmp_path: Path, more: bytes, end: bytes) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        token = b"<NextContinuationToken>1</NextContinuationToken>"
        pages = [
            listing(b"<IsTruncated>%s</IsTruncated>" % more, item(key=b"a"), token),
            listing(item(key=b"b"), b"<IsTruncated>%s</IsTruncated>" % end),
        ]
        harness.server.script(*(Fault("ListObjectsV2", Raw(page), nth=number) for number, page in enumerate(pages, 1)))
        assert [info.key async for info in harness.bucket.list()] == ["a", "b"]


@pytest.mark.parametrize("said", [b"<IsTruncated/>", b"<IsTruncated>yes</IsTruncated>"])
async def test_a_listing_that_does_not_say_whether_it_goes_on_is_an_error(tmp_path: Path, said: bytes) -> None:
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        harness.server.script(Fault("ListObjectsV2", Raw(listing(said, item()))))
        assert type(await outcome(_list(harness))) is ProtocolError


async def test_of_an_error_only_the_beginning_is_read(tmp_path: Path) -> None:
    endless = response(500, ("Content-Length", 400 * 1024**2), body=b"")
    async with open_harness(tmp_path, config=IMPATIENT) as harness:
        for act in (_download, _list, _download_url):
            harness.server.script(Fault("*", Flood(endless)))
            error = await outcome(act(harness))
            assert type(error) is UnavailableError, error
        assert harness.server.bytes_sent["flood"] < 100 * 1024**2
        assert harness.server.bytes_sent["flood"]


@dataclass
class Flood(Action):
    """Sends a head, and zeros until nobody takes them."""

    head: bytes

    async def respond(self, exchange: Exchange) -> Response:
        await exchange.connection.write(self.head)
        while True:
            await exchange.connection.write(bytes(64 * 1024))
            exchange.server.bytes_sent["flood"] += 64 * 1024
            await asyncio.sleep(0)
