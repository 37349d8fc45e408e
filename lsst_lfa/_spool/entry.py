"""One file in the spool, locked by this process."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lsst_lfa._transfer.concurrency import in_thread, run_in_thread, uninterrupted
from lsst_lfa._transfer.files import AtomicFile

from .record import change_line, parse_sidecar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .record import Record

__all__ = ["PART", "SIDECAR", "Entry", "claim", "create_sidecar", "is_locked", "lock", "read_sidecar", "sync_all"]

SIDECAR: Final = ".lfa.jsonl"
"""The suffix of a sidecar's name, after that of its file."""
PART: Final = ".part"
"""The suffix of a temporary file's name."""


class Entry:
    """A file in the spool and its sidecar, which this process has locked.

    The kernel releases the lock when the process ends, for whatever reason.
    The sidecar is created before the file and removed after it, so a file
    without a sidecar was never ours, and a sidecar without a file was left by
    a crash.

    Parameters
    ----------
    payload : `pathlib.Path`
        The file.
    record : `Record`
        The contents of the sidecar.
    fd : `int`
        The sidecar, open and locked; closed by `release`.
    new_folders : sequence of `pathlib.Path`, optional
        Folders that were created for it, and may not be on disk yet.
    """

    def __init__(self, payload: Path, record: Record, fd: int, new_folders: Sequence[Path] = ()) -> None:
        self.payload = payload
        self.record = record
        self._fd = fd
        self._new_folders = new_folders
        # A descriptor must not be closed while a thread uses it: its number could soon be another file's.
        self._lock = threading.Lock()

    @property
    def sidecar(self) -> Path:
        """The file that describes this one."""
        return self.payload.with_name(self.payload.name + SIDECAR)

    async def older(self) -> list[str]:
        """Return the sidecars of older files that wait for the same key."""
        return await in_thread(self._older)

    def _older(self) -> list[str]:
        asked = self.record.asked or self.record.key
        stem = asked.rpartition("/")[2].partition(".")[0]
        found = []
        for path in self.payload.parent.glob(f"{glob.escape(stem)}*{SIDECAR}"):
            with suppress(OSError, ValueError):  # it is gone, or is none
                record = read_sidecar(path)
                same = (record.asked or record.key) == asked and record.sequence < self.record.sequence
                if same and not record.stored and path.with_name(path.name.removesuffix(SIDECAR)).exists():
                    found.append(str(path))
        return found

    def new_file(self) -> AtomicFile:
        """Return the file to fill, which `commit` then renames."""
        return AtomicFile(self.payload, self.record.part)

    async def commit(self, file: AtomicFile, size: int, check_sum: str) -> None:
        """Flush the file to disk; when this returns, it is safe.

        Raises
        ------
        OSError
            If the disk could not store it.
        """
        await in_thread(self._commit, file, {"byte_size": size, "check_sum": check_sum})

    def _commit(self, file: AtomicFile, digest: dict[str, Any]) -> None:
        self._note(digest, sync=True)
        file.commit_now(replace=False)
        sync_all([folder.parent for folder in self._new_folders])
        self._note({"safe": True}, sync=False)

    async def adopt(self, size: int, check_sum: str) -> None:
        """Use the file that is already in place."""
        await in_thread(sync_all, [self.payload, self.payload.parent])
        await self.note(byte_size=size, check_sum=check_sum, safe=True, sync=True)

    async def note(self, *, sync: bool = False, **changes: Any) -> None:
        """Append a change to the sidecar; with ``sync``, it is on disk when this returns."""
        await in_thread(self._note, changes, sync)

    async def remove(self) -> None:
        """Remove the file, then the sidecar; `Spool.prune` removes the folders."""
        await in_thread(self._remove)

    async def drop_payload(self) -> None:
        """Remove only the file: S3 has it, but the sidecar is still needed."""
        await in_thread(self.payload.unlink, missing_ok=True)

    async def remove_and_release(self) -> None:
        """Do both, even if the caller is cancelled."""
        await uninterrupted(run_in_thread(self._remove_and_release), grace=None)

    def _remove_and_release(self) -> None:
        try:
            self._remove()
        finally:
            self._release()

    async def release(self) -> None:
        """Release the file, even if the caller is cancelled; idempotent."""
        # A job that no thread has started would never start after a cancellation, and the lock would be kept for ever.
        await uninterrupted(run_in_thread(self._release), grace=None)

    async def abandon(self) -> None:
        """Release a file that nobody has started to work on; an incomplete one is removed."""
        try:
            if not self.record.complete:
                await self.remove()
        finally:
            await self.release()

    def _note(self, changes: dict[str, Any], sync: bool) -> None:  # noqa: FBT001 - called in a thread
        with self._lock:
            # A line that a crash has torn must not corrupt ours.
            _write(self._fd, b"\n" * self._torn() + change_line(**changes))
            if sync:
                os.fsync(self._fd)
        self.record = replace(self.record, **changes)

    def _torn(self) -> bool:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        return end > 0 and os.pread(self._fd, 1, end - 1) != b"\n"

    def _remove(self) -> None:
        if self.record.safe and (self.record.to_announce or not self.record.stored):
            # A process that ends between the two removals leaves one to do, but no file that seems lost.
            # A full disk accepts no note, but only a removal makes room on it.
            with suppress(OSError):
                self._note({"stored": True, "announced": True}, sync=False)
        self.payload.unlink(missing_ok=True)
        if self.record.part:
            self.payload.with_name(self.record.part).unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)

    def _release(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may have the descriptor too, and live for long
                os.close(fd)


def create_sidecar(path: Path, record: Record) -> int:
    """Create a sidecar that is complete and locked from the beginning, and return its descriptor.

    Raises
    ------
    FileExistsError
        If there is one already.
    """
    temporary = path.with_name(f".lfa-{secrets.token_hex(8)}{PART}")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND, 0o666)
    try:
        lock(fd)
        _write(fd, record.first_line())
        os.link(temporary, path)
    except BaseException:
        os.close(fd)
        raise
    finally:
        temporary.unlink()
    return fd


def claim(path: Path) -> Entry | None:
    """Lock the file that a sidecar describes; `None` if another process has it.

    Raises
    ------
    FileNotFoundError
        If it is gone.
    ValueError
        If the sidecar cannot be understood.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND)
    try:
        if lock(fd):
            if not os.fstat(fd).st_nlink:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            record = parse_sidecar(os.pread(fd, os.fstat(fd).st_size, 0))
            return Entry(path.with_name(path.name.removesuffix(SIDECAR)), record, fd)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def lock(fd: int) -> bool:
    """Take the kernel's lock on a file if it is free, and return whether it was.

    ``flock(2)``. It belongs to the open file, and is released with its last
    descriptor: when the holder ends, is killed, or closes it. On NFS, Linux
    makes it a lock of the whole file at the server (kernel 2.6.12 or later),
    which other clients see, and which a server takes back from a client that
    has died when its lease has run out (version 4: 90 s by default). A mount
    with ``nolock`` or ``local_lock`` keeps it to one machine. A file system
    without locks raises OSError.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return whether a process is working on the file that a sidecar describes; this locks it only for a moment."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read_sidecar(path: str | Path) -> Record:
    """Read a sidecar without locking it."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - there may be many, and a Path takes longer
        return parse_sidecar(file.read())


def _write(fd: int, data: bytes) -> None:
    """Append all of the data, or nothing."""
    before = os.fstat(fd).st_size
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, before)
        raise


def sync_all(paths: Sequence[Path]) -> None:
    """Flush files and folders to disk."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
