"""Reads HDU lists in a thread, and finds the originals of HDUs that have not been changed since.

astropy does not write back what it read: it rewrites scaled pixels, compresses
lossy ones again, sorts the heap of a table. So the bytes are kept, and an HDU
is unchanged if reading them again yields its header and its data.
"""

from __future__ import annotations

import io
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from astropy.io import fits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

_BLOCK: Final = 1 << 22  # bytes that are compared at once, and that a read copies at most
_SETTINGS: Final = (
    *("compression_type", "tile_shape", "hcomp_scale", "hcomp_smooth"),
    *("quantize_level", "quantize_method", "dither_seed"),
)
"""What determines, besides its header, how an image is compressed."""


class _Origin(NamedTuple):
    """The bytes of a file, the position of an HDU in it, and the header that the HDU had when it was read."""

    data: bytes
    place: int
    header: fits.Header


_origins: weakref.WeakKeyDictionary[Any, _Origin] = weakref.WeakKeyDictionary()


class _Reader(io.BytesIO):
    """A file in memory whose large reads copy nothing: numpy copies, without the interpreter lock."""

    def read(self, size: int | None = -1) -> Any:
        if size is None or size < _BLOCK:
            return super().read(size)
        start = self.tell()
        return memoryview(self.getvalue())[start : self.seek(start + size)]


def _open(data: bytes) -> fits.HDUList:
    return fits.open(_Reader(data), memmap=False, lazy_load_hdus=False)


def open_again(stack: ExitStack, kind: Any, source: bytes | int) -> Any:
    """Open bytes, or the file of a descriptor, as a file for astropy, with its own position."""
    raw = _Reader(source) if isinstance(source, bytes) else Path(f"/proc/self/fd/{source}").open("rb")  # noqa: SIM115
    return kind(stack.enter_context(raw), mode="readonly", memmap=False)


def read(data: bytes) -> fits.HDUList:
    """Read a file with all its data, except those that astropy cannot read, or not in a thread."""
    try:
        hdulist = _open(data)
    except OSError:
        raise
    except Exception as exc:
        msg = f"the FITS file has a damaged header ({type(exc).__name__}: {exc})"
        raise OSError(msg) from exc
    for place, hdu in enumerate(hdulist):
        try:
            if getattr(hdu, "compression_type", "") != "HCOMPRESS_1":
                hdu.data  # noqa: B018  (astropy reads data when they are asked for)
        except Exception as exc:
            info = hdu.fileinfo()
            if info["datLoc"] + info["datSpan"] > len(data):
                msg = f"the FITS file is truncated: HDU {place} goes on after its {len(data)} bytes"
                raise OSError(msg) from exc  # any other error is raised when the data are accessed
        _origins[hdu] = _Origin(data, place, hdu.header.copy())
    info = hdulist[-1].fileinfo()
    if data.startswith(b"XTENSION", info["datLoc"] + info["datSpan"]):  # of which astropy only warns
        msg = f"the FITS file is truncated or damaged: the header of HDU {len(hdulist)} cannot be read"
        raise OSError(msg)
    return hdulist


def find_originals(hdus: Sequence[Any], owners: Sequence[Any]) -> tuple[list[Any], bytes | None]:
    """Find the originals of HDUs that were not changed.

    Parameters
    ----------
    hdus, owners : `list`
        The HDUs; and the remembered ones, if these are copies of them.

    Returns
    -------
    originals : `list`
        For each HDU its original, whose data have not been read yet; `None` if
        the HDU was changed, or its origin is unknown.
    data : `bytes` or `None`
        The bytes of a file, if these are all of its HDUs in their order, and
        none was changed.
    """
    origins = [_origins.get(hdu) for hdu in owners]
    files = {id(origin.data): (_open(origin.data), _open(origin.data)) for origin in origins if origin}
    originals = []
    for hdu, origin in zip(hdus, origins, strict=True):
        original = None
        if origin:
            twins, unread = files[id(origin.data)]
            if _is_unchanged(hdu, twins[origin.place], origin.header):
                original = unread[origin.place]
        originals.append(original)
    first = origins[0]
    return originals, first.data if first and originals == list(files[id(first.data)][1]) else None


def _is_unchanged(hdu: Any, twin: Any, header: fits.Header) -> bool:
    """Return whether an HDU equals its twin, or will when its data are read, and still has the original header."""
    settings = [[getattr(each, name, None) for name in _SETTINGS] for each in (hdu, twin)]
    if settings[0] != settings[1] or list(map(_said, hdu.header.cards)) != list(map(_said, header.cards)):
        return False
    data = vars(hdu).get("data")
    if data is None:
        return True
    columns = _converted(data) if isinstance(data, fits.FITS_rec) else {}
    return _equal(data, twin.data) and all(_equal(field, twin.data.field(name)) for name, field in columns.items())


def _converted(data: fits.FITS_rec) -> dict[str, Any]:
    """Return the columns that are not views of a table's rows; or all, if astropy does not say which."""
    converted: dict[str, Any] | None = getattr(data, "_converted", None)
    return {name: data.field(name) for name in data.names} if converted is None else converted.copy()


def _said(card: fits.Card) -> str:
    """Return a card's text; formatting a card that violates the standard would repair it."""
    try:
        return repr((card.keyword, card.value, card.comment))
    except fits.VerifyError:
        return str(card.rawkeyword)


def _equal(one: Any, other: Any) -> bool:
    """Return whether two arrays have the same type, and are equal to the last bit."""
    if any(getattr(one, name) != getattr(other, name) for name in ("__class__", "dtype", "shape")):
        return False
    if one.dtype.hasobject:
        return all(map(_equal, one.ravel(), other.ravel()))
    one, other = (np.ascontiguousarray(np.ndarray.view(each, np.ndarray)).reshape(-1) for each in (one, other))
    if one.dtype.names:  # what is between the fields is not read
        return all(_equal(one[name], other[name]) for name in one.dtype.names)
    one, other = (each.view(np.uint8) if each.nbytes else each for each in (one, other))
    return all((one[i : i + _BLOCK] == other[i : i + _BLOCK]).all() for i in range(0, len(one), _BLOCK))
