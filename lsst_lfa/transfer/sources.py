"""What can be uploaded: anything that gives bytes, read off the loop into exact parts."""

from __future__ import annotations

import inspect
import io
import mmap
import os
from collections.abc import AsyncIterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedIOBase, AsyncFileIO

from lsst_lfa.errors import SourceChangedError

from .tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

__all__ = ["Source", "open_source"]

# Shorter pieces are joined: a part of many small views costs more than a copy.
_SMALL = 64 * 1024
# Files whose `readinto` is known to be as good as their `read`; a user's own kind may have but the latter.
_FILLING = frozenset({io.FileIO, io.BufferedReader, io.BufferedRandom})

Part = list[memoryview]


class Source(Protocol):
    """Something to upload, from its current position to its end.

    An async context manager: when it ends with an error, the position is what
    it was, so that the same object can be uploaded again.
    """

    size: int | None
    """Bytes to come; `None` if that is not known."""
    in_memory: bool
    """Whether all of them are in memory already."""

    async def __aenter__(self) -> Self:
        """Get ready to read."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the position after an error; never close what the user opened."""

    async def read(self, size: int) -> Part:
        """Return exactly ``size`` bytes, or what is left before the end."""


def open_source(obj: object) -> Source:
    """Find out how to read ``obj``. Does no I/O.

    Parameters
    ----------
    obj : bytes-like, `io.BytesIO`, `pathlib.Path`, file or async iterable
        Sync or async binary file objects, seekable or not; async iterables of
        bytes-like objects.

    Raises
    ------
    TypeError
        If it is none of these: a `str`, a file in text mode, ...
    """
    if isinstance(obj, str):
        msg = "cannot upload a str: encode it (bytes), or give a pathlib.Path for a file of that name"
        raise TypeError(msg)
    if isinstance(obj, os.PathLike):
        return _PathSource(Path(obj))
    if type(obj) is io.BytesIO:
        return _BytesIOSource(obj)
    if (view := _buffer(obj)) is not None:
        return _BufferSource(view)
    if isinstance(obj, io.TextIOBase) or (hasattr(obj, "read") and hasattr(obj, "encoding")):
        msg = "cannot upload a file in text mode: open it in binary mode ('rb')"
        raise TypeError(msg)
    if callable(getattr(obj, "read", None)):
        return _FileSource(obj)
    if isinstance(obj, AsyncIterable):
        return _IteratorSource(obj)
    msg = (
        f"cannot upload a {type(obj).__name__}: give bytes, a binary file object, a pathlib.Path "
        "or an async iterator of bytes (upload_fits for an HDUList)"
    )
    raise TypeError(msg)


def _buffer(obj: Any) -> memoryview | None:
    """Return a view of a bytes-like object, `None` of any other."""
    try:
        return memoryview(obj)
    except TypeError:
        return None


def _view(data: object) -> memoryview:
    """Return a flat view of bytes that a source gave."""
    view = _buffer(data)
    if view is None:
        msg = f"the source gave {type(data).__name__}, not bytes"
        raise TypeError(msg)
    return view.cast("B") if view.nbytes else memoryview(b"")


class _BufferSource:
    """Bytes in memory, never copied."""

    in_memory = True

    def __init__(self, view: memoryview) -> None:
        if not view.c_contiguous:
            msg = "cannot upload a buffer that is not C-contiguous: make a copy of it first"
            raise TypeError(msg)
        self._rest = _view(view)
        self.size: int | None = self._rest.nbytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def read(self, size: int) -> Part:
        piece, self._rest = self._rest[:size], self._rest[size:]
        return [piece] if piece.nbytes else []


class _BytesIOSource(_BufferSource):
    """A BytesIO's bytes, shared with it: `getvalue` is a snapshot and copies nothing."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(memoryview(file.getvalue())[file.tell() :])
        self._file = file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._file.closed:
            self._file.seek(0, io.SEEK_END)


class _PathSource:
    """A file of the local disk, opened and closed by us."""

    size: int | None = None
    in_memory = False

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        # Opening a FIFO would wait for a writer, in a thread that cannot be stopped.
        if not await in_thread(self._path.is_file):
            await in_thread(self._refuse)
        self._context = aiofiles.open(self._path, "rb", buffering=0)
        file = await self._context.__aenter__()
        self._file = _FileSource(file)
        await self._file.__aenter__()
        self.size = self._file.size
        return self

    def _refuse(self) -> None:
        self._path.stat()
        msg = f"cannot upload {self._path}: it is not a regular file"
        raise IsADirectoryError(msg) if self._path.is_dir() else ValueError(msg)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._context.__aexit__(kind, error, trace)

    async def read(self, size: int) -> Part:
        return await self._file.read(size)


class _FileSource:
    """A file object, sync or async, that can seek or not; sync ones are read in threads."""

    size: int | None = None
    in_memory = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self._fills = type(file) in _FILLING or isinstance(file, (AsyncBufferedIOBase, AsyncFileIO))
        self._start: int | None = None

    async def _call(self, name: str, *args: Any) -> Any:
        method = getattr(self._file, name)
        if inspect.iscoroutinefunction(method):
            return await method(*args)
        result = await in_thread(method, *args)
        return await result if inspect.isawaitable(result) else result

    async def __aenter__(self) -> Self:
        if hasattr(self._file, "seekable") and not await self._call("seekable"):
            return self
        if hasattr(self._file, "seek") and hasattr(self._file, "tell"):
            try:
                start = await self._call("tell")
                try:
                    end = await self._call("seek", 0, io.SEEK_END)
                finally:  # also if it is cancelled here
                    await self._call("seek", start)
            except OSError:
                return self  # a pipe that says too late that it cannot seek
            if isinstance(start, int) and isinstance(end, int):
                self._start, self.size = start, max(end - start, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._start is not None:
            await self._call("seek", self._start)

    async def _fill(self, size: int) -> Part:
        # Not malloc's memory: of that, each thread keeps what it once had.
        view = memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        done = 0
        while done < size and (count := await self._call("readinto", view[done:])) != 0:
            if count is None:
                msg = "the source has no bytes yet: it does not block, as a source must"
                raise TypeError(msg)
            done += count
        return [view[:done]] if done else []

    async def read(self, size: int) -> Part:
        if self._fills:
            return await self._fill(size)
        views: Part = []
        left = size
        while left:
            data = await self._call("read", left)
            view = _view(data)
            if not view.nbytes:
                break
            if view.nbytes > left:
                msg = f"the source's read({left}) gave {view.nbytes} bytes"
                raise SourceChangedError(msg)
            left -= view.nbytes
            views.append(view)
        return views


class _IteratorSource:
    """An async iterable of bytes-like objects of any size."""

    size: int | None = None
    in_memory = False

    def __init__(self, iterable: AsyncIterable[object]) -> None:
        self._iterable = iterable
        self._left = memoryview(b"")

    async def __aenter__(self) -> Self:
        self._iterator: AsyncIterator[object] = aiter(self._iterable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    async def _next(self) -> memoryview:
        if self._left.nbytes:
            piece, self._left = self._left, memoryview(b"")
            return piece
        async for data in self._iterator:
            view = _view(data)
            if view.nbytes:
                return view
        return memoryview(b"")

    async def read(self, size: int) -> Part:
        views: Part = []
        small = bytearray()
        while size and (view := await self._next()).nbytes:
            piece, self._left = view[:size], view[size:]
            size -= piece.nbytes
            if piece.nbytes >= _SMALL:
                if small:
                    views.append(memoryview(small))
                    small = bytearray()
                views.append(piece)
            else:
                small += piece
        if small:
            views.append(memoryview(small))
        return views
