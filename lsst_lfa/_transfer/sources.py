"""Sources of an upload: anything that yields bytes, read off the loop into exact parts."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
from collections.abc import AsyncIterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from lsst_lfa.errors import SourceChangedError

from .concurrency import OwnThread, finish_in_thread, in_thread
from .files import open_regular
from .memory import copied, flat_view, gather, is_buffer, new_memory, release, require_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from typing_extensions import Buffer

    from .memory import Part

__all__ = ["Source", "Uploadable", "open_source"]

# Seconds that closing a file, or restoring its position, may take before it is left to its thread.
_END_TIMEOUT = 2.0
# Files whose `readinto` is known to work as well as `read`; a user's own class may have only the latter.
_FILLING = frozenset({io.FileIO, io.BufferedReader, io.BufferedRandom})
_AIOFILES: tuple[type, ...] = ()
# aiofiles does not document these; without them its files are read with `read`, like any others.
with suppress(ImportError):
    from aiofiles.threadpool.binary import AsyncBufferedIOBase, AsyncFileIO

    _AIOFILES = (AsyncBufferedIOBase, AsyncFileIO)


class _SyncReader(Protocol):
    """The part of a binary file object that an upload needs."""

    def read(self, size: int, /) -> Buffer | None:
        """Return up to ``size`` bytes; none at the end."""


class _AsyncReader(Protocol):
    """The same with ``async def read``, as in aiofiles."""

    async def read(self, size: int, /) -> Buffer:
        """Return up to ``size`` bytes; none at the end."""


Uploadable: TypeAlias = "Buffer | os.PathLike[str] | _SyncReader | _AsyncReader | AsyncIterable[Buffer]"
"""What can be uploaded."""


class Source(Protocol):
    """Something to upload, from its current position to its end.

    An async context manager: if it ends with an error, the position is
    restored, so that the same object can be uploaded again.
    """

    size: int | None
    """Number of bytes to come; `None` if unknown."""
    in_memory: bool
    """Whether all of them are in memory already."""

    async def __aenter__(self) -> Self:
        """Prepare to read."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the position after an error; never close what the user opened."""

    async def read(self, size: int) -> Part:
        """Return exactly ``size`` bytes, or what is left before the end."""

    def recycle(self, part: Part) -> None:
        """Release a part that nobody reads any more; its memory may be used for another."""


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
        If it is none of these, such as a `str` or a file in text mode.
    """
    if isinstance(obj, str):
        msg = "cannot upload a str: encode it to bytes, or pass a pathlib.Path for a file of that name"
        raise TypeError(msg)
    if isinstance(obj, os.PathLike):
        return _PathSource(Path(obj))
    if type(obj) is io.BytesIO:
        return _BytesIOSource(obj)
    if is_buffer(obj):
        return _BufferSource(obj)
    if isinstance(obj, io.TextIOBase) or (hasattr(obj, "read") and hasattr(obj, "encoding")):
        msg = "cannot upload a file in text mode: open it in binary mode ('rb')"
        raise TypeError(msg)
    if callable(getattr(obj, "read", None)):
        return _FileSource(obj)
    if isinstance(obj, AsyncIterable):
        return _IteratorSource(obj)
    msg = (
        f"cannot upload a {type(obj).__name__}: pass bytes, a binary file object, a pathlib.Path "
        "or an async iterator of bytes (for an HDUList, use upload_fits)"
    )
    raise TypeError(msg)


class _BufferSource:
    """Bytes in memory, never copied, and never viewed for longer than the upload takes."""

    in_memory = True

    def __init__(self, obj: Any) -> None:
        self._obj = obj
        self._views: list[memoryview] = []
        self._check()

    def _check(self) -> None:
        with memoryview(self._obj) as view:
            require_bytes(view)
            if not view.c_contiguous:
                msg = "cannot upload a buffer that is not C-contiguous: make a copy of it first"
                raise TypeError(msg)

    async def __aenter__(self) -> Self:
        self._open(self._obj, 0)
        return self

    def _open(self, obj: Any, position: int) -> None:
        self._all, self._position = flat_view(obj), position
        self._views.append(self._all)
        self.size: int | None = max(self._all.nbytes - position, 0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not left to the garbage collector: an error's traceback keeps its references.
        for view in reversed(self._views):
            view.release()
        self._obj = None

    async def read(self, size: int) -> Part:
        piece = self._all[self._position : self._position + size]
        self._position += piece.nbytes
        self._views.append(piece)
        return [piece] if piece.nbytes else []

    def recycle(self, part: Part) -> None:
        part.clear()


class _BytesIOSource(_BufferSource):
    """A BytesIO's bytes, shared with it: `getvalue` is a snapshot and copies nothing."""

    def _check(self) -> None:
        """Any BytesIO will do."""

    async def __aenter__(self) -> Self:
        self._open(self._obj.getvalue(), self._obj.tell())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._obj.closed:
            self._obj.seek(0, io.SEEK_END)
        await super().__aexit__(kind, error, trace)


def _sync(file: Any) -> Any:
    """Return the sync file inside one of aiofiles, if it is accessible.

    The async one reads in the event loop's default executor, which may be full
    of jobs that wait for us.
    """
    inner = getattr(file, "_file", None) if isinstance(file, _AIOFILES) else None
    return inner if type(inner) in _FILLING else file


class _FileSource:
    """A file object, sync or async, that can seek or not.

    A sync one is read in its own thread, because a pipe may block for long,
    and nothing else must wait for it.
    """

    size: int | None = None
    in_memory = False

    def __init__(self, file: Any) -> None:
        self._file = _sync(file)
        self._fills = type(self._file) in _FILLING or isinstance(file, _AIOFILES)
        self._start: int | None = None
        self._thread = OwnThread("lsst_lfa-source")
        self._recycled: list[memoryview] = []

    async def _call(self, name: str, *args: Any) -> Any:
        method = getattr(self._file, name)
        if inspect.iscoroutinefunction(method):
            return await method(*args)
        result = await in_thread(method, *args, executor=self._thread)
        return await result if inspect.isawaitable(result) else result

    async def __aenter__(self) -> Self:
        try:
            await self._measure()
        except BaseException:
            self._thread.shutdown()
            raise
        return self

    async def _measure(self) -> None:
        if hasattr(self._file, "seekable") and not await self._call("seekable"):
            return
        if hasattr(self._file, "seek") and hasattr(self._file, "tell"):
            try:
                start = await self._call("tell")
                try:
                    end = await self._call("seek", 0, io.SEEK_END)
                    if end is None:  # not every seek returns the position
                        end = await self._call("tell")
                finally:  # also if it is cancelled here
                    await self._restore(start)
            except OSError:
                return  # a pipe that says too late that it cannot seek
            if isinstance(start, int) and isinstance(end, int):
                self._start, self.size = start, max(end - start, 0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self._start is not None:
                await self._restore(self._start)
        except Exception as failure:  # noqa: BLE001 - the file may be closed by now; the first error counts
            assert error is not None  # noqa: S101 - for the type checker
            error.add_note(f"the source's position could not be restored: {failure!r}")
        finally:
            self._end()

    def _end(self) -> None:
        self._thread.shutdown()
        release(self._recycled)

    async def _restore(self, start: int) -> None:
        """Go back to ``start``, without waiting for a file that hangs."""
        if inspect.iscoroutinefunction(self._file.seek):
            result = self._file.seek(start)
        else:
            result = await finish_in_thread(self._file.seek, start, executor=self._thread, limit=_END_TIMEOUT)
        if inspect.isawaitable(result):
            async with asyncio.timeout(_END_TIMEOUT):
                await result

    async def read(self, size: int) -> Part:
        return await self._fill(size) if self._fills else await gather(self._next, size)

    def recycle(self, part: Part) -> None:
        # Providing new memory takes the system longer than reading a file into it.
        if self._fills:
            self._recycled += part
        part.clear()

    def _memory(self, size: int) -> memoryview:
        while self._recycled:
            view = self._recycled.pop()
            if view.nbytes >= size:
                return view[:size]
        return new_memory(size)

    async def _fill(self, size: int) -> Part:
        view = self._memory(size)
        views, done = [view], 0
        try:
            while done < size and (count := await self._call("readinto", views[-1])) != 0:
                if count is None:
                    raise _nothing_yet()
                done += count
                views.append(view[done:])
        except BaseException:
            release(views)
            raise
        return [view[:done]] if done else []

    async def _next(self, size: int) -> memoryview:
        data = await self._call("read", size)
        if data is None:
            raise _nothing_yet()
        view = await copied(data)
        if view.nbytes > size:
            msg = f"the source's read({size}) gave {view.nbytes} bytes"
            raise SourceChangedError(msg)
        return view


def _nothing_yet() -> TypeError:
    return TypeError("the source has no bytes yet: it is in non-blocking mode, which cannot be uploaded from")


class _PathSource(_FileSource):
    """A file on the local disk, opened and closed by us."""

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        self._path = path
        self._opened: io.FileIO | None = None

    async def __aenter__(self) -> Self:
        try:
            self._file = await in_thread(self._open, executor=self._thread)
            self._fills = True
            await self._measure()
        except BaseException:
            await self._finish()
            raise
        return self

    def _open(self) -> io.FileIO:
        self._opened = open_regular(self._path)
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._finish()

    async def _finish(self) -> None:
        """Close the file in its thread, after the current job: the number of a closed file may soon be another's."""
        try:
            await finish_in_thread(self._close, executor=self._thread, limit=_END_TIMEOUT)
        finally:
            self._end()


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
        release([self._left])
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()

    async def read(self, size: int) -> Part:
        return await gather(self._next, size)

    def recycle(self, part: Part) -> None:
        part.clear()

    async def _next(self, size: int) -> memoryview:
        while not self._left.nbytes:
            try:
                self._left = await copied(await anext(self._iterator))
            except StopAsyncIteration:
                break
        piece, self._left = self._left[:size], self._left[size:]
        return piece
