"""The download engine: ranges of one version of an object, in parallel."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lsst_lfa.errors import ObjectChangedError, ProtocolError

from .plan import ByteRange, parse_content_range, ranges
from .receive import Incoming
from .sinks import Pieces
from .tasks import task_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from lsst_lfa.config import TransferConfig

    from .progress import Progress
    from .requests import Requests
    from .retry import Pace
    from .sinks import Sink, Writer

__all__ = ["Version", "download", "stream"]

_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


class Version:
    """One version of an object, known from the first answer on.

    Every range is of this version: later requests are pinned by its ETag.

    Attributes
    ----------
    key : `str`
        The object's key.
    size : `int`
        Its bytes; 0 until ``known`` is set.
    etag : `str`
        As the server wrote it, with its quotes.
    known : `asyncio.Event`
        Set when ``size`` and ``etag`` are known.
    """

    def __init__(self, key: str, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self.key = key
        self.size = 0
        self.etag = ""
        self.known = asyncio.Event()
        self._on_bytes = on_bytes

    async def fetch(self, requests: Requests, start: int, stop: int, open_writer: Callable[[int, int], Writer]) -> None:
        """Fetch bytes ``start`` to ``stop``, or to the object's end.

        What arrived is kept: a request that breaks off is taken up where it
        stopped. ``open_writer(start, stop)`` is called when the size is known.
        """
        position = start
        writer: Writer | None = None
        pace: Pace

        def moved(count: int) -> None:
            nonlocal position
            position += count
            pace.moved(count, keep=True)
            self._on_bytes(count)

        async def attempt(current: Pace) -> None:
            nonlocal stop, writer, pace
            pace = current
            answer = await self._get(requests, position, stop)
            if answer is None:
                stop = position
                return
            body = Incoming(answer["Body"].raw_stream, answer["ContentLength"], moved)
            try:
                stop = self._learn(requests, answer, position, stop)
                writer = writer or open_writer(start, stop)
                while position < stop:
                    with writer.room(position) as room:
                        await body.fill(room)
                    with pace.suspended():
                        await writer.filled(position)
            finally:
                body.close()

        await requests.run("get_object", self.key, attempt)

    async def _get(self, requests: Requests, start: int, stop: int) -> Any:
        """Ask for a range; `None` says that the object is empty."""
        pinned = {"IfMatch": self.etag} if self.etag else {}
        try:
            return await requests.client.get_object(
                Bucket=requests.bucket, Key=self.key, Range=f"bytes={start}-{stop - 1}", **pinned
            )
        except ClientError as error:
            if start == 0 and error.response["ResponseMetadata"]["HTTPStatusCode"] == _RANGE_NOT_SATISFIABLE:
                self.known.set()
                return None
            raise

    def _learn(self, requests: Requests, answer: Any, start: int, stop: int) -> int:
        """Check that the answer is the range we want; return where it ends."""
        etag = str(requests.proven("get_object", self.key, answer)["ETag"])
        length = int(answer["ContentLength"])
        if answer["ResponseMetadata"]["HTTPStatusCode"] == _PARTIAL_CONTENT:
            given = parse_content_range(answer.get("ContentRange"))
        else:
            given = ByteRange(0, length, length)  # Range was ignored: fine for a small object
        if not self.known.is_set():
            if given is not None:
                self.size, self.etag = given.total, etag
                stop = min(stop, given.total)
        elif etag != self.etag or (given is not None and given.total != self.size):
            raise ObjectChangedError(
                _broken(requests, self.key, "the object was replaced in the meantime; start again"),
                {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": answer["ResponseMetadata"]},
                "GetObject",
            )
        if given != ByteRange(start, stop, self.size) or length != stop - start:
            what = f"bytes {start} to {stop} were asked for, it has {answer.get('ContentRange') or 'no Content-Range'}"
            raise ProtocolError(_broken(requests, self.key, what))
        self.known.set()
        return stop


def _broken(requests: Requests, key: str, what: str) -> str:
    return f"{requests.request('get_object', key)} failed: the answer is not the one asked for: {what}"


async def download(requests: Requests, key: str, sink: Sink, progress: Progress) -> Version:
    """Fetch an object into ``sink``.

    The first range tells the size; the others follow in parallel with it.

    Returns
    -------
    version : `Version`
        What was fetched.
    """
    version = Version(key, progress.advance)
    await progress.follow(_fetch_all(requests, version, sink))
    await progress.finish()
    return version


async def _fetch_all(requests: Requests, version: Version, sink: Sink) -> None:
    config = requests.config
    free = asyncio.Semaphore(config.max_concurrency)

    def open_sink(start: int, stop: int) -> Writer:
        sink.open(version.size)
        return sink.writer(start, stop)

    async def fetch(start: int, stop: int, open_writer: Callable[[int, int], Writer]) -> None:
        try:
            await version.fetch(requests, start, stop, open_writer)
        finally:
            free.release()

    async with task_group() as group:
        await free.acquire()
        first = min(config.range_size, config.part_size)
        group.create_task(fetch(0, first, open_sink))
        await version.known.wait()
        for start, stop in ranges(first, version.size, config.range_size, config.max_concurrency):
            await free.acquire()
            group.create_task(fetch(start, stop, sink.writer))
            await asyncio.sleep(0)  # to make a request takes milliseconds: one in each turn of the loop


async def stream(
    borrow: Callable[[], AbstractAsyncContextManager[Requests]], key: str, config: TransferConfig
) -> AsyncGenerator[bytes, None]:
    """Yield an object's bytes in order, ``max_concurrency`` ranges ahead of the reader.

    Each range borrows the client for itself: nothing is held, and no time
    limit runs, while the reader is at work on what it got.
    """
    version = Version(key)

    async def fetch(start: int, stop: int) -> deque[bytes]:
        pieces = Pieces()
        async with borrow() as requests:
            await version.fetch(requests, start, stop, pieces.writer)
        return pieces.items

    # Owned here: whatever ends the generator, they are cancelled and awaited.
    step = min(config.range_size, config.part_size)
    tasks = deque([asyncio.create_task(fetch(0, step))])
    try:
        await asyncio.wait(tasks)
        rest = ranges(step, version.size, step, 1)
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
