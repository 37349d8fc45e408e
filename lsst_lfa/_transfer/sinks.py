"""Destinations of a download, which accept bytes out of order."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from .concurrency import task_group
from .files import AtomicFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

__all__ = ["ChunkSink", "FileSink", "MemorySink", "Sink", "Writer", "new_file"]

# Bytes gathered before a thread writes them; a thread for each chunk costs more than the write.
_GATHER = 768 * 1024
# What a stream's reader gets at once, and holds in addition to what is prefetched.
_CHUNK = 256 * 1024
# Bytes after which a file is flushed while more of it arrives: the disk works during the download, not after it.
_FLUSHED = 32 * 1024 * 1024


class Writer(Protocol):
    """Accepts one range, from its start to its end."""

    def get_buffer(self, position: int) -> memoryview:
        """Return the buffer for the bytes from ``position`` on, with room for at least one."""

    async def buffer_updated(self, position: int) -> None:
        """Note that the bytes before ``position`` are in the buffer."""

    async def finish(self, position: int) -> None:
        """Note that ``position`` is the end."""


class Sink(Protocol):
    """A destination."""

    def open(self, size: int | None) -> None:
        """Make room for ``size`` bytes, if that is known, and forget what was there before."""

    def writer(self, start: int, stop: int | None) -> Writer:
        """Return a writer of bytes ``start`` to ``stop``, or to the end if that is not known."""


class MemorySink:
    """An `io.BytesIO`, written in place.

    Attributes
    ----------
    file : `io.BytesIO`
        The data, after `close`.
    """

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self._view = memoryview(b"")

    def open(self, size: int | None) -> None:
        self.close()
        self.file, self._view = _new_bytesio(size or 0)

    def writer(self, start: int, stop: int | None) -> Writer:  # noqa: ARG002 - a part of the whole is as good as any
        if stop is None:
            self._view.release()
            return _AppendingWriter(self.file, self._appended)
        return _MemoryWriter(self._view, stop)

    def read(self, start: int, count: int) -> memoryview:
        """Return bytes of the data."""
        return self._view[start : start + count]

    def _appended(self) -> None:
        self.file.seek(0)
        self._view = self.file.getbuffer()

    def close(self) -> None:
        """Release the buffer: a BytesIO can be neither resized nor closed while it is viewed."""
        self._view.release()


def _new_bytesio(size: int) -> tuple[io.BytesIO, memoryview]:
    """Return a BytesIO of ``size`` bytes that are no memory yet, and the view to write them by.

    CPython gets ``bytes(size)`` zeroed from the system, page by page, when they
    are first written; a BytesIO that owns them alone is written in place. So
    nothing is zeroed, grown or copied on the event loop.
    """
    file = io.BytesIO(bytes(size))
    return file, file.getbuffer()


class _MemoryWriter:
    def __init__(self, view: memoryview, stop: int) -> None:
        self._view = view
        self._stop = stop

    def get_buffer(self, position: int) -> memoryview:
        return self._view[position : self._stop]

    async def buffer_updated(self, position: int) -> None:  # noqa: ARG002 - they are in their place already
        return None

    async def finish(self, position: int) -> None:  # noqa: ARG002 - as above
        return None


class _AppendingWriter:
    """Writes a body whose length is not known."""

    def __init__(self, file: io.BytesIO, on_end: Callable[[], None]) -> None:
        self._file = file
        self._on_end = on_end
        self._chunk = bytearray(_CHUNK)

    def get_buffer(self, position: int) -> memoryview:
        # The bytes that arrived before an attempt broke off are in the chunk, and not in the file yet.
        return memoryview(self._chunk)[position - self._file.tell() :]

    async def buffer_updated(self, position: int) -> None:
        with memoryview(self._chunk) as view:
            self._file.write(view[: position - self._file.tell()])

    async def finish(self, position: int) -> None:  # noqa: ARG002 - it is all there
        self._on_end()


class ChunkSink:
    """A range as chunks of ``bytes``, in order.

    Attributes
    ----------
    chunks : `collections.deque` of `bytes`
        The chunks that are complete.
    """

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self._start = self._stop = 0
        self._end: int | None = None

    def writer(self, start: int, stop: int | None) -> Writer:
        self._start = self._stop = start
        self._end = stop
        return self

    def get_buffer(self, position: int) -> memoryview:
        if position == self._stop:
            room = _CHUNK if self._end is None else min(_CHUNK, self._end - position)
            self._start, self._stop = position, position + room
            self._file = _new_bytesio(room)[0]
        return self._file.getbuffer()[position - self._start :]

    async def buffer_updated(self, position: int) -> None:
        if position == self._stop > self._start:
            self.chunks.append(self._file.getvalue())
            self._start = position

    async def finish(self, position: int) -> None:
        if position > self._start:
            self.chunks.append(self._file.getvalue()[: position - self._start])


class FileSink(AtomicFile):
    """A file on the local disk; see `AtomicFile`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._unflushed = 0
        self._flush_now = asyncio.Event()

    def open(self, size: int | None) -> None:
        """Do nothing: the file grows as it is written."""

    def writer(self, start: int, stop: int | None) -> Writer:
        return _FileWriter(self, start, stop)

    async def write(self, view: memoryview, position: int) -> None:
        await super().write(view, position)
        self._unflushed += len(view)
        if self._unflushed >= _FLUSHED:
            self._flush_now.set()

    async def keep_flushed(self) -> None:
        """Flush to disk again and again while the file is written, so that little is left for `commit`."""
        while True:
            await self._flush_now.wait()
            self._unflushed = 0
            self._flush_now.clear()
            await self.sync()


@asynccontextmanager
async def new_file(path: Path) -> AsyncIterator[FileSink]:
    """Open a file that appears at its path if the block succeeds, and of which otherwise nothing is left.

    Raises
    ------
    OSError
        If it cannot be written there.
    """
    sink = FileSink(path)
    try:
        await sink.create()
        async with task_group() as group:
            flushing = group.create_task(sink.keep_flushed())
            yield sink
            flushing.cancel()
        await sink.commit()
    finally:
        await sink.discard()


class _FileWriter:
    def __init__(self, file: AtomicFile, start: int, stop: int | None) -> None:
        self._file = file
        self._start = start
        self._stop = stop
        room = _GATHER if stop is None else min(_GATHER, stop - start)
        self._gathered = memoryview(bytearray(room))

    def get_buffer(self, position: int) -> memoryview:
        stop = None if self._stop is None else self._stop - self._start
        return self._gathered[position - self._start : stop]

    async def buffer_updated(self, position: int) -> None:
        if position - self._start == len(self._gathered):
            await self.finish(position)

    async def finish(self, position: int) -> None:
        if position > self._start:
            await self._file.write(self._gathered[: position - self._start], self._start)
            self._start = position
