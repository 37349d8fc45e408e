"""Compressed FITS images, compressed a few rows of tiles at a time.

Astropy joins all compressed tiles while it holds the interpreter's lock: that
would stop the event loop for as long as it takes. So astropy gets a slice of
the image after the other, and compresses it as the small image that it is;
numpy, which lets go of the lock, puts them together.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from astropy.io.fits import FITS_rec
from astropy.io.fits.hdu.compressed._tiled_compression import compress_image_data

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_data"]

_SLICE: Final = 1 << 23
"""Bytes: how much of an image is compressed at once."""

_POINTERS: Final = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA")
"""Columns that say how long each tile is, and where in the heap."""


def add_data(hdu: Any, table: Any) -> None:
    """Compress an image, to the same bytes as the HDU's own method.

    Parameters
    ----------
    hdu : `astropy.io.fits.CompImageHDU`
        The image.
    table
        The HDU that is written for it; its rows and its heap are yet to come.
    """
    if hdu.data is None or not hdu.data.size or hdu.data.dtype.str[1:] in {"i8", "u8"}:
        # Of 64 bits, astropy must see all, to know whether 32 are enough.
        type(hdu)._add_data_to_bintable(hdu, table)  # noqa: SLF001
        return
    dtype = table.columns.dtype.newbyteorder(">")
    rows, heaps, end = [], [], 0
    for piece, count in _compress(hdu, table):
        some = np.frombuffer(piece, dtype, count).copy()
        heap = np.frombuffer(piece, np.uint8, offset=some.nbytes)
        for name in set(_POINTERS).intersection(dtype.names):
            some[name][:, 1] += np.where(some[name][:, 0] > 0, end, 0)
        rows.append(some)
        heaps.append(heap)
        end += len(heap)
    raw = np.concatenate([*(some.view(np.uint8) for some in rows), *heaps])
    data = raw[: len(raw) - end].view(dtype).view(np.recarray).view(FITS_rec)
    vars(data).update(
        _load_variable_length_data=False, _coldefs=table.columns, _heapoffset=len(raw) - end, _heapsize=end
    )
    table.data = data


def _compress(hdu: Any, table: Any) -> Iterator[tuple[bytes, int]]:
    """Yield the rows and the heap of slice after slice, and how many tiles are in it."""
    data, tile = hdu.data, hdu.tile_shape
    across = math.prod(-(-size // step) for size, step in zip(data.shape[1:], tile[1:], strict=True))
    step = tile[0] * max(1, _SLICE // max(1, tile[0] * data[:1].nbytes))
    for start in range(0, len(data), step):
        part = data[start : start + step]
        header = table.header.copy()
        header[f"ZNAXIS{data.ndim}"] = len(part)
        # Random numbers for each tile are chosen by its place in the image.
        header["ZDITHER0"] = header.get("ZDITHER0", 0) + start // tile[0] * across
        piece = compress_image_data(part, hdu.compression_type, header, table.columns)
        if "ZBLANK" in header:
            table.header["ZBLANK"] = header["ZBLANK"]
        yield piece, across * -(-len(part) // tile[0])
