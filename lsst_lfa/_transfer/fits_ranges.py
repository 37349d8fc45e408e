"""FITS by ranges: the headers of a file, or some of its HDUs, without the rest.

The headers describe a file's layout: how long an HDU's data are, and so where
the next header begins. They are read one after another. astropy then reads
them from a file that contains nothing else, so that the headers are astropy's
own. The requested HDUs are read as a file that contains only them.

The source of the rules: FITS Standard 4.0, 3.1 (blocks), 4.4.1 (sizes), 6
(random groups).
"""

from __future__ import annotations

import io
import math
import operator
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from lsst_lfa import _fits

from .concurrency import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from astropy.io.fits import HDUList, Header

    Wanted = int | str | tuple[str, int]

__all__ = ["Reader", "StoredHdu", "check_hdus", "header_value", "read_hdus", "read_headers", "read_layout"]

_BLOCK: Final = 2880
# FITS standard 4.0, 4.4.1.1.
_MAX_AXES = 999
_CARD: Final = 80
_END: Final = b"END".ljust(_CARD)
# Most headers are shorter: 360 cards. For a longer one this is doubled until it fits.
_FIRST_READ: Final = 10 * _BLOCK
# gzip, bzip2, xz and zip, which astropy unpacks.
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"PK\3\4")
_EMPTY_PRIMARY: Final = (
    b"SIMPLE  =                    T".ljust(_CARD)
    + b"BITPIX  =                    8".ljust(_CARD)
    + b"NAXIS   =                    0".ljust(_CARD)
    + _END
).ljust(_BLOCK)


class Reader(Protocol):
    """The part of an open object that is needed here."""

    key: str
    size: int

    async def read_range(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop - 1``."""

    async def read_ranges(self, spans: Sequence[tuple[int, int]], prefix: bytes = b"") -> io.BytesIO:
        """Return ``prefix`` and some ranges, one after another."""


@dataclass(frozen=True)
class StoredHdu:
    """The position of an HDU in the file, and its header.

    Attributes
    ----------
    start : `int`
        Where its header begins.
    raw : `bytes`
        The header's bytes.
    header : `astropy.io.fits.Header`
        The header as it is stored: for a compressed image, that of the table
        that contains it.
    data_size : `int`
        Bytes of its data, without the padding of the last block.
    """

    start: int
    raw: bytes
    header: Header
    data_size: int

    @property
    def data(self) -> int:
        """Where its data begin."""
        return self.start + len(self.raw)

    @property
    def data_end(self) -> int:
        """Where its data end."""
        return self.data + self.data_size

    @property
    def stop(self) -> int:
        """Where the next HDU begins."""
        return self.data + -(-self.data_size // _BLOCK) * _BLOCK


async def read_headers(reader: Reader) -> list[Header]:
    """Read all headers of a FITS file, and no data.

    Raises
    ------
    OSError
        If it is not a FITS file.
    """
    return [header for _, header in await read_layout(reader)]


async def read_layout(reader: Reader) -> list[tuple[StoredHdu, Header]]:
    """Return the positions of a FITS file's HDUs, and their headers as astropy shows them.

    Raises
    ------
    OSError
        If it is not a FITS file.
    """
    hdus = await _scan(reader, lambda _: False)
    try:
        headers = await in_thread(_astropy_headers, hdus)
    except (LookupError, TypeError, ValueError) as error:
        msg = f"{reader.key} has a damaged header, which astropy cannot read ({type(error).__name__}: {error})"
        raise OSError(msg) from error
    return list(zip(hdus, headers, strict=False))


def check_hdus(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Check that these can name HDUs, whatever the file contains.

    Raises
    ------
    TypeError
        If one is neither a number, nor a name, nor a name and a version.
    ValueError
        If there is none.
    """
    if isinstance(wanted, (str, int)):
        msg = f"hdus is {wanted!r}; it must be a list, of one HDU too: [{wanted!r}]"
        raise TypeError(msg)
    checked = [_check_hdu(each) for each in wanted]
    if not checked:
        raise ValueError("hdus is empty: name at least one HDU, or leave it out for all")
    return checked


def _check_hdu(wanted: Any) -> Wanted:
    if isinstance(wanted, str):
        return wanted
    if isinstance(wanted, tuple) and len(wanted) == 2 and isinstance(wanted[0], str):  # noqa: PLR2004
        return wanted[0], int(wanted[1])
    try:
        return operator.index(wanted)  # numpy's integers, too
    except TypeError:
        msg = f"hdus has {wanted!r}; an HDU is a number, a name, or a tuple of name and version"
        raise TypeError(msg) from None


async def read_hdus(reader: Reader, wanted: Sequence[Wanted]) -> HDUList:
    """Read some HDUs of a FITS file, but not the data of the others.

    Raises
    ------
    LookupError
        If the file has no such HDU.
    OSError
        If it is not a FITS file, or is truncated.
    """
    hdus = await _scan(reader, lambda found: all(_find(found, each, complete=False) is not None for each in wanted))
    order = [_index(hdus, each) for each in wanted]
    spans, prefix = [], b"" if 0 in order else _EMPTY_PRIMARY
    for index in sorted(set(order)):
        hdu = hdus[index]
        if hdu.data_end > reader.size:
            msg = f"{reader.key} is truncated: its HDU {index} ends at byte {hdu.data_end} of {reader.size}"
            raise OSError(msg)
        spans.append((hdu.start, min(hdu.stop, reader.size)))
    hdulist = await _fits.load(await reader.read_ranges(spans, prefix))
    return await in_thread(_arrange, hdulist, order, 1 if prefix else 0)


def _arrange(hdulist: HDUList, order: list[int], first: int) -> HDUList:
    """Put HDUs in the requested order; from ``first`` on they are in the file's order."""
    from astropy.io import fits

    places = {index: first + place for place, index in enumerate(sorted(set(order)))}
    return fits.HDUList([hdulist[places[index]] for index in dict.fromkeys(order)])


async def _scan(reader: Reader, is_enough: Callable[[list[StoredHdu]], bool]) -> list[StoredHdu]:
    """Find one HDU after another, until there are enough."""
    hdus: list[StoredHdu] = []
    window = _Window(reader)
    position = 0
    while position < reader.size and not is_enough(hdus):
        raw = await _read_header(window, position, b"XTENSION" if hdus else b"SIMPLE  =")
        if raw == b"" and hdus:
            msg = f"{reader.key}: HDU {len(hdus)} is truncated or damaged: its header has no end"
            raise OSError(msg)
        if not raw:
            break
        hdus.append(await in_thread(_parse, raw, position, f"{reader.key}: HDU {len(hdus)}"))
        position = hdus[-1].stop
    if not hdus:
        msg = f"{reader.key} {_otherwise(await window.read(0, _BLOCK))}"
        raise OSError(msg)
    return hdus


def _otherwise(data: bytes) -> str:
    """Return what a file that is not FITS is, judging by its first bytes."""
    if data.startswith(_COMPRESSED):
        return "is not a FITS file, or is compressed as a whole, which download_fits(key) can read"
    if data.startswith(b"SIMPLE  ="):
        return "is not a FITS file, or is truncated: its header has no end"
    return "is not a FITS file" if data else "is not a FITS file: it is empty"


async def _read_header(window: _Window, start: int, begin: bytes) -> bytes | None:
    """Read a header, if there is one, or b"" if it has no end: anything may follow the last HDU."""
    # The buffer may already contain all of it.
    count = window.available(start) or _FIRST_READ
    searched = 0
    while True:
        data = await window.read(start, start + count)
        if not data.startswith(begin):
            return None
        for card in range(searched, len(data) - _CARD + 1, _CARD):
            if data.startswith(_END, card):
                return data[: -(-(card + _CARD) // _BLOCK) * _BLOCK]
        if len(data) < count:
            return b""
        searched = len(data) // _CARD * _CARD
        count = max(2 * count, _FIRST_READ)


class _Window:
    """The bytes that were read last, which may contain several short HDUs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._start = 0
        self._data = b""

    def available(self, start: int) -> int:
        """Return how many bytes from ``start`` on are buffered; 0 if they are not the beginning of a header."""
        count = self._start + len(self._data) - start
        return count if start >= self._start and count >= _BLOCK else 0

    async def read(self, start: int, stop: int) -> bytes:
        end = self._start + len(self._data)
        here = self._data[start - self._start :] if self._start <= start < end else b""
        if start + len(here) < min(stop, self._reader.size):
            here += await self._reader.read_range(start + len(here), stop)
        self._start, self._data = start, here
        return here


def _parse(raw: bytes, start: int, name: str) -> StoredHdu:
    from astropy.io import fits

    header = fits.Header.fromstring(raw)
    try:
        size = _data_size(header)
    except (LookupError, TypeError, ValueError, fits.VerifyError) as error:
        msg = f"{name} has a damaged header, so where its data end is not known ({type(error).__name__}: {error})"
        raise OSError(msg) from error
    if size < 0:
        msg = f"{name} has a damaged header: its data would have {size} bytes"
        raise OSError(msg)
    return StoredHdu(start, raw, header, size)


def _data_size(header: Any) -> int:
    """Return the number of bytes of an HDU's data, without the padding of the last block."""
    count = _integer(header, "NAXIS", 0)
    fields = _integer(header, "TFIELDS", 0)
    if not (0 <= count <= _MAX_AXES and 0 <= fields <= _MAX_AXES):  # astropy would count to whatever it is
        msg = f"NAXIS is {count}, TFIELDS {fields}"
        raise ValueError(msg)
    axes = [_integer(header, f"NAXIS{number}") for number in range(1, count + 1)]
    if axes and axes[0] == 0 and header.get("GROUPS") is True:
        axes = axes[1:]
    count = math.prod(axes) if axes else 0
    return (
        abs(_integer(header, "BITPIX")) // 8 * _integer(header, "GCOUNT", 1) * (_integer(header, "PCOUNT", 0) + count)
    )


def _integer(header: Any, keyword: str, default: int | None = None) -> int:
    value = header[keyword] if default is None else header.get(keyword, default)
    if not isinstance(value, int):
        msg = f"{keyword} is {value!r}"
        raise TypeError(msg)
    return value


def _index(hdus: list[StoredHdu], wanted: Wanted) -> int:
    found = _find(hdus, wanted, complete=True)
    if found is None:
        names = ", ".join(repr(_name(hdu, index)) for index, hdu in enumerate(hdus))
        msg = f"the file has no HDU {wanted!r}; it has {len(hdus)}: {names}"
        raise IndexError(msg) if isinstance(wanted, int) else KeyError(msg)
    return found


def _find(hdus: list[StoredHdu], wanted: Wanted, *, complete: bool) -> int | None:
    """Find an HDU by number, name, or name and version, as astropy does; `None` if it is not among these."""
    if isinstance(wanted, int):
        index = wanted + len(hdus) if wanted < 0 else wanted
        # Counting from the end is possible only when the end is known.
        return index if 0 <= index < len(hdus) and (complete or wanted >= 0) else None
    name, version = wanted if isinstance(wanted, tuple) else (wanted, None)
    for index, hdu in enumerate(hdus):
        is_named = _name(hdu, index) == name.strip().upper()
        if is_named and version in (None, header_value(hdu.header, "EXTVER", 1)):
            return index
    return None


def _name(hdu: StoredHdu, index: int) -> str:
    return str(header_value(hdu.header, "EXTNAME", "" if index else "PRIMARY")).strip().upper()


def header_value(header: Any, keyword: str, default: Any = None) -> Any:
    """Return a header's value, or the default if there is none, or if it violates the standard."""
    from astropy.io import fits

    try:
        return header.get(keyword, default)
    except fits.VerifyError:
        return default


def _astropy_headers(hdus: list[StoredHdu]) -> list[Header]:
    from astropy.io import fits

    with fits.open(_HeadersOnly(hdus), memmap=False, lazy_load_hdus=False) as hdulist:
        headers = [hdu.header for hdu in hdulist]
    # A header that astropy cannot handle is shown as it is stored.
    return headers + [hdu.header for hdu in hdus[len(headers) :]]


class _HeadersOnly(io.RawIOBase):
    """A FITS file without its data: zeros are read in their place."""

    def __init__(self, hdus: list[StoredHdu]) -> None:
        self._hdus = hdus
        self._size = hdus[-1].stop
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = base.get(whence, self._size) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        start = self._position
        stop = max(min(start + len(buffer), self._size), start)
        buffer[: stop - start] = bytes(stop - start)
        for hdu in self._hdus:
            low, high = max(start, hdu.start), min(stop, hdu.data)
            if low < high:
                buffer[low - start : high - start] = hdu.raw[low - hdu.start : high - hdu.start]
        self._position = stop
        return stop - start
