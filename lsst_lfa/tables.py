"""FITS tables, written a slice of their rows at a time.

Astropy converts whole columns, and numpy holds the interpreter's lock while
it copies strings: that would stop the event loop for as long as it takes. So
astropy gets a slice of the rows after the other, and converts and writes it
as the small table that it is.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from astropy.io.fits import FITS_rec

__all__ = ["Table"]

_SLICE: Final = 1 << 23
"""Bytes: how much of a table is converted at once."""

_ARRAYS: Final = 1 << 12
"""Arrays of variable length: how many are written at once."""

_ASCII: Final = 128


class Table:
    """The rows and the heap of a table, to be written without changing it.

    Parameters
    ----------
    data : `astropy.io.fits.FITS_rec`
        The data of a table HDU.

    Attributes
    ----------
    data : `astropy.io.fits.FITS_rec`
        What an HDU needs of them for its header: the same rows, but columns
        and conversions of its own.
    """

    def __init__(self, data: FITS_rec) -> None:
        self.data = _over(np.ndarray.view(data), data, data.names, data._converted)  # noqa: SLF001
        # Bringing rows and columns into agreement is for the slices.
        vars(self.data)["_scale_back"] = _do_nothing
        variable = [column.name for column in data.columns if column.format.format in {"P", "Q"}]
        self._arrays = {name: self.data.field(name).copy() for name in variable}
        self._pointers = self._point()

    def write(self, hdu: Any, file: Any) -> int:
        """Write rows and heap as an empty HDU of the table's kind does.

        Returns
        -------
        size : `int`
            How many bytes that were.
        """
        size = 0
        for part in itertools.chain(self._rows(), self._heap()):
            vars(hdu)["data"] = part
            size += hdu._writedata_internal(file)  # noqa: SLF001
        return size

    def _point(self) -> FITS_rec:
        """Make the columns that say where in the heap the arrays will be."""
        data = self.data
        rows = np.empty(len(data), [(name, data.dtype[name]) for name in self._arrays])
        for name in self._arrays:
            rows[name] = data.view(np.ndarray)[name]
        pointers = _over(rows.view(type(data)), data, self._arrays, self._arrays)
        type(data)._scale_back(pointers)  # noqa: SLF001
        data._heapsize = pointers._heapsize  # noqa: SLF001
        return pointers

    def _rows(self) -> Iterator[FITS_rec]:
        """Yield all rows, as astropy has them in a file, but for the heap."""
        data = self.data
        fixed = {name: field for name, field in data._converted.items() if name not in self._arrays}  # noqa: SLF001
        width = data.itemsize + sum(field[:1].nbytes for field in fixed.values())
        step = max(1, _SLICE // max(1, width))
        for start in range(0, len(data), step):
            rows = slice(start, start + step)
            part = self._part(
                rows, {name: np.array(field[rows], order="C", subok=True) for name, field in fixed.items()}
            )
            for name in self._arrays:
                part.view(np.ndarray)[name] = self._pointers.view(np.ndarray)[name][rows]
            try:
                _scale_back(part)
            except ValueError as exc:
                exc.add_note(f"This is about the rows from {start} on, counted from there.")
                raise
            yield part

    def _heap(self) -> Iterator[FITS_rec]:
        """Yield the gap before the heap, then the heap, all without rows."""
        none = slice(0, 0)
        part = self._part(none, {})
        part._gap = self.data._gap  # noqa: SLF001
        yield part
        for name, arrays in self._arrays.items():
            step = max(1, min(_ARRAYS, _SLICE * len(arrays) // max(1, self.data._heapsize)))  # noqa: SLF001
            for start in range(0, len(arrays), step):
                few = arrays[start : start + step].copy()
                own = few.view(np.ndarray)
                for index, array in enumerate(own):
                    # Astropy may swap its bytes in place.
                    own[index] = array.copy()
                yield self._part(none, {name: few})

    def _part(self, rows: slice, converted: dict[str, Any]) -> FITS_rec:
        """Make a table of some rows, with nothing in its heap but the given arrays."""
        data = self.data
        # Without the names of its fields: with the bytes between them, and without the lock.
        copied = data.view(np.ndarray).view(f"V{data.itemsize}")[rows].copy()
        empty = {name: arrays[:0] for name, arrays in self._arrays.items()}
        raw = np.ndarray.__new__(type(data), copied.shape, data.dtype, copied)
        part = _over(raw, data, data.names, {**empty, **converted})
        part._gap = 0  # noqa: SLF001
        return part


def _over(rows: FITS_rec, data: FITS_rec, names: Iterable[str], converted: dict[str, Any]) -> FITS_rec:
    """Give rows what astropy keeps of a table's columns, but share nothing that it changes."""
    # Its own way to copy columns has them share their listeners.
    columns = [copy.copy(data.columns[name]) for name in names]
    for column in columns:
        # An array, or whose table's it is: that one would be converted.
        del column.array
    rows.__dict__ = {
        **vars(data),
        "_coldefs": type(data.columns)(columns),
        "_converted": dict(converted),
        "_col_weakrefs": weakref.WeakSet(),
    }
    return rows


def _scale_back(part: FITS_rec) -> None:
    """Bring a part's rows into agreement with its converted columns."""
    converted = part._converted  # noqa: SLF001
    if part.columns[0].ascii:
        if not converted:
            return
        for name in part.names:
            # Astropy cannot format what it has not parsed.
            part.field(name)
    else:
        for name, field in converted.items():
            converted[name] = _encoded(field, part.dtype.fields.get(name))
    type(part)._scale_back(part, update_heap_pointers=False)  # noqa: SLF001


def _encoded(field: Any, raw: tuple[np.dtype[Any], int] | None) -> Any:
    """Encode ASCII strings all at once; astropy encodes one at a time."""
    if raw and raw[0].kind == "S" and field.dtype.kind == "U" and 4 * raw[0].itemsize == field[:1].nbytes:
        codes = field.view(np.ndarray).view(f"{field.dtype.byteorder}u4")
        if codes.max() < _ASCII:
            return codes.astype("u1").view(f"S{field.dtype.itemsize // 4}")
    return field


def _do_nothing(**_: Any) -> None:
    """Stand in for a method."""
