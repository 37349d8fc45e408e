"""FITS files wherever they are, of which only what is needed is read: objects by ranges, files on this machine."""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from lsst_lfa import download_url
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.fits_ranges import read_layout
from lsst_lfa._urls import FileUrl, PresignedUrl, object_url
from lsst_lfa.errors import LfaError

from .hdus import HduRow, describe, find_hdu
from .runner import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from astropy.io.fits import Header

    from lsst_lfa._transfer.fits_ranges import Reader, StoredHdu
    from lsst_lfa._urls import ObjectUrl

    from .targets import Places, Service

__all__ = ["FitsFile", "hdu_row", "open_fits", "parse_hdu"]

_GZIP = b"\x1f\x8b"


class FitsFile(NamedTuple):
    """An open FITS file, and what is in it.

    Attributes
    ----------
    name : `str`
        What it is called in messages: a URL without secrets, or a path.
    reader : `Reader`
        Reads ranges of it.
    layout : `list`
        Where its HDUs are, and their headers.
    rows : `list` [`HduRow`]
        The table of its HDUs.
    """

    name: str
    reader: Reader
    layout: list[tuple[StoredHdu, Header]]
    rows: list[HduRow]


def parse_hdu(text: str) -> int | str | tuple[str, int]:
    """Read what names an HDU: ``1``, ``SCI``, or ``SCI,2``."""
    try:
        return int(text)
    except ValueError:
        name, _, version = text.rpartition(",")
        return (name, int(version)) if name and version.strip().isdecimal() else text


def hdu_row(file: FitsFile, wanted: int | str | tuple[str, int]) -> HduRow:
    """Return the HDU that was asked for.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    try:
        return find_hdu(file.rows, wanted)
    except LookupError as error:
        msg = f"{file.name}: {error.args[0]}"
        raise NotFoundError(msg) from None


@asynccontextmanager
async def open_fits(service: Service, places: Places, text: str) -> AsyncIterator[FitsFile]:
    """Open a FITS file by a URL of any kind, or a path, and read its headers."""
    target = places.target_or_path(text)
    if isinstance(target, FileUrl):
        with await in_thread(_FileReader, target.path) as reader:
            yield await _read(str(target.path), reader)
    elif isinstance(target, PresignedUrl):
        # Without credentials, and with a signature of one request: all of it is downloaded.
        name = object_url(*target.place)
        yield await _read(name, _MemoryReader(name, (await download_url(text)).getvalue()))
    else:
        async with _opened_object(service, target) as file:
            yield file


@asynccontextmanager
async def _opened_object(service: Service, target: ObjectUrl) -> AsyncIterator[FitsFile]:
    bucket = service.bucket(target)
    async with bucket.open(target.key) as reader:
        yield await _read(bucket.url(target.key), reader)


async def _read(name: str, reader: Reader) -> FitsFile:
    try:
        layout = await read_layout(reader)
    except LfaError:
        raise
    except OSError:
        if await reader.read_range(0, len(_GZIP)) != _GZIP:
            raise
        data = await reader.read_range(0, reader.size)
        reader = _MemoryReader(reader.key, await in_thread(_unpack, reader.key, data))
        layout = await read_layout(reader)
    return FitsFile(name, reader, layout, describe(layout))


def _unpack(name: str, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{name} begins as a gzip file, but cannot be unpacked: {error}"
        raise OSError(msg) from error


class _MemoryReader:
    """Reads ranges of what is in memory."""

    def __init__(self, key: str, data: bytes) -> None:
        self.key = key
        self.size = len(data)
        self._data = data

    async def read_range(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]

    async def read_ranges(self, spans: Sequence[tuple[int, int]], prefix: bytes = b"") -> io.BytesIO:
        return io.BytesIO(b"".join([prefix, *(self._data[start:stop] for start, stop in spans)]))


class _FileReader:
    """Reads ranges of a file on this machine; a context manager that closes it. Making one blocks."""

    def __init__(self, path: Path) -> None:
        self.key = str(path)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            msg = f"{path} is not a regular file"
            raise OSError(msg)
        self._file = path.open("rb")
        self.size = status.st_size

    async def read_range(self, start: int, stop: int) -> bytes:
        return await in_thread(self._read, start, max(stop - start, 0))

    async def read_ranges(self, spans: Sequence[tuple[int, int]], prefix: bytes = b"") -> io.BytesIO:
        return io.BytesIO(b"".join([prefix, *[await self.read_range(start, stop) for start, stop in spans]]))

    def _read(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return self._file.read(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
