"""Files on the local disk: those that are read, and those that are either complete or absent."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .concurrency import finish_in_thread, in_thread, threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["AtomicFile", "make_folder", "open_regular", "safe_join"]

# The errors of open(2) on a file system that does not support unnamed files.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
_DISCARD_TIMEOUT = 2.0


class AtomicFile:
    """A temporary file next to its destination, to which it is renamed at the end.

    The destination is either the old file or the complete new one, even after
    a crash: the data are on the disk before the name is. If the file system
    supports it, the temporary file has no name until then, so a killed process
    leaves none behind. Its last user closes its descriptor, even if that is a
    thread that a cancelled transfer left behind: if it were closed too early,
    its number could be that of another file.

    Parameters
    ----------
    path : `pathlib.Path`
        The destination; an existing regular file is replaced.
    temporary : `str`, optional
        The name of the temporary file until it is committed, if it needs one;
        by default a random one.
    """

    def __init__(self, path: Path, temporary: str = "") -> None:
        self._path = path
        self._temporary = path.with_name(temporary or f".lfa-{secrets.token_hex(8)}.part")
        self._lock = threading.Lock()
        self._users = 0
        self._fd = -1
        self._retired = False
        self._discarded = False

    async def create(self) -> None:
        """Create the temporary file, with a mode that follows the umask.

        Raises
        ------
        OSError
            If the folder is missing or read-only, or the destination is not a
            regular file.
        """
        await in_thread(self._create, executor=threads("disk"))

    async def link_to(self, source: Path) -> None:
        """Hard-link a file of the same file system instead of creating a new one.

        Raises
        ------
        OSError
            If the file system, or a rule of the system, does not allow the
            link.
        """
        await in_thread(self._link_to, source)

    async def write(self, view: memoryview, position: int) -> None:
        """Write all of ``view`` at ``position``."""
        await in_thread(self.write_now, view, position, executor=threads("disk"))

    async def sync(self) -> None:
        """Flush the data to disk, so that `commit` takes less time."""
        await in_thread(self._sync, executor=threads("disk"))

    def read(self, position: int, count: int) -> bytes:
        """Return bytes of the file. It blocks: call it in a thread."""
        with self._used() as fd:
            return os.pread(fd, count, position)

    async def commit(self, *, replace: bool = True) -> None:
        """Flush the data to disk, then give the file its name.

        Raises
        ------
        FileExistsError
            If ``replace`` is false and a file of that name exists.
        """
        await in_thread(self.commit_now, replace=replace, executor=threads("disk"))

    def write_all(self, data: memoryview) -> None:
        """Create, write and name the file, without flushing it to disk. It blocks: call it in a thread."""
        try:
            self._create()
            self.write_now(data, 0)
            self.commit_now(durable=False)
        finally:
            if self._give_up():
                self._remove()

    def retire(self) -> None:
        """Prevent any new use of the file; `discard` must still be called."""
        with self._lock:
            self._retired = True

    async def discard(self) -> None:
        """Remove the temporary file; after `commit`, just close it.

        Its threads only finish what they are doing; the last one removes the
        file, if this cannot.
        """
        if self._give_up():
            await finish_in_thread(self._remove, executor=threads("disk"), limit=_DISCARD_TIMEOUT)

    def _give_up(self) -> bool:
        """Prevent any new use of the file; return whether it is unused."""
        with self._lock:
            unused = not self._discarded and not self._users
            self._retired = self._discarded = True
        return unused

    @contextmanager
    def _used(self) -> Iterator[int]:
        with self._lock:
            self._check_wanted()
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                last = self._discarded and not self._users
            if last:
                self._remove()

    def _check_wanted(self) -> None:
        if self._retired:
            msg = f"the temporary file for {self._path} was discarded"
            raise OSError(errno.EBADF, msg)

    def _create(self) -> None:
        with self._used():
            self._check_destination()
            nameless = getattr(os, "O_TMPFILE", 0) if os.access("/proc/self/fd", os.X_OK) else 0
            try:
                self._fd = os.open(self._path.parent, os.O_RDWR | os.O_CLOEXEC | nameless, 0o666)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._temporary, flags, 0o666)

    def _link_to(self, source: Path) -> None:
        with self._used():
            os.link(source, self._temporary)
            self._fd = os.open(self._temporary, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _sync(self) -> None:
        with self._used() as fd:
            os.fsync(fd)

    def _check_destination(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            msg = f"cannot download to {self._path}: it is a directory"
            raise IsADirectoryError(msg)
        if not stat.S_ISREG(status.st_mode):
            msg = f"cannot download to {self._path}: it is not a regular file"
            raise FileExistsError(msg)

    def write_now(self, view: memoryview, position: int) -> None:
        """Like `write`, in the caller's own thread."""
        with self._used() as fd:
            while view:
                count = os.pwrite(fd, view, position)
                position += count
                view = view[count:]

    def commit_now(self, *, replace: bool = True, durable: bool = True) -> None:
        """Like `commit`, in the caller's own thread, and optionally without flushing."""
        with self._used() as fd:
            if durable:
                os.fsync(fd)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if not os.fstat(fd).st_nlink:
                    # As open(2) has it. With `dst_dir_fd` it is linkat(2), which follows that link.
                    os.link(f"/proc/self/fd/{fd}", self._temporary.name, dst_dir_fd=folder)
                # A slow disk may release a thread that was left behind long ago: by now the path may belong to others.
                self._check_wanted()
                if replace:
                    self._temporary.replace(self._path)
                else:
                    os.link(self._temporary, self._path)
                    self._temporary.unlink()
                if durable:
                    os.fsync(folder)
            finally:
                os.close(folder)

    def _remove(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._temporary.unlink(missing_ok=True)


def safe_join(folder: Path, key: str) -> Path:
    """Return the path of ``key`` in ``folder``, after creating its parents; it must not lead outside.

    Raises
    ------
    ValueError
        If a symbolic link leads outside the folder, or if another key would
        have the same path, that is, a key with empty segments (``x//y``,
        ``/x``).
    """
    name = key.removesuffix("/")
    if "" in name.split("/"):
        msg = f"key={key!r} has empty segments, so it is not a usable path in a folder: pass path instead"
        raise ValueError(msg)
    root = folder.resolve(strict=True)
    target = root / name
    parent = target.parent.resolve()
    if not parent.is_relative_to(root):
        msg = f"{key!r} would leave {folder}: a symbolic link leads outside"
        raise ValueError(msg)
    parent.mkdir(parents=True, exist_ok=True)
    return parent / target.name


def make_folder(folder: Path, key: str) -> Path:
    """Create the folder that the marker ``key``, ending with "/", represents."""
    target = safe_join(folder, key)
    if target.is_symlink():
        msg = f"{key!r} would leave {folder}: a symbolic link leads outside"
        raise ValueError(msg)
    target.mkdir(exist_ok=True)
    return target


def open_regular(path: Path) -> io.FileIO:
    """Open a file on the local disk for reading. It blocks: call it in a thread.

    Raises
    ------
    ValueError, IsADirectoryError
        If it is not a regular file.
    """
    # Opening a FIFO would wait for a writer, in a thread that cannot be stopped.
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        msg = f"cannot upload {path}: it is not a regular file"
        raise IsADirectoryError(msg) if stat.S_ISDIR(status.st_mode) else ValueError(msg)
    return io.FileIO(path)
