"""`Spool`: a folder on local disk where files wait until S3 has them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from lsst_lfa._public import public
from lsst_lfa._transfer.concurrency import in_thread, uninterrupted
from lsst_lfa._transfer.files import safe_join
from lsst_lfa.naming import revised_key

from .entry import PART, SIDECAR, Entry, claim, create_sidecar, read_sidecar
from .scan import Scan, file_system, foreign_files, is_volatile, prune_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from .record import Record
    from .scan import Found

__all__ = ["NotKeptError", "Spool", "Taken"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_MAX_REVISIONS: Final = 10_000
# Another process may remove empty folders: a new one may be gone before it contains a file.
_FOLDER_ATTEMPTS: Final = 5


class NotKeptError(Exception):
    """The spool could not store a file; the cause is an OSError or a ValueError."""


class Taken(NamedTuple):
    """A file that waits in the spool under the requested name.

    Attributes
    ----------
    sidecar : `pathlib.Path`
        Its sidecar.
    record : `Record`
        Its contents.
    """

    sidecar: Path
    record: Record


@public
class Spool:
    """A folder on local disk where files wait until S3 has them.

    A file is at ``{folder}/{bucket}/{key}``. Next to it, ``{key}.lfa.jsonl``
    is a human-readable sidecar with everything that is needed to send and to
    announce the file. Both are removed when that is done. Several processes
    may share a folder.

    Parameters
    ----------
    folder : `str` or `pathlib.Path`
        The folder, which is created on first use. It should be on a volume
        that outlives the container.
    max_bytes : `int`, optional
        Maximum total size of the files in it; by default only the disk limits
        it.

    Attributes
    ----------
    folder : `pathlib.Path`
        As given; absolute once the spool is opened.
    max_bytes : `int` or `None`
        As given.

    Raises
    ------
    ValueError
        If ``max_bytes`` is negative.

    Notes
    -----
    A file is locked, by ``flock(2)``, while a process works on it. On NFS that
    lock is seen by all clients, unless it is mounted with ``nolock`` or
    ``local_lock``; and if a client machine dies, the server keeps it for a
    while (90 s, as a rule).
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 0:
            msg = f"max_bytes is {max_bytes!r}; it must be None, or 0 or more"
            raise ValueError(msg)
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._used = 0
        self._scans: dict[str, Scan] = {}

    def __repr__(self) -> str:
        return f"Spool({str(self.folder)!r}, max_bytes={self.max_bytes!r})"

    async def open(self, bucket: str) -> None:
        """Create the folder, and warn if it cannot be written to, or dies with its container."""
        await in_thread(self._open, bucket)

    async def scan(self, bucket: str, known: AbstractSet[str] = frozenset()) -> list[Found]:
        """Return the files that wait for a bucket, oldest first, except those whose sidecars are known."""
        found = await in_thread(self._scan, bucket, known)
        self._used += sum(each.size for each in found)
        return found

    async def reserve(self, record: Record, *, in_place: bool = False) -> tuple[Entry, list[Taken]]:
        """Reserve a name for a file, and lock it.

        If files already wait under the name, this one gets the next free one,
        with ``_r1``, ``_r2``, ..., and so does its key, unless it may
        overwrite.

        Returns
        -------
        entry : `Entry`
            To be filled, committed, and released.
        taken : `list` [`Taken`]
            The files that already have the name, or one of the next ones.

        Raises
        ------
        NotKeptError
            If the folder cannot be written to, or the key has no place in one.
        """
        attempts_left = _FOLDER_ATTEMPTS
        while True:
            try:
                return await _entry_in_thread(self._reserve, record, in_place)
            except (OSError, ValueError) as error:
                attempts_left -= 1
                if not (isinstance(error, FileNotFoundError) and attempts_left):
                    raise self.not_kept(error) from error

    async def claim(self, sidecar: str) -> Entry | None:
        """Lock a waiting file; `None` if another process is working on it.

        Raises
        ------
        FileNotFoundError
            If it is gone.
        ValueError
            If its sidecar cannot be understood.
        """
        return (await _entry_in_thread(lambda: (claim(Path(sidecar)),)))[0]

    async def prune(self, bucket: str) -> None:
        """Remove a bucket's folders that are empty."""
        await in_thread(lambda: prune_all(self._root(bucket)))

    async def foreign(self, folder: Path) -> list[Path]:
        """Return the files in a folder tree that have no sidecar, oldest first."""
        return await in_thread(lambda: list(foreign_files(folder)))

    def require_room(self, size: int) -> None:
        """Check that one more file of at least so many bytes is allowed.

        Raises
        ------
        OSError
            If it is not.
        """
        if self.max_bytes is not None and self._used + size > self.max_bytes:
            msg = f"the spool is full: it holds {self._used} of at most {self.max_bytes} bytes"
            raise OSError(errno.EDQUOT, msg, str(self.folder))

    def count(self, size: int) -> None:
        """Note that so many bytes were added, or removed if negative."""
        self._used = max(self._used + size, 0)

    def not_kept(self, error: Exception) -> NotKeptError:
        """Return the error for a file that could not be stored."""
        return NotKeptError(f"the spool {self.folder} could not store the file ({type(error).__name__}: {error})")

    def _root(self, bucket: str) -> Path:
        return self.folder.resolve() / bucket

    def _scan(self, bucket: str, known: AbstractSet[str]) -> list[Found]:
        return self._scans.setdefault(bucket, Scan(self._root(bucket))).run(known)

    def _open(self, bucket: str) -> None:
        self._used = 0
        self._scans.pop(bucket, None)
        self.folder = self.folder.absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("the spool %s cannot be used, so files go to S3 directly: %s", self.folder, error)
            return
        if not os.access(self.folder, os.W_OK | os.X_OK):
            log.warning("the spool %s cannot be written to, so files go to S3 directly", self.folder)
        kind = file_system(self.folder.resolve())
        if is_volatile(kind):
            log.warning(
                "the spool %s is on %s: it dies with the container, and so do the files in it. Mount a volume",
                self.folder,
                kind,
            )

    def _reserve(self, record: Record, in_place: bool) -> tuple[Entry, list[Taken]]:  # noqa: FBT001 - in a thread
        taken: list[Taken] = []
        for number in range(1 if in_place else _MAX_REVISIONS):
            name = revised_key(record.key, number)
            key = name if taken and record.if_exists == "keep" else record.key
            payload, new_folders = self._place(record.bucket, name)
            sidecar = payload.with_name(payload.name + SIDECAR)
            mine = replace(record, key=key, asked=record.key, part=f".lfa-{secrets.token_hex(8)}{PART}")
            try:
                fd = create_sidecar(sidecar, mine)
            except FileExistsError:
                taken.extend(_peek(sidecar))
                continue
            if os.path.lexists(payload) and not in_place:
                # A file that is not ours.
                sidecar.unlink()
                os.close(fd)
                continue
            return Entry(payload, mine, fd, new_folders), taken
        msg = f"{record.key!r} has too many versions already" if not in_place else f"{record.key!r} is in the spool"
        raise ValueError(msg)

    def _place(self, bucket: str, key: str) -> tuple[Path, list[Path]]:
        """Return the path of a key's file, after creating its parents, and which of these are new."""
        name = key.rpartition("/")[2]
        if not name or name.endswith((SIDECAR, PART)):
            msg = f"key={key!r} has no file name, or one that the spool reserves"
            raise ValueError(msg)
        root = self._root(bucket)
        new = [parent for parent in (root / key).parents if not parent.exists()]
        root.mkdir(parents=True, exist_ok=True)
        return safe_join(root, key), new


async def _entry_in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function that returns an entry first; if cancelled, release the entry."""
    made: list[Any] = []

    def call() -> None:
        made.append(function(*args))

    try:
        await in_thread(call)
    except asyncio.CancelledError:
        for entry, *_ in made:
            if entry is not None:
                await uninterrupted(entry.abandon(), grace=None)
        raise
    result: T = made[0]
    return result


def _peek(sidecar: Path) -> list[Taken]:
    try:
        return [Taken(sidecar, read_sidecar(sidecar))]
    except (OSError, ValueError):
        return []  # it has gone, or is torn, which is reported elsewhere; its name is taken anyway
