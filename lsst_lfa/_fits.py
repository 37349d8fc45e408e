"""FITS: HDU lists to and from bytes, away from the event loop.

astropy reads and writes, in threads, where numpy copies without the interpreter lock. What `load` read and nobody changed
is not written again: `dump` returns the bytes it came from. All else it writes from a snapshot: astropy changes what it
writes, and moves in the files it reads, so a snapshot has headers, rows and files of its own. Where astropy lacks a
private name that this takes, it writes the list itself, on the event loop: slower, but right.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import io
import os
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from astropy.io import fits

_BLOCK: Final = 1 << 22  # bytes that are converted, compared or copied at once
_NEEDED: Final = {  # private names of astropy's classes; CompImageHDU has its one since 7.0
    **{"HDUList": ("_file", "_read_all"), "_BaseHDU": ("_file", "_header"), "CompImageHDU": ("_bintable",)},
    **{"FITS_rec": ("_converted", "_col_weakrefs")},
}
_WRITE_DATA: Final = "_writedata_internal"  # an HDU's method; where it has another name, astropy copies the pixels
_SETTINGS: Final = ("compression_type", "tile_shape", "hcomp_scale", "quantize_level", "quantize_method", "dither_seed")
_origins: weakref.WeakKeyDictionary[Any, tuple[bytes, int, fits.Header]] = weakref.WeakKeyDictionary()
"""For an HDU of `load`: the bytes of its file, its place in there, and the header that it had at first."""
_threads = functools.cache(lambda _process: ThreadPoolExecutor(4, thread_name_prefix="lsst_lfa-fits"))


async def dump(hdulist: fits.HDUList) -> memoryview:
    """Serialise an HDU list as ``HDUList.writeto`` would.

    Parameters
    ----------
    hdulist : `astropy.io.fits.HDUList`
        The list. It is not changed, and can be used, and dumped again, meanwhile; whether pixels and rows that are
        changed meanwhile are in the result is not determined.

    Returns
    -------
    data : `memoryview`
        The bytes of the FITS file, which nobody changes any more. A list from `load` that was not changed gives the
        bytes that it was read from; if parts of it were, the data of the other HDUs are those that were read.

    Raises
    ------
    TypeError, ValueError, astropy.io.fits.VerifyError
        If it is not an HDU list; if it is empty; if it does not conform to the FITS standard.

    Notes
    -----
    Takes as much memory as the file, loaded tables and images to compress, and 0.4 ms of the event loop for 100 header
    cards. On the event loop is also what must not be in a thread: HCOMPRESS, whose C code is not thread-safe; file
    objects of the user's own class that are not read yet; and, before astropy 7.0, compressing.
    """
    if "astropy.io.fits" not in sys.modules or not isinstance(hdulist, sys.modules["astropy.io.fits"].HDUList):
        msg = f"hdulist must be an astropy.io.fits.HDUList, not {type(hdulist).__name__}"
        raise TypeError(msg)
    if not list.__len__(hdulist):
        raise ValueError("hdulist must have at least one HDU")
    snapshot = _Snapshot(hdulist)
    written = _write(snapshot) if snapshot.hcompress else await _in_thread(_write, snapshot)
    return _written(hdulist) if written is None else written


async def load(data: io.BytesIO) -> fits.HDUList:
    """Read an HDU list, with all its headers and data.

    Parameters
    ----------
    data : `io.BytesIO`
        The bytes of a FITS file, from the first one on, wherever the position is; not changed, nor needed afterwards.

    Returns
    -------
    hdulist : `astropy.io.fits.HDUList`
        The HDU list, and the bytes that it was read from, in memory: no access does I/O. Read on access are images
        compressed with HCOMPRESS, whose C code is not thread-safe, and data that astropy fails to read.

    Raises
    ------
    OSError
        If it is not a FITS file, or a truncated one.
    """
    return await _in_thread(_load, data.getvalue())


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread of ours, of this process: the event loop's own may all be waiting for us."""
    call = functools.partial(contextvars.copy_context().run, function, *args)
    return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), call)


def _import() -> None:
    global fits, np  # noqa: PLW0603  (imported when needed, in a thread: it takes 0.3 s)
    import numpy as np
    from astropy.io import fits


class _Reader(io.BytesIO):
    """A file in memory whose large reads copy nothing: numpy copies, without the lock."""

    def read(self, size: int | None = -1) -> Any:
        if size is None or size < _BLOCK:
            return super().read(size)
        start = self.tell()
        return memoryview(self.getvalue())[start : self.seek(start + size)]


def _open(data: bytes) -> fits.HDUList:
    return fits.open(_Reader(data), memmap=False, lazy_load_hdus=False)


def _load(data: bytes) -> fits.HDUList:
    _import()
    hdulist = _open(data)
    for index, hdu in enumerate(hdulist):
        try:
            if not _is_hcompress(hdu):
                hdu.data  # noqa: B018  (astropy reads data when they are asked for)
        except Exception as exc:
            place = hdu.fileinfo()
            if place["datLoc"] + place["datSpan"] > len(data):
                msg = f"the FITS file is truncated: HDU {index} goes on after its {len(data)} bytes"
                raise OSError(msg) from exc  # any other is for whoever asks for the data
        _origins[hdu] = data, index, hdu.header.copy()
    return hdulist


def _is_hcompress(hdu: Any) -> bool:
    return getattr(hdu, "compression_type", None) == "HCOMPRESS_1"


class _Snapshot:
    """An HDU list at rest, taken on the event loop in one go, so that no access by its owner falls in between."""

    def __init__(self, hdulist: fits.HDUList) -> None:
        self.complete, self.hcompress, self.state = _has_needed(hdulist), False, dict(vars(hdulist))
        self.files: dict[int, Callable[[], Any]] = {}
        owners = list(list.__iter__(hdulist))  # astropy's own would read the rest of the file
        self.origins = [_origins.get(hdu) for hdu in owners]
        self.hdus = [self._apart(hdu) for hdu in owners]
        if not self.state.get("_read_all"):
            self._keep_open(self.state.get("_file"))

    def _apart(self, hdu: Any) -> Any:
        """Copy an HDU and its header, but not its data, nor what astropy derived from them."""
        apart = copy.copy(hdu)
        state = vars(apart)
        self.complete &= _has_needed(hdu) and _has_needed(state.get("data"))
        if "_header" in state:  # else nobody has looked at it
            header = state["header" if "header" in state else "_header"] = hdu.header.copy()
            header._modified = hdu.header._modified  # noqa: SLF001  (a copy forgets it)
        self.hcompress |= _is_hcompress(hdu) and ("data" in state or hdu.header._modified)  # noqa: SLF001
        state.pop("columns", None)
        if state.get("_bintable"):
            state["_bintable"] = self._apart(hdu._bintable)  # noqa: SLF001
            vars(state["_bintable"]).pop("data", None)
        if "data" not in vars(hdu):
            self._keep_open(getattr(hdu, "_file", None))
        return apart

    def _keep_open(self, file: Any) -> None:
        """See to it that a file can be read without its owner, who may close it, or move its position."""
        raw = getattr(file, "_file", None)
        if raw is None or file.closed:
            return
        make: Any = functools.partial(type(file), mode="readonly", memmap=False)
        if isinstance(raw, io.BytesIO):
            self.files[id(file)] = lambda: make(_Reader(raw.getvalue()))
        elif file.file_like:
            self.complete = False
        elif id(file) not in self.files:
            number = os.dup(raw.fileno())
            weakref.finalize(self, os.close, number)  # not before the thread is done with it
            self.files[id(file)] = lambda: make(open(f"/proc/self/fd/{number}", "rb"))  # noqa: SIM115


def _has_needed(owner: Any) -> bool:
    kinds = type(owner).__mro__
    names = [name for kind in kinds for name in _NEEDED.get(kind.__name__, ())]
    return all(any(name in vars(each) for each in (owner, *kinds)) for name in names)


def _write(snapshot: _Snapshot) -> memoryview | None:
    """Write a snapshot, if it is complete; one of an unchanged file need not be."""
    _import()
    originals, whole = _originals(snapshot)
    if whole or not snapshot.complete:
        return memoryview(whole) if whole else None
    hdus = [original or hdu for original, hdu in zip(originals, snapshot.hdus, strict=True)]
    hdulist = fits.HDUList(hdus)
    vars(hdulist).update(snapshot.state)
    files = {key: make() for key, make in snapshot.files.items()}
    try:
        for owner in filter(None, (hdulist, *hdus, *(vars(hdu).get("_bintable") for hdu in hdus))):
            vars(owner)["_file"] = files.get(id(owner._file), owner._file)  # noqa: SLF001
        for hdu in hdulist:  # reads the rest of the file
            _make_ready(hdu)
        return _written(hdulist)
    finally:
        for file in files.values():
            file.close()


def _written(hdulist: fits.HDUList) -> memoryview:
    """Have astropy write a list to a real file without a name, in memory or else on disk, and take its bytes."""
    memory = getattr(os, "memfd_create", None)
    with open(memory("lsst_lfa-fits"), "wb") if memory else tempfile.TemporaryFile("wb") as file:
        hdulist.writeto(file)
        file.flush()
        data = np.empty(file.tell(), np.uint8)
        with open(file.fileno(), "rb", closefd=False) as written:
            for start in reversed(range(0, len(data), _BLOCK)):  # from its end: no byte takes memory twice for long
                written.seek(start)
                data[start : start + _BLOCK] = np.fromfile(written, np.uint8, _BLOCK)
                file.truncate(start)
        return data.data


def _make_ready(hdu: Any) -> None:
    """Give an HDU data that astropy may change, or cannot, when it writes them."""
    state, data = vars(hdu), vars(hdu).get("data")
    if "data" not in state and not hdu.header._modified:  # noqa: SLF001
        state["_data_needs_rescale"] = False  # scaled pixels go as they are, and with their scale
    elif isinstance(data, fits.FITS_rec):
        state["data"] = _own_rows(data)
    elif type(data) is np.ndarray and type(hdu) in {fits.PrimaryHDU, fits.ImageHDU} and not state.get("_scale_back"):
        state["data"] = data.view()
        state["data"].flags.writeable = False
        state[_WRITE_DATA] = functools.partial(_write_image, data)
    elif isinstance(data, np.ndarray):
        state["data"] = data.copy()
    if (
        getattr(data, "dtype", None) in {"f4", "f8"}
        and hdu.header.get("BITPIX", 0) > 0
        and not state.get("_scale_back")
    ):
        hdu.header.remove("BLANK", ignore_missing=True)  # it made floats of integers, which astropy forgets
        hdu.data = state["data"].view()


def _write_image(data: np.ndarray[Any, Any], file: Any) -> int:
    """Write an image's pixels, big-endian, a block at a time; astropy would copy them all."""
    pixels, step, kind = data.reshape(-1), _BLOCK // data.itemsize, f"u{data.itemsize}"
    for start in range(0, len(pixels), step):
        block = pixels[start : start + step]
        if data.dtype.kind == ("i" if data.itemsize == 1 else "u") and data.dtype != np.uint8:
            # These are stored with a BZERO of half their range: their highest bit, flipped.
            block = block.view(f"{data.dtype.byteorder}{kind}") ^ np.array(1 << (8 * data.itemsize - 1), kind)
        file.writearray(block.astype(block.dtype.newbyteorder(">")))
    return data.nbytes


def _own_rows(data: Any) -> Any:
    """Copy a table's rows, and its arrays of variable length: astropy changes both to write them."""
    converted = dict(data._converted)  # noqa: SLF001
    ours = {**vars(data), "_converted": converted, "_col_weakrefs": weakref.WeakSet()}
    view = np.ndarray.view(data, type(data))
    vars(view).update(ours)
    for column in data.columns:
        if column.ascii:
            view.field(column.name)  # astropy cannot write numbers that it has not read
        elif column.format.format in {"P", "Q"}:
            converted[column.name] = view.field(column.name).copy()
            arrays = converted[column.name].view(np.ndarray)
            arrays[:] = [*(array.copy() for array in arrays), None][:-1]
    rows = np.ndarray.view(data, np.ndarray)
    # Without the names of its fields numpy copies without the lock.
    copied = (rows.view(f"V{rows.itemsize}") if rows.itemsize else rows).copy()
    own = np.ndarray.__new__(type(data), rows.shape, rows.dtype, copied)
    vars(own).update(ours)
    return own


def _originals(snapshot: _Snapshot) -> tuple[list[Any], bytes | None]:
    """Find for each HDU its original, if reading that gives this HDU; and the bytes of the file that they all are."""
    files = {id(origin[0]): (_open(origin[0]), _open(origin[0])) for origin in snapshot.origins if origin}
    originals = []
    for hdu, (data, index, header) in zip(snapshot.hdus, [o or (None, 0, None) for o in snapshot.origins], strict=True):
        twins, unread = files.get(id(data), ([None], [None]))
        originals.append(unread[index] if header and _is_read_from(hdu, twins[index], header) else None)
    whole = [data for data, index, _ in filter(None, snapshot.origins) if list(files[id(data)][1]) == originals]
    return originals, whole[0] if whole else None


def _is_read_from(hdu: Any, twin: Any, header: fits.Header) -> bool:
    """Tell whether an HDU is what its original, not read yet, is read to, with this header."""

    def said(card: fits.Card) -> str:
        try:
            return repr((card.keyword, card.value, card.comment))
        except fits.VerifyError:
            return str(card.rawkeyword)  # formatting it would mend it

    settings = [[getattr(each, name, None) for name in _SETTINGS] for each in (hdu, twin)]
    if settings[0] != settings[1] or [*map(said, hdu.header.cards)] != [*map(said, header.cards)]:
        return False
    data = vars(hdu).get("data")
    columns = dict(data._converted) if isinstance(data, fits.FITS_rec) else {}  # noqa: SLF001
    same = data is None or _equal(data, twin.data)
    return same and all(_equal(field, twin.data.field(name)) for name, field in columns.items())


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two arrays are of the same kind, and the same to the last bit."""
    if any(getattr(one, name) != getattr(other, name) for name in ("__class__", "dtype", "shape")):
        return False
    if one.dtype.hasobject:
        return all(map(_equal, one.ravel(), other.ravel()))
    one, other = (np.ascontiguousarray(np.ndarray.view(each, np.ndarray)).reshape(-1) for each in (one, other))
    if one.dtype.names:  # what is between the fields is not read
        return all(_equal(one[name], other[name]) for name in one.dtype.names)
    one, other = (each.view(np.uint8) if each.nbytes else each for each in (one, other))
    return all((one[i : i + _BLOCK] == other[i : i + _BLOCK]).all() for i in range(0, len(one), _BLOCK))
