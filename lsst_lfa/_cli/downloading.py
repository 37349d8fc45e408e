"""What ``get`` and ``cat`` do."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lsst_lfa._download_url import save_url, wait_for
from lsst_lfa._transfer.concurrency import OwnThread, finish_in_thread, in_thread, run_in_thread, threads
from lsst_lfa._transfer.folders import is_same_file
from lsst_lfa._transfer.sources import open_source
from lsst_lfa._urls import FileUrl, ObjectUrl, PresignedUrl

from .many import for_each, tell_failures
from .progress import tally
from .targets import Service

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from .output import Output
    from .progress import Tally
    from .targets import Places

__all__ = ["Download", "download_all", "plan", "write_all"]

_AT_ONCE: Final = 8
_FILES_AT_ONCE: Final = 32  # of a folder
_CHUNK: Final = 1024 * 1024
_CLEANUP_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Download:
    """What comes from where.

    Attributes
    ----------
    url : `ObjectUrl`, `PresignedUrl` or `FileUrl`
        The object; with ``recursive``, the folder.
    path : `pathlib.Path`
        Where it belongs.
    """

    url: ObjectUrl | PresignedUrl | FileUrl
    path: Path


def plan(urls: Sequence[ObjectUrl | PresignedUrl | FileUrl], path: str | None, *, recursive: bool) -> list[Download]:
    """Decide where each belongs.

    Raises
    ------
    click.UsageError
        If one has no name, or several the same.
    """
    if path == "-":
        raise click.UsageError("cat writes to the standard output; for a file of this name, give ./-")
    inside = path is None or path.endswith("/") or Path(path).is_dir()
    if not inside and len(urls) > 1:
        raise click.UsageError('several files need a folder: end PATH with "/"')
    here = Path(path or "")
    downloads = [Download(url, here / _name(url, recursive=recursive) if inside else here) for url in urls]
    for each, count in Counter(download.path for download in downloads).items():
        if count > 1:
            msg = f"two of these would become {each}: download them to different folders"
            raise click.UsageError(msg)
    return downloads


def _name(url: ObjectUrl | PresignedUrl | FileUrl, *, recursive: bool) -> str:
    """Return the last part of a key or path."""
    if isinstance(url, FileUrl):
        return url.path.name
    key = url.key if isinstance(url, ObjectUrl) else url.place[2]
    name = (key.rstrip("/") if recursive else key).rpartition("/")[2]
    if not name and not recursive:
        msg = f"{key!r} is a folder: use -r to download its contents"
        raise click.UsageError(msg)
    return name


async def download_all(
    output: Output,
    places: Places,
    *,
    targets: Sequence[str],
    path: str | None,
    recursive: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Download what was planned, and tell the path of each file."""
    urls = [places.prefix(target) if recursive else places.target(target) for target in targets]
    if recursive and wait:
        raise click.UsageError("--wait waits for an object; nothing tells when a folder is complete")
    downloads = await in_thread(plan, urls, path, recursive=recursive)
    what = downloads[0].path.name if len(downloads) == 1 else f"{len(downloads)} files"
    async with Service() as service:
        with tally(output, f"get {what}") as counted:
            engine = _Engine(output, service, counted, wait, as_json)
            if recursive:
                await for_each(output, downloads, engine.fetch_folder)
            else:
                await for_each(output, downloads, engine.fetch, at_once=_AT_ONCE)


@dataclass(frozen=True, slots=True)
class _Engine:
    """Fetches what was planned, and tells what came."""

    output: Output
    service: Service
    counted: Tally
    wait: float
    as_json: bool

    def _tell(self, file: Path, size: int | None) -> None:
        self.counted.done(size)
        if self.as_json:
            self.output.json({"path": str(file), "size": size, "skipped": size is None})
        else:
            self.output.name(str(file))

    async def fetch(self, download: Download) -> None:
        url, file = download.url, download.path
        await in_thread(file.parent.mkdir, parents=True, exist_ok=True)
        if isinstance(url, ObjectUrl):
            size = await wait_for(lambda: _download(self.service, url, file, self.counted), self.wait)
        else:
            size = await wait_for(lambda: _save(url, file, self.counted), self.wait)
        self._tell(file, size)

    async def fetch_folder(self, download: Download) -> None:
        assert isinstance(download.url, ObjectUrl)  # noqa: S101 - for the type checker
        bucket, folder = self.service.bucket(download.url), download.path
        summary = await bucket._download_folder(  # noqa: SLF001 - internal to this package
            download.url.key,
            folder,
            self.counted.advance,
            skip_equal=True,
            must_exist=bool(download.url.key),
            max_files=_FILES_AT_ONCE,
            on_file=lambda name, size: self._tell(folder / name, size),
        )
        tell_failures(self.output, summary.failed.values())


async def _download(service: Service, url: ObjectUrl, path: Path, counted: Tally) -> int | None:
    """Download an object; return its size, or `None` if the file is equal to it already."""
    bucket = service.bucket(url)
    is_file = await in_thread(lambda: path.is_file() and not path.is_symlink())
    if is_file or counted.visible:
        info = await bucket.head(url.key)
        part_size = bucket._config.part_size  # noqa: SLF001 - internal to this package
        if is_file and await run_in_thread(is_same_file, path, info.size, info.etag, part_size):
            return None
        counted.expect(info.size)
    await bucket.download_file(url.key, path, counted.advance)
    return await in_thread(lambda: path.stat().st_size)


async def _save(url: PresignedUrl | FileUrl, path: Path, counted: Tally) -> int | None:
    if isinstance(url, FileUrl):
        if await in_thread(lambda: path.is_file() and filecmp.cmp(url.path, path, shallow=False)):
            return None
        counted.expect(await in_thread(lambda: url.path.stat().st_size))
    await save_url(url, path, counted.advance)
    return await in_thread(lambda: path.stat().st_size)


async def write_all(output: Output, places: Places, *, targets: Sequence[str], wait: float) -> None:
    """Write objects to the standard output, one after another."""
    urls = [places.target(target) for target in targets]
    # A reader that is slow, or has stopped, must hold neither the event loop nor the end of the process.
    thread = OwnThread("lsst_lfa-stdout")

    async def write(data: Buffer) -> None:
        await run_in_thread(_write, data, executor=thread)

    async with Service() as service:

        async def copy(url: ObjectUrl | PresignedUrl | FileUrl) -> None:
            if isinstance(url, ObjectUrl):
                bucket = service.bucket(url)
                if wait:
                    await wait_for(lambda: bucket.head(url.key), wait)
                async with bucket.stream(url.key) as chunks:
                    async for chunk in chunks:
                        await write(chunk)
            elif isinstance(url, FileUrl):
                await wait_for(lambda: _copy(url.path, write), wait)
            else:
                folder = await in_thread(tempfile.mkdtemp, prefix="lsst-lfa-")
                try:
                    path = Path(folder) / "data"
                    await wait_for(lambda: save_url(url, path, None), wait)
                    await _copy(path, write)
                finally:
                    await finish_in_thread(shutil.rmtree, folder, executor=threads("disk"), limit=_CLEANUP_TIMEOUT)

        try:
            await for_each(output, urls, copy)
        finally:
            thread.shutdown()


async def _copy(path: Path, write: Callable[[Buffer], Awaitable[None]]) -> None:
    async with open_source(path) as source:
        while views := await source.read(_CHUNK):
            for view in views:
                await write(view)


def _write(data: Buffer) -> None:
    # Not by Python's buffer: a thread that waits in it keeps the interpreter from ending.
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
