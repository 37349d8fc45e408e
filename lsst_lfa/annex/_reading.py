"""Reads a source once, off the loop: for its size and MD5, into the spool's file, and for the upload."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lsst_lfa import _fits
from lsst_lfa._transfer.concurrency import OwnThread, in_thread, task_group, threads
from lsst_lfa._transfer.files import open_regular
from lsst_lfa._transfer.hashing import hash_views
from lsst_lfa._transfer.sources import open_source
from lsst_lfa.errors import SourceChangedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from typing_extensions import Buffer

    from lsst_lfa._spool import NotKeptError, Spool
    from lsst_lfa._transfer.files import AtomicFile
    from lsst_lfa._transfer.sources import Uploadable

__all__ = ["Digest", "Reading", "Sink", "hash_file", "open_reading"]

_BLOCK: Final = 4 * 1024 * 1024
"""Bytes that are read, hashed and written at once."""
_PIECE: Final = 1024 * 1024
"""Bytes that the upload gets at once."""


class Digest(NamedTuple):
    """Size in bytes, and MD5 in hexadecimal."""

    size: int
    md5: str


class Sink:
    """The spool's file while it is being filled; once it has failed, it accepts no more."""

    def __init__(self, spool: Spool, file: AtomicFile) -> None:
        self._spool = spool
        self._loop = asyncio.get_running_loop()
        self.file = file
        self.error: NotKeptError | None = None
        self.failed = asyncio.Event()

    def _fail(self, error: OSError) -> None:
        self.error = self._spool.not_kept(error)
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self.failed.set)

    def write_now(self, view: memoryview, position: int) -> None:
        """Write, unless an earlier write has failed. It blocks: call it in a thread."""
        if self.error is None:
            try:
                self._spool.require_room(position + view.nbytes)
                self.file.write_now(view, position)
            except OSError as error:
                self._fail(error)

    async def write(self, view: memoryview, position: int) -> None:
        """Write, unless an earlier write has failed."""
        await in_thread(self.write_now, view, position, executor=threads("disk"))

    async def fill(self, view: memoryview) -> None:
        """Write the whole file and flush it to disk, unless that fails."""
        await self.create()
        for start in range(0, view.nbytes, _BLOCK):
            await self.write(view[start : start + _BLOCK], start)
        if self.error is None:
            try:
                await self.file.sync()
            except OSError as error:
                self._fail(error)

    async def link_to(self, path: Path) -> bool:
        """Link a file, if the file system can; return whether it could."""
        try:
            self._spool.require_room((await in_thread(path.stat)).st_size)
            await self.file.link_to(path)
        except OSError:
            return False
        return True

    async def create(self) -> None:
        """Create the empty file."""
        try:
            await self.file.create()
        except OSError as error:
            self._fail(error)


class Reading(Protocol):
    """One source, being read."""

    @property
    def repeatable(self) -> bool:
        """Whether `body` and `read` can be used more than once, during the reading and after it."""

    async def run(self, sink: Sink | None) -> Digest:
        """Read all of it into the sink, and return size and MD5."""

    def body(self) -> Uploadable:
        """Return what to upload."""

    def read(self, position: int, count: int) -> bytes | memoryview:
        """Return bytes of it, after all have been read; blocks."""

    def finish(self, *, safe: bool) -> None:
        """Leave the source in the state in which an upload would."""


async def open_reading(source: Uploadable | Any, *, spooled: bool) -> Reading:
    """Find out how to read a source.

    Parameters
    ----------
    source : what can be uploaded, or `astropy.io.fits.HDUList`
        The source.
    spooled : `bool`
        Whether there will be a sink. Data that their owner may change are then
        read once, and the upload gets them from the sink, so the owner has
        them back as soon as the sink is full.

    Raises
    ------
    TypeError
        If it is of another type.
    """
    if type(source).__name__ == "HDUList" and type(source).__module__.startswith("astropy."):
        return _MemoryReading(await _fits.dump(source))
    if isinstance(source, os.PathLike):
        return _PathReading(Path(source))
    if type(source) is io.BytesIO:
        rest = memoryview(source.getvalue())[source.tell() :]
        return _MemoryReading(rest, lambda: _to_end(source))
    if type(source) is bytes or (not spooled and _is_buffer(source)):
        view = memoryview(source)  # type: ignore[arg-type]
        return _MemoryReading(view.cast("B") if view.nbytes else memoryview(b""))
    return _StreamReading(source)


def _is_buffer(source: Any) -> bool:
    try:
        with memoryview(source) as view:
            return view.c_contiguous
    except TypeError:
        return False


def _to_end(source: io.BytesIO) -> None:
    with suppress(ValueError):  # its owner has closed it
        source.seek(0, io.SEEK_END)


class _MemoryReading:
    """Bytes in memory that do not change."""

    repeatable = True

    def __init__(self, view: memoryview, finish: Callable[[], None] = lambda: None) -> None:
        self._view = view
        self._finish = finish

    async def run(self, sink: Sink | None) -> Digest:
        md5 = hashlib.md5(usedforsecurity=False)
        # Neither waits for the other, nor for the loop's next turn: the upload keeps that busy.
        async with task_group() as group:
            group.create_task(hash_views([self._view], md5))
            if sink is not None:
                group.create_task(sink.fill(self._view))
        return Digest(self._view.nbytes, md5.hexdigest())

    def body(self) -> memoryview:
        return self._view

    def read(self, position: int, count: int) -> memoryview:
        return self._view[position : position + count]

    def finish(self, *, safe: bool) -> None:
        if safe:
            self._finish()
        self._view = memoryview(b"")  # an error's traceback keeps this object for a while, but must not keep the bytes


class _PathReading:
    """A file on disk: linked if possible, otherwise copied."""

    repeatable = True

    def __init__(self, path: Path) -> None:
        self._path = path

    async def run(self, sink: Sink | None) -> Digest:
        before = await in_thread(_state, self._path)
        if sink is not None and await sink.link_to(self._path):
            sink = None
        elif sink is not None:
            await sink.create()
        digest = await hash_file(self._path, sink)
        if await in_thread(_state, self._path) != before:
            msg = f"{self._path} was changed while it was published"
            raise SourceChangedError(msg)
        return digest

    def body(self) -> Path:
        return self._path

    def read(self, position: int, count: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(position)
            return file.read(count)

    def finish(self, *, safe: bool) -> None:
        """Do nothing: a path has no position."""


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


async def hash_file(path: Path, sink: Sink | None = None) -> Digest:
    """Read a file for its size and MD5, and copy it to a sink, if there is one."""
    stopped = threading.Event()
    thread = OwnThread("lsst_lfa-hash")
    try:
        return await in_thread(_hash_file, path, sink, stopped, executor=thread, stop=stopped.set)
    finally:
        thread.shutdown()


def _hash_file(path: Path, sink: Sink | None, stopped: threading.Event) -> Digest:
    # All in one thread, and in the same memory: the loop is busy with the upload, and fresh memory takes as long as
    # MD5.
    md5 = hashlib.md5(usedforsecurity=False)
    memory, position = memoryview(bytearray(_PIECE)), 0
    with open_regular(path) as file:
        while not stopped.is_set() and (count := file.readinto(memory)):
            piece = memory[:count]
            md5.update(piece)
            if sink is not None:
                sink.write_now(piece, position)
            position += count
    return Digest(position, md5.hexdigest())


class _StreamReading:
    """A source that can be read only once: into the sink, or without one by the upload itself."""

    def __init__(self, source: Any) -> None:
        self._source = open_source(source)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sink: Sink | None = None
        self._size = 0
        self._kept = 0  # bytes in the sink
        self._unkept: list[memoryview] = []  # read, and not in the sink
        self._direct = False  # the upload reads the rest
        self._finished = False
        self._changed = asyncio.Event()

    @property
    def repeatable(self) -> bool:
        """Whether everything that was read is in the sink."""
        return self._sink is not None and self._sink.error is None

    async def run(self, sink: Sink | None) -> Digest:
        self._sink = sink
        async with self._source:
            if sink is not None:
                await sink.create()
            while self.repeatable and not self._finished:
                await self._advance()
            self._direct = True
            self._notify()
            while not self._finished:
                await self._changed.wait()
        return Digest(self._size, self._md5.hexdigest())

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _advance(self) -> None:
        """Read the next block, into the sink if it accepts it."""
        part = await self._source.read(_BLOCK)
        async with task_group() as group:
            group.create_task(hash_views(part, self._md5))
            if self._sink is not None:
                group.create_task(self._write(part, self._sink))
        self._size += sum(view.nbytes for view in part)
        if self.repeatable:
            self._kept = self._size
        else:
            self._unkept = part
        self._finished = not part
        self._notify()

    async def _write(self, part: list[memoryview], sink: Sink) -> None:
        position = self._size
        for view in part:
            await sink.write(view, position)
            position += view.nbytes

    def body(self) -> AsyncIterator[Buffer]:
        return self._follow()

    async def _follow(self) -> AsyncIterator[Buffer]:
        position = 0
        while True:
            if position < self._kept:
                piece = await in_thread(self.read, position, min(_PIECE, self._kept - position))
                position += len(piece)
                yield piece
            elif self._unkept:
                part, self._unkept = self._unkept, []
                for view in part:
                    yield view
            elif self._finished:
                return
            elif self._direct:
                await self._advance()
            else:
                await self._changed.wait()

    def read(self, position: int, count: int) -> bytes:
        assert self._sink is not None  # noqa: S101 - for the type checker
        return self._sink.file.read(position, count)

    def finish(self, *, safe: bool) -> None:
        """Do nothing: the source restores its position itself after an error."""
