"""Parts of an object: ranges of one version, a seekable reader, a stream that closes by itself."""

from __future__ import annotations

import asyncio
import operator
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from lsst_lfa._public import public

from .concurrency import task_group
from .download import RangesUnderWay, open_sink
from .operations import head_response
from .ranges import PinnedObject, S3RangeReader
from .responses import object_info, require_field, strong_etag
from .sinks import MemorySink

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .attempts import BucketClient
    from .progress import Progress
    from .sinks import Sink, Writer

    Borrow = Callable[[], AbstractAsyncContextManager[BucketClient]]

__all__ = ["ByteStream", "ObjectReader", "check_range", "download_range", "open_reader"]

# Prefetched at first; doubled each time that sequential reading continues.
_MIN_WINDOW = 64 * 1024
_MAX_WINDOW = 4 * 1024 * 1024


def check_range(start: int, stop: int | None) -> tuple[int, int | None]:
    """Return ``start`` and ``stop`` as integers, if they form a range of bytes ``start`` to ``stop - 1``.

    Raises
    ------
    TypeError
        If one is not an integer.
    ValueError
        If they do not.
    """
    start, stop = operator.index(start), None if stop is None else operator.index(stop)
    if start < 0 or (stop is not None and stop < start):
        msg = f"start={start} and stop={stop} do not form a range of bytes: it must be 0 <= start <= stop"
        raise ValueError(msg)
    return start, stop


async def pin(client: BucketClient, key: str, on_bytes: Callable[[int], None] = lambda _: None) -> PinnedObject:
    """Request an object's size and version, to which all of its ranges are pinned."""
    response = await head_response(client, key)
    request = client.info("head_object", key)
    size = object_info(request, key, response).size
    return PinnedObject(on_bytes, size=size, etag=strong_etag(require_field(request, response, "ETag", str)))


async def download_range(
    client: BucketClient, key: str, sink: Sink, progress: Progress, *, start: int, stop: int | None
) -> None:
    """Fetch bytes ``start`` to ``stop``, or to the end, as far as they exist, into ``sink``."""
    await progress.follow(_download_range(client, key, sink, progress, start, stop))
    await progress.finish()


async def _download_range(  # noqa: PLR0917 - as above
    client: BucketClient, key: str, sink: Sink, progress: Progress, start: int, stop: int | None
) -> None:
    pinned = await pin(client, key, progress.advance)
    stop = pinned.size if stop is None else min(stop, pinned.size)
    await _fetch_ranges(S3RangeReader(client, key), pinned, sink, [(min(start, stop), stop)])


async def _fetch_ranges(
    reader: S3RangeReader, pinned: PinnedObject, sink: Sink, spans: Sequence[tuple[int, int]], room: int = 0
) -> None:
    """Fetch ranges of a pinned object in parallel, and place them one after another, after ``room`` bytes."""
    open_sink(reader, sink, room + sum(stop - start for start, stop in spans))
    async with task_group() as group:
        ranges = RangesUnderWay(reader, pinned, group)
        for start, stop in spans:
            await ranges.fetch(start, stop, _Shifted(sink, start - room).writer)
            room += stop - start


class _Shifted:
    """A sink that places bytes ``shift`` bytes before their position in the object."""

    def __init__(self, sink: Sink, shift: int) -> None:
        self._sink = sink
        self._shift = shift

    def writer(self, start: int, stop: int | None) -> Writer:
        shift = self._shift
        return _ShiftedWriter(self._sink.writer(start - shift, None if stop is None else stop - shift), shift)


class _ShiftedWriter:
    def __init__(self, writer: Writer, shift: int) -> None:
        self._writer = writer
        self._shift = shift

    def get_buffer(self, position: int) -> memoryview:
        return self._writer.get_buffer(position - self._shift)

    async def buffer_updated(self, position: int) -> None:
        await self._writer.buffer_updated(position - self._shift)

    async def finish(self, position: int) -> None:
        await self._writer.finish(position - self._shift)


@public
class ObjectReader:
    """Reads one version of an object like a file; see `AsyncS3Bucket.open`.

    Sequential reads are prefetched, one request at a time, 64 KiB at first and
    up to 4 MiB later. So at most 8 MiB are buffered, in addition to what
    `read` returns. Longer reads are fetched in parallel, and not buffered.

    Attributes
    ----------
    key : `str`
        The object's key.
    size : `int`
        Its size in bytes.
    etag : `str`
        Its version, without quotes.
    """

    def __init__(self, borrow: Borrow, key: str, pinned: PinnedObject) -> None:
        self.key = key
        self.size = pinned.size
        self.etag = pinned.etag.strip('"')
        self._borrow = borrow
        self._pinned = pinned
        self._position = 0
        self._closed = False
        self._lock = asyncio.Lock()
        self._start, self._buffer = -1, b""
        self._window = _MIN_WINDOW
        self._ahead: asyncio.Task[bytes] | None = None

    async def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, or all remaining ones if it is negative or `None`; ``b""`` at the end.

        Raises
        ------
        ObjectChangedError
            If the object has been replaced since it was opened.
        ValueError
            If the reader is closed.
        LfaError
            If the request failed.
        """
        async with self._lock:
            self._check_open()
            start = self._position
            stop = self.size if size is None or size < 0 else min(start + operator.index(size), self.size)
            data = await (self.read_range(start, stop) if stop - start > _MAX_WINDOW else self._read(start, stop))
            self._position = max(start, stop)
            return data

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to ``offset`` bytes from the start, the position or the end, as `io.IOBase.seek` does; no I/O."""
        self._check_open()
        offset = operator.index(offset)
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in base:
            msg = f"whence={whence!r} must be 0, 1 or 2"
            raise ValueError(msg)
        if base[whence] + offset < 0:
            msg = f"cannot seek to {base[whence] + offset}, before the beginning"
            raise ValueError(msg)
        self._position = base[whence] + offset
        return self._position

    async def tell(self) -> int:
        """Return the position; no I/O."""
        self._check_open()
        return self._position

    async def read_range(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop - 1``, as far as they exist.

        The position does not change, and nothing is prefetched. Several tasks
        may do so at the same time.
        """
        start, _ = check_range(start, stop)
        stop = min(operator.index(stop), self.size)
        return (await self.read_ranges([(min(start, stop), stop)])).getvalue()

    async def read_ranges(self, spans: Sequence[tuple[int, int]], prefix: bytes = b"") -> io.BytesIO:
        """Return ``prefix`` followed by ranges of the object, one after another."""
        self._check_open()
        sink = MemorySink()
        try:
            async with self._borrow() as client:
                reader = S3RangeReader(client, self.key)
                await _fetch_ranges(reader, self._pinned, sink, spans, len(prefix))
            with sink.read(0, len(prefix)) as view:
                view[:] = prefix
        finally:
            sink.close()
        return sink.file

    async def aclose(self) -> None:
        """Close the reader. Idempotent."""
        self._closed = True
        self._buffer = b""
        await self._stop_reading_ahead()

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the reader of {self.key!r} is closed"
            raise ValueError(msg)

    async def _read(self, start: int, stop: int) -> bytes:
        pieces = []
        while start < stop:
            if not self._start <= start < self._start + len(self._buffer):
                await self._fill(start, stop)
            piece = self._buffer[start - self._start : stop - self._start]
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    async def _fill(self, start: int, stop: int) -> None:
        """Get byte ``start`` into the buffer, and perhaps request the bytes that follow."""
        in_order = start == self._start + len(self._buffer)
        if self._ahead is not None and in_order:
            await asyncio.wait({self._ahead})  # so that a cancellation ends the wait, but not the reading
            self._check_open()
            task, self._ahead = self._ahead, None
            self._buffer, self._start = task.result(), start
        else:
            await self._stop_reading_ahead()
            self._window = _MIN_WINDOW
            end = max(stop, start + self._window)
            self._buffer, self._start = await self.read_range(start, end), start
        end = self._start + len(self._buffer)
        if in_order and end < self.size:
            self._window = min(2 * self._window, _MAX_WINDOW)
            self._ahead = asyncio.create_task(self.read_range(end, end + self._window))

    async def _stop_reading_ahead(self) -> None:
        task, self._ahead = self._ahead, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def open_reader(
    borrow: Borrow, key: str, on_bytes: Callable[[int], None] = lambda _: None
) -> AsyncIterator[ObjectReader]:
    """Open a reader of the version that the object has now.

    Each request borrows the client for itself: nothing is held, and no time
    limit runs, while the reader's owner works on the data.
    """
    async with borrow() as client:
        pinned = await pin(client, key, on_bytes)
    reader = ObjectReader(borrow, key, pinned)
    try:
        yield reader
    finally:
        await reader.aclose()


@public
class ByteStream:
    """An object's bytes in order: an async iterator, and an async context manager that closes it.

    Use it with ``async with``: when the block ends, for whatever reason,
    nothing is left running. A plain ``async for`` is enough if it runs to the
    end; if it is abandoned early, it keeps prefetching until it is
    garbage-collected.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the stream. Idempotent."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
