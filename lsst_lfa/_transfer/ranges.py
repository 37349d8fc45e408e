"""One range of one version of an object, through as many attempts as it takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError
from multidict import CIMultiDict

from .failures import service_error
from .plan import ByteRange, MiB
from .response_body import ResponseBody
from .responses import bad_response, parse_range_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

    from lsst_lfa.errors import ServiceError

    from .attempts import Attempts, BucketClient, Slots
    from .config import TransferConfig
    from .failures import RequestInfo
    from .responses import RangeHeaders
    from .sinks import Writer
    from .timeouts import StallTimeout

    OpenWriter = Callable[[int, int | None], Writer]

__all__ = ["SHORT_RANGE", "Fetch", "PinnedObject", "RangeReader", "S3RangeReader"]

# The shortest range, but for the last.
SHORT_RANGE = 4 * MiB
_RANGE_NOT_SATISFIABLE = 416
# Bytes received before checking whether the range was cut short: never beyond the part that was given up.
_AT_ONCE = SHORT_RANGE


class RangeReader(Protocol):
    """Opens ranges of one object: through S3's interface, or by a presigned URL."""

    @property
    def request(self) -> RequestInfo:
        """Names the request, for messages."""

    @property
    def config(self) -> TransferConfig:
        """Limits."""

    @property
    def slots(self) -> Slots:
        """Limits the number of ranges in progress, and their rate."""

    def attempts(self) -> Attempts:
        """Return the attempts for one range."""

    async def open(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send a GET, with ``Range`` and ``If-Match`` as given.

        Returns
        -------
        response : `aiohttp.ClientResponse`
            With its headers read, and nothing of its body.

        Raises
        ------
        botocore.exceptions.ClientError
            If the server responds with an error.
        """


class S3RangeReader:
    """Opens ranges of an object through S3's interface."""

    def __init__(self, client: BucketClient, key: str) -> None:
        self._client = client
        self._key = key
        self.request = client.info("get_object", key)
        self.config = client.config
        self.slots = client.slots

    def attempts(self) -> Attempts:
        return self._client.attempts("get_object", self._key)

    async def open(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        return await self._client.data.get(self._client.bucket, self._key, headers)


class PinnedObject:
    """One version of an object, known once the first response has arrived.

    Every range is of this version: later requests are pinned by its ETag.

    Attributes
    ----------
    size : `int`
        Its bytes; 0 until ``known`` is set.
    etag : `str`
        With its quotes.
    digest : `bool`
        Whether the ETag may be a digest of the bytes.
    known : `asyncio.Event`
        Set when ``size`` and ``etag`` are known.
    whole : `bool`
        Whether it came in one piece, with no ranges to follow.
    on_bytes : callable
        Called with the number of bytes whenever some arrived.
    """

    def __init__(
        self, on_bytes: Callable[[int], None] = lambda _: None, *, size: int | None = None, etag: str = ""
    ) -> None:
        self.size = size or 0
        self.etag = etag
        self.digest = True
        self.known = asyncio.Event()
        if size is not None:
            self.known.set()
        self.whole = False
        self.on_bytes = on_bytes


class Fetch:
    """One range that is being downloaded, in as many attempts as it takes.

    Received bytes are kept: a request that breaks off is resumed where it
    stopped.

    Parameters
    ----------
    pinned, reader
        What is downloaded, and how.
    start, stop : `int`
        The bytes, as far as they exist.
    open_writer : callable
        Called with start and stop when the size is known; returns the writer.
    """

    def __init__(
        self,
        pinned: PinnedObject,
        reader: RangeReader,
        start: int,
        stop: int,
        open_writer: OpenWriter,
    ) -> None:
        self._object = pinned
        self._reader = reader
        self._start = self._position = start
        self._stop: int | None = stop
        self._open_writer = open_writer
        self._writer: Writer | None = None
        self._without_range = False
        self._skip = 0
        self._began = asyncio.get_running_loop().time()
        self._timeout: StallTimeout

    async def run(self) -> None:
        """Fetch the range."""
        async for attempt in self._reader.attempts():
            async with attempt as timeout:
                await self._attempt(timeout)

    def seconds_left(self) -> float:
        """Estimated seconds for the rest, at the rate so far."""
        done = self._position - self._start
        if self._stop is None or not done:
            return 0.0
        return (self._stop - self._position) / done * (asyncio.get_running_loop().time() - self._began)

    def give_up_half(self) -> tuple[int, int] | None:
        """Leave the second half of the rest to another request; return its bounds."""
        if self._stop is None or self._without_range or self._stop - self._position < 2 * SHORT_RANGE:
            return None
        stop, self._stop = self._stop, (self._position + self._stop) // 2
        return self._stop, stop

    async def _attempt(self, timeout: StallTimeout) -> None:  # noqa: ASYNC109 - entered by the caller
        self._timeout = timeout
        response = await self._open()
        self._reader.slots.took(timeout.idle)
        if response is None:
            return
        headers = parse_range_headers(response.status, response.headers)
        body = ResponseBody(response, headers.length, self._moved)
        try:
            self._learn(response, headers)
            self._writer = self._writer or self._open_writer(self._position, self._stop)
            await self._receive(body, self._writer)
        finally:
            body.close()

    async def _open(self) -> aiohttp.ClientResponse | None:
        """Request the missing bytes; `None` means that the object is empty."""
        asked = {"If-Match": self._object.etag} if self._object.etag else {}
        if not self._without_range:
            asked["Range"] = f"bytes={self._position}-{(self._stop or 0) - 1}"
        try:
            return await self._reader.open(asked)
        except ClientError as error:
            metadata = error.response.get("ResponseMetadata", {})
            status = metadata.get("HTTPStatusCode")
            if status != _RANGE_NOT_SATISFIABLE or self._object.etag:
                raise
            if parse_range_headers(status, CIMultiDict(metadata.get("HTTPHeaders", {}))).empty:
                self._open_writer(0, 0)
                self._object.known.set()
                return None
            # It may be empty, or the server may be wrong: a request without a range will tell.
            self._without_range = True
            what = "the server says that the range is beyond the end, and not that the object is empty"
            raise bad_response(self._reader.request, what) from error

    def _learn(self, response: aiohttp.ClientResponse, headers: RangeHeaders) -> None:
        """Check that the response is the missing range, of the known version."""
        pinned, given, request = self._object, headers.given, self._reader.request
        if not headers.etag:
            hint = "Ranges are pinned to the object's ETag: use a service, or a proxy, that sends it."
            # A web page (of a captive portal) may be gone the next time; a server that sends ranges will not change.
            transient = response.status != 206  # noqa: PLR2004
            raise bad_response(request, "the server's response has no ETag", hint, transient=transient)
        resized = given is not None and pinned.known.is_set() and given.total != pinned.size
        if pinned.etag and (headers.etag != pinned.etag or resized):
            raise _changed(request, response)
        # A body that ends with the connection, as in HTTP/1.0, may be cut short without anyone noticing.
        marked = "Transfer-Encoding" in response.headers
        endless = given is None and headers.length is None and marked and response.status == 200  # noqa: PLR2004
        whole = self._without_range and given is not None and given[:2] == (0, given.total)
        if self._start == 0 and (endless or whole):
            # The whole object comes, from its beginning: bytes that have been received are skipped.
            self._without_range, self._skip = True, self._position
            if not pinned.known.is_set():
                pinned.whole, self._stop = True, given.total if given else None
        else:
            self._check(response, headers)
        pinned.etag, pinned.digest = headers.etag, headers.digest
        if given is not None and not pinned.known.is_set():
            pinned.size = given.total
            pinned.known.set()

    def _check(self, response: aiohttp.ClientResponse, headers: RangeHeaders) -> None:
        given, total = headers.given, self._object.size
        if given is not None and not self._object.known.is_set():
            total, self._stop = given.total, min(self._stop or 0, given.total)
        if given != ByteRange(self._position, self._stop or 0, total):
            has = response.headers.get("Content-Range") or "no Content-Range"
            has = has if headers.length is None else f"{has} and {headers.length} bytes"
            what = f"bytes {self._position} to {self._stop} were requested, it has {has} (status {response.status})"
            raise bad_response(self._reader.request, f"the response does not match the request: {what}")

    async def _receive(self, body: ResponseBody, writer: Writer) -> None:
        rate = self._reader.slots.rate
        while self._skip:
            with memoryview(bytearray(min(self._skip, 256 * 1024))) as scratch:
                if not await body.readinto(scratch):
                    raise bad_response(self._reader.request, "a repeated response was shorter than the first")
        while self._stop is None or self._position < self._stop:
            # The end may have been given to another request in the meantime.
            most = rate.chunk or _AT_ONCE
            most = most if self._stop is None else min(most, self._stop - self._position)
            with writer.get_buffer(self._position)[:most] as view:
                count = await body.readinto(view)
            with self._timeout.suspended():
                await writer.buffer_updated(self._position)
                await rate.take(count)
            if not count:
                break
        if self._stop is not None and self._position < self._stop:
            raise bad_response(self._reader.request, "the body ended before the range that its headers announce")
        with self._timeout.suspended():
            await writer.finish(self._position)
        if self._stop is None:
            self._object.size = self._stop = self._position
            self._object.known.set()

    def _moved(self, count: int) -> None:
        self._timeout.made_progress(count, keep=not self._skip)
        if self._skip:
            self._skip -= count
            return
        self._position += count
        self._reader.slots.down.moved(count)
        self._object.on_bytes(count)


def _changed(request: RequestInfo, response: aiohttp.ClientResponse) -> ServiceError:
    parsed: dict[str, Any] = {
        "Error": {"Code": "PreconditionFailed", "Message": "the ETag or the size has changed"},
        "ResponseMetadata": {"HTTPStatusCode": response.status, "HTTPHeaders": dict(response.headers)},
    }
    return service_error(ClientError(parsed, "GetObject"), request)
