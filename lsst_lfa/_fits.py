"""FITS: HDU lists to and from bytes, off the event loop.

astropy reads and writes in threads, where numpy copies without the interpreter
lock. HDUs that were read and not changed are not written again (see
`_fits_reading`). All others are written from a snapshot: astropy changes what
it writes, and moves the position of files that it reads, so a snapshot has its
own headers, rows and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import importlib
import io
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet, finalize

if TYPE_CHECKING:
    import numpy as np
    from astropy.io.fits import HDUList

_BLOCK: Final = 1 << 22  # bytes that are converted or copied at once
_NEEDED: Final = {  # private names of astropy; a list without them is written on the event loop: slower, but correct
    "HDUList": ("_file", "_read_all"),
    "_BaseHDU": ("_file", "_header"),
    "CompImageHDU": ("_bintable",),  # since astropy 7.0
    "FITS_rec": ("_converted", "_col_weakrefs"),
}
_WRITE_DATA: Final = "_writedata_internal"  # an HDU's method; where it has another name, astropy copies the pixels
_threads = functools.cache(lambda _process: ThreadPoolExecutor(4, thread_name_prefix="lsst_lfa-fits"))


async def dump(hdulist: HDUList) -> memoryview:
    """Serialise an HDU list as ``HDUList.writeto`` would.

    Parameters
    ----------
    hdulist : `astropy.io.fits.HDUList`
        The list. It is not changed, and may be used and dumped again at the
        same time. If its pixels or rows are modified in the meantime, it is
        undefined whether the result contains the changes.

    Returns
    -------
    data : `memoryview`
        The bytes of the FITS file, which do not change any more. A list from
        `load` that was not changed yields the bytes that it was read from; if
        parts of it were changed, the data of the other HDUs are those that
        were read.

    Raises
    ------
    TypeError, ValueError, astropy.io.fits.VerifyError
        If it is not an HDU list; if it is empty; if it does not conform to the FITS standard.

    Notes
    -----
    Takes as much memory as the file, loaded tables and images to compress; and
    0.4 ms of the event loop for 100 header cards. The event loop also does the
    work that must not happen in a thread: HCOMPRESS, whose C code is not
    thread-safe; reading from a file object of the user's own class; and,
    before astropy 7.0, compression.
    """
    if "astropy.io.fits" not in sys.modules or not isinstance(hdulist, sys.modules["astropy.io.fits"].HDUList):
        msg = f"hdulist must be an astropy.io.fits.HDUList, not {type(hdulist).__name__}"
        raise TypeError(msg)
    if not list.__len__(hdulist):
        raise ValueError("hdulist must have at least one HDU")
    snapshot = _Snapshot(hdulist)
    written = _write(snapshot) if snapshot.hcompress else await _in_thread(lambda: _write(snapshot))
    return _written(hdulist) if written is None else written


async def load(data: io.BytesIO) -> HDUList:
    """Read an HDU list, with all its headers and data.

    Parameters
    ----------
    data : `io.BytesIO`
        The bytes of a FITS file, from the first one, whatever the position;
        neither changed nor needed afterwards.

    Returns
    -------
    hdulist : `astropy.io.fits.HDUList`
        The HDU list, with the bytes that it was read from, in memory: no
        access does I/O. Images compressed with HCOMPRESS (see `dump`), and
        data that astropy fails to read, are read on access.

    Raises
    ------
    OSError
        If it is not a FITS file, or is truncated.
    """
    source = data.getvalue()
    return await _in_thread(lambda: importlib.import_module("lsst_lfa._fits_reading").read(source))


async def _in_thread(function: Any) -> Any:
    """Call a function in a thread of our own: those of the event loop's executor may all be waiting for us."""
    call = functools.partial(contextvars.copy_context().run, function)
    return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), call)


class _Snapshot:
    """A snapshot of an HDU list, taken on the event loop in one step, so that its owner cannot interfere."""

    def __init__(self, hdulist: HDUList) -> None:
        self.state, self.hcompress = dict(vars(hdulist)), False
        self.lacking: list[Any] = []  # HDUs that cannot be written from here
        self.files: dict[int, tuple[type, bytes | int]] = {}  # what to open again
        self.owners = list(list.__iter__(hdulist))  # the HDUs; astropy's own would read the rest of the file
        self.hdus = [self._apart(hdu) for hdu in self.owners]
        self.complete = _has_needed(hdulist) and (self.state["_read_all"] or self._keep_open(self.state["_file"]))

    def _apart(self, hdu: Any) -> Any:
        """Copy an HDU and its header, but neither its data nor what astropy derived from them."""
        apart = copy.copy(hdu)
        state = vars(apart)
        if "_header" in state:  # otherwise nobody has looked at it
            header = state["header" if "header" in state else "_header"] = hdu.header.copy()
            header._modified = hdu.header._modified  # noqa: SLF001  (a copy forgets it)
        if getattr(hdu, "compression_type", "") == "HCOMPRESS_1":
            self.hcompress |= "data" in state or hdu.header._modified  # noqa: SLF001
        state.pop("columns", None)
        if state.get("_bintable"):
            state["_bintable"] = self._apart(hdu._bintable)  # noqa: SLF001
            vars(state["_bintable"]).pop("data", None)
        readable = "data" in state or self._keep_open(getattr(hdu, "_file", None))
        if not (readable and _has_needed(hdu) and _has_needed(state.get("data"))):
            self.lacking.append(apart)
        return apart

    def _keep_open(self, file: Any) -> bool:
        """Make a file readable independently of its owner, who may close it, or move its position."""
        raw = getattr(file, "_file", None)
        if raw is None or file.closed:
            return True  # nothing to read, or astropy says so
        if isinstance(raw, io.BytesIO):
            self.files[id(file)] = (type(file), raw.getvalue())
        elif not file.file_like and id(file) not in self.files:
            number = os.dup(raw.fileno())
            finalize(self, os.close, number)  # not before the thread is done with it
            self.files[id(file)] = (type(file), number)
        return id(file) in self.files


def _has_needed(owner: Any) -> bool:
    names = [name for kind in type(owner).__mro__ for name in _NEEDED.get(kind.__name__, ())]
    return all(any(name in vars(each) for each in (owner, *type(owner).__mro__)) for name in names)


def _write(snapshot: _Snapshot) -> memoryview | None:
    """Write a snapshot, if it is complete; that of an unchanged file need not be."""
    from astropy.io import fits

    from lsst_lfa import _fits_reading

    originals, whole = _fits_reading.find_originals(snapshot.hdus, snapshot.owners)
    if whole:
        return memoryview(whole)
    hdus = [original or hdu for original, hdu in zip(originals, snapshot.hdus, strict=True)]
    if not snapshot.complete or any(hdu in snapshot.lacking for hdu in hdus):
        return None
    hdulist = fits.HDUList(hdus)
    vars(hdulist).update(snapshot.state)
    with contextlib.ExitStack() as stack:
        files = {key: _fits_reading.open_again(stack, *source) for key, source in snapshot.files.items()}
        for owner in (hdulist, *hdus, *[vars(hdu)["_bintable"] for hdu in hdus if vars(hdu).get("_bintable")]):
            vars(owner)["_file"] = files.get(id(owner._file), owner._file)  # noqa: SLF001
        for hdu in hdulist:  # reads the rest of the file
            _make_ready(hdu)
        return _written(hdulist)


def _written(hdulist: HDUList) -> memoryview:
    """Let astropy write a list to a real file without a name, in memory or otherwise on disk, and return its bytes."""
    import numpy as np

    memory = getattr(os, "memfd_create", None)
    with os.fdopen(memory("lsst_lfa-fits"), "wb") if memory else tempfile.TemporaryFile("wb") as file:
        hdulist.writeto(file)
        file.flush()
        data = np.empty(file.tell(), np.uint8)
        with os.fdopen(file.fileno(), "rb", closefd=False) as written:
            for start in reversed(range(0, len(data), _BLOCK)):  # from its end: no byte is in memory twice for long
                written.seek(start)
                data[start : start + _BLOCK] = np.fromfile(written, np.uint8, _BLOCK)
                file.truncate(start)
        return data.data


def _make_ready(hdu: Any) -> None:
    """Give an HDU data that astropy may change when it writes them, or that it cannot change."""
    import numpy as np
    from astropy.io import fits

    state, data = vars(hdu), vars(hdu).get("data")
    if "data" not in state and not hdu.header._modified:  # noqa: SLF001
        state["_data_needs_rescale"] = False  # scaled pixels are written unchanged, with their scale
    elif isinstance(data, fits.FITS_rec):
        state["data"] = _own_rows(data)
    elif isinstance(data, np.ndarray):
        scale_back, state["data"] = state.get("_scale_back"), data.view()
        if type(data) is np.ndarray and type(hdu) in {fits.PrimaryHDU, fits.ImageHDU} and not scale_back:
            state["data"].flags.writeable = False
            state[_WRITE_DATA] = functools.partial(_write_image, data)
        else:
            state["data"] = data.copy()
        if data.dtype.kind == "f" and hdu.header.get("BITPIX", 0) > 0 and not scale_back:
            hdu.header.remove("BLANK", ignore_missing=True)  # it made floats of integers, which astropy forgets
            hdu.data = state["data"].view()


def _write_image(data: np.ndarray[Any, Any], file: Any) -> int:
    """Write an image's pixels, big-endian, block by block; astropy would copy them all."""
    pixels, step, bits = data.reshape(-1), _BLOCK // data.itemsize, 8 * data.itemsize
    flip = data.dtype.kind == ("i" if bits == 8 else "u")  # noqa: PLR2004
    for start in range(0, len(pixels), step):
        block = pixels[start : start + step]
        if flip:  # stored with a BZERO of half the range: the highest bit, flipped
            block = block.view(f"{data.dtype.byteorder}u{data.itemsize}")
            block = block ^ block.dtype.type(1 << (bits - 1))
        file.writearray(block.astype(block.dtype.newbyteorder(">")))
    return data.nbytes


def _own_rows(data: Any) -> Any:
    """Copy a table's rows, columns and arrays of variable length, because astropy changes them to write them."""
    import numpy as np

    columns = [copy.copy(column) for column in data.columns]
    for column in columns:
        del column.array  # it belongs to the owner
    fields = dict(data._converted)  # noqa: SLF001
    ours = vars(data) | {"_coldefs": type(data.columns)(columns), "_converted": fields, "_col_weakrefs": WeakSet()}
    view = np.ndarray.view(data, type(data))
    vars(view).update(ours)
    for column in columns:
        if column.ascii:
            view.field(column.name)  # astropy cannot write numbers that it has not read
        elif column.format.format in {"P", "Q"}:
            fields[column.name] = view.field(column.name).copy()
            arrays = fields[column.name].view(np.ndarray)
            for index, array in enumerate(arrays):
                arrays[index] = array.copy()
    rows = np.ndarray.view(data, np.ndarray)
    copied = (rows.view(f"V{rows.itemsize}") if rows.itemsize else rows).copy()  # fields need the interpreter lock
    own = np.ndarray.__new__(type(data), rows.shape, rows.dtype, copied)
    vars(own).update(ours)
    return own
