"""What can be downloaded into: places that take bytes out of order."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import secrets
import stat
from collections import deque
from typing import TYPE_CHECKING, Protocol

from .tasks import in_thread, uninterrupted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileSink", "MemorySink", "Pieces", "Sink", "Writer", "inside"]

# Bytes gathered before a thread writes them; a thread for each chunk costs more than the write.
_GATHER = 1024 * 1024
# What a stream's reader gets at a time, and holds beside what is read ahead.
_PIECE = 256 * 1024

# How open(2) says that here are no files without a name.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)


class Writer(Protocol):
    """Takes one range, from its start to its end."""

    def room(self, position: int) -> memoryview:
        """Return where the bytes from ``position`` on belong: room for one at least."""

    async def filled(self, position: int) -> None:
        """Take note that the bytes before ``position`` are in their room."""


class Sink(Protocol):
    """A destination of a known size."""

    def open(self, size: int) -> None:
        """Make room for ``size`` bytes; what was there before is forgotten."""

    def writer(self, start: int, stop: int) -> Writer:
        """Return a writer of bytes ``start`` to ``stop``."""


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

    def open(self, size: int) -> None:
        self.close()
        self.file, self._view = _untouched(size)

    def writer(self, start: int, stop: int) -> Writer:  # noqa: ARG002 - a part of the whole is as good as any
        return _MemoryWriter(self._view, stop)

    def read(self, start: int, count: int) -> memoryview:
        """Return bytes that were written."""
        return self._view[start : start + count]

    def close(self) -> None:
        """Give the buffer free: a BytesIO can be neither resized nor closed while it is viewed."""
        self._view.release()


def _untouched(size: int) -> tuple[io.BytesIO, memoryview]:
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

    def room(self, position: int) -> memoryview:
        return self._view[position : self._stop]

    async def filled(self, position: int) -> None:  # noqa: ARG002 - they are in their place already
        return None


class Pieces:
    """Pieces of a range as ``bytes``, in order.

    Attributes
    ----------
    items : `collections.deque` of `bytes`
        The pieces that are complete.
    """

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self._start = self._stop = self._end = 0

    def writer(self, start: int, stop: int) -> Writer:
        self._start = self._stop = start
        self._end = stop
        return self

    def room(self, position: int) -> memoryview:
        if position == self._stop:
            self._start, self._stop = position, min(position + _PIECE, self._end)
            self._file = _untouched(self._stop - self._start)[0]
        return self._file.getbuffer()[position - self._start :]

    async def filled(self, position: int) -> None:
        if position == self._stop:
            self.items.append(self._file.getvalue())


class FileSink:
    """A temporary file beside its destination, moved there at the end.

    The destination is either what it was before or the whole object, also
    after a crash: the data are on the disk before the name is. Where the file
    system can, the temporary file has no name until then: a killed process
    leaves none.

    Parameters
    ----------
    path : `pathlib.Path`
        The destination: a regular file, replaced, or nothing yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".lfa-{secrets.token_hex(8)}.part")
        self._fd = -1

    async def create(self) -> None:
        """Create the temporary file, its mode as the umask says.

        Raises
        ------
        OSError
            If the folder is missing or read-only, or the destination is
            something else than a regular file.
        """
        try:
            status = await in_thread(self._path.stat)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(status.st_mode):
                msg = f"cannot download to {self._path}: it is a directory"
                raise IsADirectoryError(msg)
            if not stat.S_ISREG(status.st_mode):
                msg = f"cannot download to {self._path}: it is not a regular file"
                raise FileExistsError(msg)
        await in_thread(self._create)

    def _create(self) -> None:
        nameless = getattr(os, "O_TMPFILE", 0) if os.access("/proc/self/fd", os.X_OK) else 0
        try:
            self._fd = os.open(self._path.parent, os.O_RDWR | os.O_CLOEXEC | nameless, 0o666)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._temporary, flags, 0o666)

    def open(self, size: int) -> None:
        """Do nothing: the file grows as it is written."""

    def writer(self, start: int, stop: int) -> Writer:
        return _FileWriter(self._fd, start, stop)

    def read(self, start: int, count: int) -> bytes:
        """Return bytes that were written."""
        return os.pread(self._fd, count, start)

    async def commit(self) -> None:
        """Put the data on the disk, then give the file its name."""
        await in_thread(self._commit)

    def _commit(self) -> None:
        os.fsync(self._fd)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not os.fstat(self._fd).st_nlink:
                # As open(2) has it. With `dst_dir_fd` it is linkat(2), which follows that link.
                os.link(f"/proc/self/fd/{self._fd}", self._temporary.name, dst_dir_fd=folder)
            self._close()
            self._temporary.replace(self._path)
            os.fsync(folder)
        finally:
            os.close(folder)

    async def discard(self) -> None:
        """Remove the temporary file; a no-op after `commit`."""
        await uninterrupted(asyncio.to_thread(self._discard), grace=2.0)

    def _discard(self) -> None:
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class _FileWriter:
    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd = fd
        self._start = start
        self._stop = stop
        self._gathered = memoryview(bytearray(min(_GATHER, stop - start)))

    def room(self, position: int) -> memoryview:
        return self._gathered[position - self._start : self._stop - self._start]

    async def filled(self, position: int) -> None:
        count = position - self._start
        if count == len(self._gathered) or position == self._stop:
            await in_thread(_write_all, self._fd, self._gathered[:count], self._start)
            self._start = position


def _write_all(fd: int, view: memoryview, position: int) -> None:
    while view:
        count = os.pwrite(fd, view, position)
        position += count
        view = view[count:]


def inside(folder: Path, key: str) -> Path:
    """Return the path that ``key`` has in ``folder``, with its folders made; it must not lead out."""
    root = folder.resolve(strict=True)
    target = root / key.lstrip("/")
    parent = target.parent.resolve()
    if not parent.is_relative_to(root):
        msg = f"{key!r} would leave {folder}: a symbolic link leads out of it"
        raise ValueError(msg)
    parent.mkdir(parents=True, exist_ok=True)
    return parent / target.name
