"""FITS: HDU lists to and from bytes, away from the event loop.

All work is done in a thread, the import of astropy too. That is not enough:
a call that copies 200 MB while it holds the interpreter's lock, as
`io.BytesIO.read` and ``write`` do, stops the event loop for 0.1 s or more.
Numpy lets go of the lock while it copies and converts, so numpy does it here.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import io

    import numpy as np
    from astropy.io.fits import HDUList

__all__ = ["dump", "load"]

_HEADER_ALLOWANCE: Final = 1 << 16
"""Bytes: what a first guess of a file's size adds to each HDU's data."""


async def dump(hdulist: HDUList) -> memoryview:
    """Serialise an HDU list as ``HDUList.writeto`` would.

    Parameters
    ----------
    hdulist : `astropy.io.fits.HDUList`
        What to serialise. It is not changed, not even for a moment, as
        ``writeto`` does when it swaps the bytes of the data in place: so it
        can be used, and dumped again, while this goes on. What changes it
        meanwhile may or may not be in the result.

    Returns
    -------
    data : `memoryview`
        The bytes of the FITS file, which nothing else refers to.

    Raises
    ------
    TypeError
        If it is no HDU list.
    ValueError
        If the list is empty.
    astropy.io.fits.VerifyError
        If it does not conform to the FITS standard.

    Notes
    -----
    Uses as much memory as the file is long. A table that is loaded, and an
    image that is to be compressed, need their own size once more.

    An image that is compressed as one single tile, or has pixels of 64 bits,
    is put together by astropy in one piece, which holds the event loop: about
    0.6 ms for each compressed MB.
    """
    return await asyncio.to_thread(_dump, hdulist)


async def load(data: io.BytesIO) -> HDUList:
    """Read an HDU list, with all its headers and data.

    Parameters
    ----------
    data : `io.BytesIO`
        The bytes of a FITS file, from its first one on wherever the position
        is. It is not changed, and not needed any more afterwards.

    Returns
    -------
    hdulist : `astropy.io.fits.HDUList`
        The HDU list, in memory of its own: no access to it does I/O.

    Raises
    ------
    OSError
        If it is no FITS file, or a truncated one.
    """
    return await asyncio.to_thread(_load, data)


def _dump(hdulist: HDUList) -> memoryview:
    from astropy.io import fits

    if not isinstance(hdulist, fits.HDUList):
        kind = type(hdulist).__name__
        msg = f"hdulist must be an astropy.io.fits.HDUList, not {kind}"
        raise TypeError(msg)
    if len(hdulist) == 0:
        msg = "hdulist must have at least one HDU"
        raise ValueError(msg)
    snapshot = fits.HDUList([_apart(hdu) for hdu in hdulist])
    snapshot.verify("exception")
    sink = _Sink(sum(_size_guess(hdu) + _HEADER_ALLOWANCE for hdu in snapshot))
    snapshot.writeto(sink)
    return sink.written()


def _load(data: io.BytesIO) -> HDUList:
    from astropy.io import fits

    # Writable or shared, getvalue() does not copy; getbuffer() may.
    reader = _Reader(memoryview(data.getvalue()))
    hdulist = fits.open(reader, memmap=False, lazy_load_hdus=False)
    # Astropy's own would copy strings with the lock held.
    hdulist._file.readarray = reader.readarray  # noqa: SLF001
    for hdu in hdulist:
        hdu.data  # noqa: B018  (astropy reads data when they are asked for)
    hdulist.close()
    return hdulist


def _apart(hdu: Any) -> Any:
    """Make an HDU whose writing does not change the given one.

    Astropy's own copy would load, and so rescale, data not loaded yet. This
    one loads nothing: what is still in a file goes from file to file.
    """
    from astropy.io import fits

    from lsst_lfa.compressed import add_data
    from lsst_lfa.tables import Table

    apart = copy.copy(hdu)
    state = vars(apart)
    state["_header"] = hdu._header.copy()  # noqa: SLF001  (nothing public shares data)
    if state.get("_bintable") is not None:
        state["_bintable"] = _apart(hdu._bintable)  # noqa: SLF001
    data = state.get("data")
    if data is None:
        # Scaled pixels go as they are, and with their scale.
        state["_data_needs_rescale"] = False
    if isinstance(hdu, fits.CompImageHDU):
        state["_add_data_to_bintable"] = functools.partial(add_data, apart)
    if isinstance(data, fits.FITS_rec):
        # Writing brings its columns and its raw bytes into agreement.
        if type(hdu) in {fits.BinTableHDU, fits.TableHDU} and data._load_variable_length_data:  # noqa: SLF001
            table = Table(data)
            state["data"] = table.data
            state["_writedata_internal"] = functools.partial(table.write, type(hdu)())
        else:
            state["data"] = data.copy()
    elif _is_array(data):
        # Of what is read-only astropy makes a swapped copy.
        state["data"] = data.view()
        state["data"].flags.writeable = False
        if type(hdu) in {fits.PrimaryHDU, fits.ImageHDU}:
            # Even so: one pass without the lock, where astropy needs three.
            state["_writedata_internal"] = functools.partial(_write_image, data)
    return apart


def _is_array(data: object) -> bool:
    import numpy as np

    return isinstance(data, np.ndarray)


def _write_image(data: np.ndarray[Any, Any], file: Any) -> int:
    """Write an image's pixels: big-endian, unsigned ones less an offset."""
    import numpy as np

    # Unsigned integers, and signed bytes, are stored with a BZERO of half
    # their range: that is their highest bit, flipped.
    kind, bits = data.dtype.kind, 8 * data.dtype.itemsize
    flip = (kind == "u" and bits > 8) or (kind == "i" and bits == 8)  # noqa: PLR2004
    raw = data.view(f"{data.dtype.byteorder}u{bits // 8}") if flip else data
    sink: _Sink = file._file  # noqa: SLF001
    target = sink.reserve(data.nbytes).view(raw.dtype.newbyteorder(">"))
    target = target.reshape(data.shape)
    if flip:
        np.bitwise_xor(raw, raw.dtype.type(1 << (bits - 1)), out=target)
    else:
        np.copyto(target, raw)
    return target.nbytes


def _size_guess(hdu: Any) -> int:
    """Bytes that the data of an HDU may take."""
    loaded: int = getattr(vars(hdu).get("data"), "nbytes", 0)
    stored: int = hdu.size
    return max(loaded, stored)


class _Sink:
    """A file to write to, in memory that numpy fills."""

    closed = False

    def __init__(self, capacity: int) -> None:
        import numpy as np

        # What is not written to is no memory yet.
        self._memory = np.empty(capacity, np.uint8)
        self._used = 0

    def reserve(self, size: int) -> np.ndarray[Any, Any]:
        """Append bytes for the caller to fill, and return them as an array."""
        import numpy as np

        start, end = self._used, self._used + size
        if end > len(self._memory):
            larger = np.empty(end + end // 2, np.uint8)
            larger[:start] = self._memory[:start]
            self._memory = larger
        self._used = end
        return self._memory[start:end]

    def write(self, data: Any) -> int:
        import numpy as np

        size = memoryview(data).nbytes
        if size:
            self.reserve(size)[:] = np.frombuffer(data, np.uint8)
        return size

    def written(self) -> memoryview:
        return self._memory[: self._used].data

    def tell(self) -> int:
        return self._used

    def flush(self) -> None:
        """Do nothing: there is nothing behind this."""


class _Reader:
    """A file to read from, whose arrays numpy copies."""

    closed = False

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._position + size
        part = bytes(self._data[self._position : end])
        self._position += len(part)
        return part

    def readarray(self, *, offset: int, dtype: Any, shape: int | tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Copy an array, as the method of astropy's files does."""
        import numpy as np

        dtype = np.dtype(dtype)
        size = dtype.itemsize * int(np.prod(shape))
        part = self._data[offset : offset + size]
        if len(part) < size:
            msg = f"the FITS file is truncated: there are {len(part)} bytes where {size} should be"
            raise OSError(msg)
        return np.ndarray(shape, dtype, np.array(part))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = start.get(whence, len(self._data)) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Let go of the bytes; what was read of them has been copied."""
        self._data = memoryview(b"")
