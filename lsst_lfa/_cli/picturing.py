"""From an HDU to its picture: which HDU, which bytes of the file, and an image or a spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.fits_ranges import header_value, read_hdus

from .hdus import find_hdu
from .pictures import draw_image
from .runner import NotFoundError
from .spectra import choose_columns, draw_spectrum, read_columns, read_pixels, wavelength_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fits_files import FitsFile
    from .hdus import HduRow
    from .pictures import Picture

__all__ = ["choose_hdu", "draw_hdu", "picturable"]

_IMAGE = 2
"""Axes that make a picture."""


def choose_hdu(file: FitsFile) -> HduRow:
    """Return the first HDU with an image, or else the first with a spectrum.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found = picturable(file.rows)
    if found is None:
        kinds = ", ".join(f"{row.number} {row.kind} {row.shape_text}" for row in file.rows)
        msg = f"{file.name} has neither an image nor a spectrum: {kinds}"
        raise NotFoundError(msg)
    return found


def picturable(rows: Sequence[HduRow]) -> HduRow | None:
    """Return the first row that is an image, or else a spectrum; `None` if there is none."""
    images = (row for row in rows if row.dimensions >= _IMAGE)
    spectra = (row for row in rows if row.dimensions == 1 or choose_columns(row.columns) is not None)
    return next(images, None) or next(spectra, None)


async def draw_hdu(file: FitsFile, row: HduRow) -> Picture:
    """Read an HDU, and draw what is in it.

    Raises
    ------
    NotFoundError
        If nothing is in it that could be drawn.
    OSError
        If it is truncated, or cannot be read.
    """
    header = file.layout[row.number][1]
    table = _coordinates(file, header) if row.dimensions == 1 else None
    hdulist = await read_hdus(file.reader, [row.number] if table is None else [row.number, table[0]])
    try:
        picture = await in_thread(_draw, file, row, hdulist, table)
    except (NotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        # Whatever astropy, numpy or the codec finds wrong with the data.
        msg = f"{file.name}: HDU {row.number} cannot be drawn ({type(error).__name__}: {error})"
        raise OSError(msg) from error
    return picture


def _coordinates(file: FitsFile, header: Any) -> tuple[int, str] | None:
    """Return the HDU and the column with an image's coordinates, if it names a table that is there."""
    named = wavelength_table(header)
    if named is None:
        return None
    name, version, column = named
    try:
        row = find_hdu(file.rows, (name, version))
    except LookupError:
        return None
    return (row.number, column) if column in row.columns else None


def _draw(file: FitsFile, row: HduRow, hdulist: Any, table: tuple[int, str] | None) -> Picture:
    hdu = hdulist[0]
    data = hdu.data
    if data is None or not data.size:
        msg = f"{file.name}: HDU {row.number} has no data"
        raise NotFoundError(msg)
    if not row.is_table and row.dimensions >= _IMAGE:
        return draw_image(data)
    words = (header_value(hdu.header, name) for name in ("OBJECT", "INSTRUME", "DATE-OBS"))
    title = " ".join(str(word) for word in words if word)
    if row.is_table:
        columns = read_columns(hdu)
        if columns is None:
            msg = f"{file.name}: HDU {row.number} has no numbers that could be drawn"
            raise NotFoundError(msg)
        x, y = columns
    else:
        x, y = read_pixels(hdu, None if table is None else hdulist[1].data.field(table[1]))
    return draw_spectrum(x, y, title or file.reader.key.rpartition("/")[2])
