"""The download engine: ranges of one version of an object, in parallel."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError
from multidict import CIMultiDict

from lsst_lfa.errors import LfaError, ObjectChangedError

from .concurrency import run_in_thread, task_group
from .etag import check_etag
from .plan import ByteRange, ranges
from .response_body import ResponseBody
from .responses import bad_response, parse_range_headers
from .sinks import ChunkSink

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    import aiohttp

    from .attempts import Attempts, BucketClient
    from .config import TransferConfig
    from .failures import RequestInfo
    from .progress import Progress
    from .responses import RangeHeaders
    from .sinks import FileSink, MemorySink, Sink, Writer
    from .timeouts import StallTimeout

__all__ = ["PinnedObject", "RangeReader", "S3RangeReader", "download", "open_sink", "stream", "verify"]

_RANGE_NOT_SATISFIABLE = 416


class RangeReader(Protocol):
    """Opens ranges of one object: through S3's interface, or by a presigned URL."""

    @property
    def request(self) -> RequestInfo:
        """Names the request, for messages."""

    @property
    def config(self) -> TransferConfig:
        """Limits."""

    def attempts(self) -> Attempts:
        """Return the attempts for one range."""

    async def open(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send a GET, with ``Range`` and ``If-Match`` as given.

        Returns
        -------
        response : `aiohttp.ClientResponse`
            With its head read, and nothing of its body.

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

    def attempts(self) -> Attempts:
        return self._client.attempts("get_object", self._key)

    async def open(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        params = {name.replace("-", ""): value for name, value in headers.items()}
        response = await self._client.client.get_object(Bucket=self._client.bucket, Key=self._key, **params)
        body = response["Body"]
        # aiobotocore 3.7 has a proxy of the response that our HTTP session gave it, later ones hold it.
        opened: aiohttp.ClientResponse = getattr(body, "raw_stream", body)
        return opened


class PinnedObject:
    """One version of an object, known from the first response on.

    Every range is of this version: later requests are pinned by its ETag.

    Attributes
    ----------
    size : `int`
        Its bytes; 0 until ``known`` is set.
    etag : `str`
        As the server wrote it, with its quotes.
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

    async def fetch(
        self, reader: RangeReader, start: int, stop: int, open_writer: Callable[[int, int | None], Writer]
    ) -> None:
        """Fetch bytes ``start`` to ``stop``, or to the object's end.

        What arrived is kept: a request that breaks off is resumed where it
        stopped. ``open_writer(start, stop)`` is called when the size is known.
        """
        work = _Fetch(self, reader, start, stop, open_writer)
        async for attempt in reader.attempts():
            async with attempt as timeout:
                await work.attempt(timeout)


class _Fetch:
    """One range on its way down, through as many attempts as it takes."""

    def __init__(
        self,
        pinned: PinnedObject,
        reader: RangeReader,
        start: int,
        stop: int,
        open_writer: Callable[[int, int | None], Writer],
    ) -> None:
        self._object = pinned
        self._reader = reader
        self._start = self._position = start
        self._stop: int | None = stop
        self._open_writer = open_writer
        self._writer: Writer | None = None
        self._without_range = False
        self._skip = 0
        self._timeout: StallTimeout

    async def attempt(self, timeout: StallTimeout) -> None:  # noqa: ASYNC109 - entered by the caller
        self._timeout = timeout
        response = await self._open()
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
        """Ask for what is missing; `None` says that the object is empty."""
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
            # It may be empty, or the server wrong: what comes without a range will prove it.
            self._without_range = True
            what = "the server says that the range is beyond the end, and not that the object is empty"
            raise bad_response(self._reader.request, what) from error

    def _learn(self, response: aiohttp.ClientResponse, headers: RangeHeaders) -> None:
        """Check that the response is the range that is missing, of the version that is known."""
        pinned, given, request = self._object, headers.given, self._reader.request
        if not headers.etag:
            hint = "Ranges are pinned to the object's ETag: use a service, or a proxy, that sends it."
            # A web page, say of a captive portal, may give way to the object; what serves ranges will not change.
            transient = response.status != 206  # noqa: PLR2004
            raise bad_response(request, "the server's response has no ETag", hint, transient=transient)
        resized = given is not None and pinned.known.is_set() and given.total != pinned.size
        if pinned.etag and (headers.etag != pinned.etag or resized):
            raise _changed(request, response)
        endless = given is None and headers.length is None and response.status == 200  # noqa: PLR2004
        if self._start == 0 and (endless or (self._without_range and given and given.stop == given.total)):
            # All of it comes, from its begin: what is here already is passed over.
            self._without_range, self._skip = True, self._position
            if not pinned.known.is_set():
                pinned.whole, self._stop = True, given.total if given else None
        else:
            self._check(response, given)
        pinned.etag, pinned.digest = headers.etag, headers.digest
        if given is not None and not pinned.known.is_set():
            pinned.size = given.total
            pinned.known.set()

    def _check(self, response: aiohttp.ClientResponse, given: ByteRange | None) -> None:
        total = self._object.size
        if given is not None and not self._object.known.is_set():
            total, self._stop = given.total, min(self._stop or 0, given.total)
        if given != ByteRange(self._position, self._stop or 0, total):
            has = response.headers.get("Content-Range") or "no Content-Range"
            what = f"bytes {self._position} to {self._stop} were asked for, it has {has} (status {response.status})"
            raise bad_response(self._reader.request, f"the response is not the one asked for: {what}")

    async def _receive(self, body: ResponseBody, writer: Writer) -> None:
        while self._skip:
            with memoryview(bytearray(min(self._skip, 256 * 1024))) as scratch:
                if not await body.readinto(scratch):
                    raise bad_response(self._reader.request, "the server sent less than before")
        while self._stop is None or self._position < self._stop:
            with writer.get_buffer(self._position) as view:
                count = await body.readinto(view)
            with self._timeout.suspended():
                await writer.buffer_updated(self._position)
            if not count:
                break
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
        self._object.on_bytes(count)


def _changed(request: RequestInfo, response: aiohttp.ClientResponse) -> ObjectChangedError:
    parsed: dict[str, Any] = {
        "Error": {"Code": "PreconditionFailed"},
        "ResponseMetadata": {"HTTPStatusCode": response.status, "HTTPHeaders": dict(response.headers)},
    }
    message = f"{request} failed: the object was replaced in the meantime. Start again."
    return ObjectChangedError(message, parsed, "GetObject")


async def download(reader: RangeReader, sink: Sink, progress: Progress) -> PinnedObject:
    """Fetch an object into ``sink``.

    The first range tells the size; the others follow in parallel with it.

    Returns
    -------
    pinned : `PinnedObject`
        What was fetched.
    """
    pinned = PinnedObject(progress.advance)
    await progress.follow(_fetch_all(reader, pinned, sink))
    await progress.finish()
    return pinned


async def verify(reader: RangeReader, pinned: PinnedObject, sink: MemorySink | FileSink) -> None:
    """Compare what was downloaded with the object's ETag, if the configuration says so.

    Raises
    ------
    IntegrityError
        If they differ.
    UnverifiableError
        If the ETag is no digest.
    """
    if reader.config.verify_etag and pinned.size:
        etag = pinned.etag if pinned.digest else ""
        what = str(reader.request._replace(operation="download"))
        await run_in_thread(check_etag, what, etag, pinned.size, reader.config.part_size, sink.read)


def open_sink(reader: RangeReader, sink: Sink, size: int | None) -> None:
    """Make room for ``size`` bytes, or say that there is none."""
    try:
        sink.open(size)
    except MemoryError:
        what = f"{size} bytes do not fit in this process's memory"
        raise reader.request.failed(LfaError, what, "Use download_file or stream.", transient=False) from None


async def _fetch_all(reader: RangeReader, pinned: PinnedObject, sink: Sink) -> None:
    config = reader.config
    slots = asyncio.Semaphore(config.max_concurrency)

    def open_first(start: int, stop: int | None) -> Writer:
        open_sink(reader, sink, None if stop is None else pinned.size)
        return sink.writer(start, stop)

    async def fetch(start: int, stop: int, open_writer: Callable[[int, int | None], Writer]) -> None:
        try:
            await pinned.fetch(reader, start, stop, open_writer)
        finally:
            slots.release()

    async with task_group() as group:
        await slots.acquire()
        first = min(config.range_size, config.part_size)
        group.create_task(fetch(0, first, open_first))
        await pinned.known.wait()
        size = first if pinned.whole else pinned.size
        for start, stop in ranges(first, size, config.range_size, config.max_concurrency):
            await slots.acquire()
            group.create_task(fetch(start, stop, sink.writer))
            await asyncio.sleep(0)  # to make a request takes milliseconds: one in each turn of the loop


async def stream(
    borrow: Callable[[], AbstractAsyncContextManager[BucketClient]], key: str, config: TransferConfig
) -> AsyncGenerator[bytes, None]:
    """Yield an object's bytes in order, ``max_concurrency`` ranges ahead of the reader.

    Each range borrows the client for itself: nothing is held, and no time
    limit runs, while the reader is at work on what it got.
    """
    pinned = PinnedObject()

    async def fetch(start: int, stop: int) -> deque[bytes]:
        sink = ChunkSink()
        async with borrow() as client:
            await pinned.fetch(S3RangeReader(client, key), start, stop, sink.writer)
        return sink.chunks

    # Owned here: whatever ends the generator, they are cancelled and awaited.
    step = min(config.range_size, config.part_size)
    tasks = deque([asyncio.create_task(fetch(0, step))])
    try:
        await asyncio.wait(tasks)
        rest = ranges(step, step if pinned.whole else pinned.size, step, 1)
        while tasks:
            while len(tasks) <= config.max_concurrency and (following := next(rest, None)) is not None:
                tasks.append(asyncio.create_task(fetch(*following)))
            await asyncio.wait({tasks[0]})
            chunks = tasks.popleft().result()
            while chunks:
                yield chunks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
