"""The folder engines: they upload or download many files, several in parallel, each of them all or nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import stat
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lsst_lfa import errors
from lsst_lfa._public import public
from lsst_lfa.naming import check_key

from .attempts import transfer
from .concurrency import in_thread, run_in_thread, task_group
from .download import download, verify
from .etag import check_etag
from .files import AtomicFile
from .object_options import upload_options
from .operations import Pages, list_objects
from .places import find_places
from .progress import Progress
from .ranges import S3RangeReader
from .responses import ObjectInfo
from .sinks import MemorySink, new_file
from .sources import open_source
from .upload import upload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

    from .attempts import BucketClient
    from .places import Place

    _Work = Callable[[], Awaitable[int | None]]
    OnFile = Callable[[str, int | None], None]

__all__ = [
    "FolderSummary",
    "LocalFile",
    "check_max_files",
    "download_folder",
    "folder_prefix",
    "is_same_file",
    "look_at",
    "stops_all",
    "upload_files",
    "walk",
]

# Read or written in one piece, in one thread: changing threads takes longer than the disk does.
_SMALL = 1024 * 1024
# Memory used by the download of one large file.
_HELD = 4 * 1024 * 1024
_WALKED = 200
# These errors say nothing about the other files.
_OF_ONE_FILE = (errors.LfaError, OSError, ValueError)
# These errors would affect all of them.
_OF_ALL = (
    errors.AuthenticationError,
    errors.BucketNotFoundError,
    errors.ClosedError,
    errors.ConfigurationError,
    errors.MissingCredentialsError,
    errors.QuotaExceededError,
)


@public
@dataclass(kw_only=True)
class FolderSummary:
    """The outcome of a folder's transfer.

    Attributes
    ----------
    transferred, skipped : `int`
        Files that were uploaded or downloaded, and files that were equal on
        both sides.
    size : `int`
        Bytes in the files that were transferred.
    failed : `dict` [`str`, `Exception`]
        The errors of the others, by their path in the folder.
    """

    transferred: int = 0
    skipped: int = 0
    size: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)

    def raise_for_failures(self) -> None:
        """Raise the first failure, if any, with a note that says how many there are."""
        for name, error in self.failed.items():
            error.add_note(f"{name!r} is one of {len(self.failed)} files that failed")
            raise error


class _FolderNotFoundError(errors.LfaError, FileNotFoundError):
    """There is no such folder in the bucket."""


def stops_all(error: Exception) -> bool:
    """Whether the error of one file would affect the others as well."""
    return isinstance(error, _OF_ALL) or (isinstance(error, errors.LfaError) and error.transient)


def folder_prefix(prefix: str) -> str:
    """Return the prefix of the keys in a folder: its name and "/"."""
    return f"{prefix}/" if prefix and not prefix.endswith("/") else prefix


def check_max_files(max_files: int) -> None:
    """Check that at least one file may be transferred."""
    if max_files < 1:
        msg = f"max_files is {max_files!r}; it must be 1 or more"
        raise ValueError(msg)


class _Limit:
    """Limits the number of files in progress, and of their bytes in memory; one task asks, others give back."""

    def __init__(self, files: int, size: int) -> None:
        self._files = files
        self._size = size
        self._used = 0
        self._changed = asyncio.Event()

    async def acquire(self, size: int) -> int:
        """Wait until a file that needs ``size`` bytes of memory may start, alone if it needs too many."""
        size = min(size, self._size)
        while not self._files or self._used + size > self._size:
            self._changed.clear()
            await self._changed.wait()
        self._files -= 1
        self._used += size
        return size

    def release(self, size: int) -> None:
        self._files += 1
        self._used -= size
        self._changed.set()


class _Share(Progress):
    """One file's contribution to the progress of all."""

    def __init__(self, whole: Progress) -> None:
        super().__init__(None)
        self._whole = whole

    def advance(self, count: int) -> None:
        self._whole.advance(count)


class _Folder:
    """What uploading and downloading have in common: files in progress, and their outcome.

    ``on_file`` is told the name of each file that is at its destination, and
    its size, or `None` if it was skipped.
    """

    def __init__(self, client: BucketClient, progress: Progress, max_files: int, on_file: OnFile | None) -> None:
        config = client.config
        self.client = client
        self._on_file = on_file
        self.summary = FolderSummary()
        self._progress = progress
        self._limit = _Limit(max_files, (config.max_concurrency + 1) * config.part_size)

    async def start(self, group: asyncio.TaskGroup, name: str, held: int, work: _Work) -> None:
        """Start a file's transfer as soon as it is allowed."""
        held = await self._limit.acquire(held)
        group.create_task(self._account(name, held, work))
        await asyncio.sleep(0)  # making a request takes milliseconds: one per turn of the loop

    async def _account(self, name: str, held: int, work: _Work) -> None:
        """Record the outcome of a file: its size, or `None` if it was skipped."""
        try:
            size = await work()
        except _OF_ONE_FILE as error:
            if stops_all(error):
                raise
            self.summary.failed[name] = error
        else:
            self.summary.transferred += size is not None
            self.summary.skipped += size is None
            self.summary.size += size or 0
            if self._on_file is not None:
                self._on_file(name, size)
        finally:
            self._limit.release(held)

    def share(self) -> Progress:
        """Return the progress of one file."""
        return _Share(self._progress)


# Upload


class LocalFile(NamedTuple):
    """A file to upload, or the reason why it cannot be uploaded.

    Attributes
    ----------
    name : `str`
        Its key, without the common prefix.
    path : `pathlib.Path`
        Where it is.
    size : `int`
        Bytes.
    error : `Exception` or `None`
        Why it cannot be uploaded.
    """

    name: str
    path: Path
    size: int
    error: Exception | None = None


async def upload_files(
    client: BucketClient,
    files: Iterator[LocalFile],
    prefix: str,
    progress: Progress,
    *,
    max_files: int,
    skip_equal: bool,
    if_none_match: bool = False,
    extra_args: Mapping[str, Any] | None = None,
    on_file: OnFile | None = None,
) -> FolderSummary:
    """Upload files; see `AsyncS3Bucket.upload_folder`. ``files`` may block: it is advanced in a thread."""
    listed = (item async for items in _list(client, prefix) for item in items)
    there = {item.key: (item.size, item.etag) async for item in listed} if skip_equal else {}
    work = _Folder(client, progress, max_files, on_file)

    async def send(key: str, file: LocalFile) -> int | None:
        if file.error is not None:
            raise file.error
        options = upload_options(check_key(key), None, None, extra_args, if_none_match=if_none_match)
        if key in there and await run_in_thread(is_same_file, file.path, *there[key], client.config.part_size):
            return None
        source = open_source(await in_thread(file.path.read_bytes) if file.size <= _SMALL else file.path)
        async with transfer(client.info("upload", key), client.config.total_timeout):
            await upload(client, key, source, work.share(), options)
        return file.size

    async with task_group() as group:
        while found := await in_thread(_take, files):
            for file in found:
                # A large one may use all the memory that an upload may: it is sent alone.
                await work.start(group, file.name, file.size, partial(send, prefix + file.name, file))
    return work.summary


def _take(walk: Iterator[LocalFile]) -> list[LocalFile]:
    return list(itertools.islice(walk, _WALKED))


def walk(root: Path) -> Iterator[LocalFile]:
    """Find all files in a folder and its subfolders. It blocks: advance it in a thread."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise
            yield LocalFile(folder.relative_to(root).as_posix(), folder, 0, error)
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield look_at(path, path.relative_to(root).as_posix(), root)


def look_at(path: Path, name: str, root: Path | None = None) -> LocalFile:
    """Find out a file's size, and whether it can be uploaded: not if it is a link from ``root`` to a place outside."""
    try:
        status = path.stat()  # a link that leads nowhere, or to itself, is an error
        leads_out = root is not None and path.is_symlink() and not path.resolve(strict=True).is_relative_to(root)
    except OSError as error:
        return LocalFile(name, path, 0, error)
    if leads_out:
        return LocalFile(name, path, 0, ValueError(f"{name!r} is a symbolic link that leads outside {root}"))
    if not stat.S_ISREG(status.st_mode):
        return LocalFile(name, path, 0, ValueError(f"{name!r} is neither a regular file nor a folder"))
    return LocalFile(name, path, status.st_size)


# Download


async def download_folder(
    client: BucketClient,
    prefix: str,
    folder: Path,
    progress: Progress,
    *,
    max_files: int,
    skip_equal: bool,
    must_exist: bool = False,
    on_file: OnFile | None = None,
) -> FolderSummary:
    """Download all objects whose keys begin with ``prefix``; see `AsyncS3Bucket.download_folder`.

    With ``must_exist``, a FileNotFoundError is raised if there are none.
    """
    work = _Folder(client, progress, max_files, on_file)

    async def fetch(place: Place) -> int | None:
        if place.error is not None:
            raise place.error
        if place.name.endswith("/"):
            return 0
        item, path = place.item, place.path
        same = skip_equal and place.taken
        if same and await run_in_thread(is_same_file, path, item.size, item.etag, client.config.part_size):
            return None
        async with transfer(client.info("download", item.key), client.config.total_timeout):
            return await _download(client, item, path, work.share())

    async with task_group() as group:
        async for items in _list(client, prefix):
            must_exist = False
            for place in await in_thread(find_places, folder, prefix, items):
                size = place.item.size
                await work.start(group, place.name, size if size <= _SMALL else _HELD, partial(fetch, place))
    if must_exist:
        msg = f"bucket {client.bucket} has no folder {prefix!r}"
        raise _FolderNotFoundError(msg)
    await in_thread(folder.mkdir, parents=True, exist_ok=True)
    # Once for all small files: for each of them, it would take longer than the download.
    await in_thread(os.sync)
    return work.summary


async def _download(client: BucketClient, item: ObjectInfo, path: Path, progress: Progress) -> int:
    reader = S3RangeReader(client, item.key)
    if item.size <= _SMALL:
        memory = MemorySink()
        try:
            pinned = await download(reader, memory, progress, expected=item.size)
            await verify(reader, pinned, memory)
        finally:
            memory.close()
        # Its own copy: a thread that is left behind may still be writing it.
        await in_thread(AtomicFile(path).write_all, memoryview(memory.file.getvalue()))
        return pinned.size
    async with new_file(path) as sink:
        pinned = await download(reader, sink, progress)
        await verify(reader, pinned, sink)
    return pinned.size


# Both


async def _list(client: BucketClient, prefix: str) -> AsyncGenerator[list[ObjectInfo], None]:
    pages = Pages()
    while pages.more:
        items = [item for item in await list_objects(client, prefix, "", pages) if isinstance(item, ObjectInfo)]
        for start in range(0, len(items), _WALKED):
            yield items[start : start + _WALKED]
            await asyncio.sleep(0)  # the consumer must not wait for anything in between


def is_same_file(path: Path, size: int, etag: str, part_size: int) -> bool:
    """Whether a file has an object's size and content, according to the ETag. It blocks: call it in a thread."""
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            check_etag("", etag, size, part_size, lambda start, count: os.pread(file.fileno(), count, start))
    except (OSError, errors.IntegrityError, errors.UnverifiableError):
        return False
    return True
