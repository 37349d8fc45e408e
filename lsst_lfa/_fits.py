"""FITS: HDU lists to and from bytes, away from the event loop.

astropy reads and writes, in threads, and through files whose bytes numpy copies: it releases the interpreter lock.
What this module adds is that nobody else is disturbed, and nobody else disturbs:

- `load` remembers what each HDU was read from. `dump` returns those very bytes for what was not changed since.
- `dump` takes a snapshot of the list on the event loop, where its owner uses it, and writes that in a thread: its
  headers are copies, its pixels are only read, its rows are copied, and what is still in a file is read through
  a handle of its own.

A snapshot needs private names of astropy's. Where one is missing, astropy writes the owner's list, on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import functools
import io
import os
import sys
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from astropy.io.fits import HDUList, Header

__all__ = ["dump", "load"]

_BLOCK: Final = 1 << 22
"""Bytes: how much is converted, compared or copied at once."""

_SMALL: Final = 1 << 16
"""Bytes: up to this much a read returns bytes of its own."""

_SCALING: Final = {"BSCALE", "BZERO", "BLANK"}

_COMPRESSION: Final = (
    *("compression_type", "tile_shape", "hcomp_scale", "hcomp_smooth"),
    *("quantize_level", "quantize_method", "dither_seed"),
)
"""Attributes of a compressed image that say how it is compressed."""


async def dump(hdulist: HDUList) -> memoryview:
    """Serialise an HDU list as ``HDUList.writeto`` would.

    Parameters
    ----------
    hdulist : `astropy.io.fits.HDUList`
        The list to serialise. It is not changed, so it can be used, and dumped again, meanwhile. What another thread
        or task changes in its pixels and rows meanwhile may or may not be in the result.

    Returns
    -------
    data : `memoryview`
        The bytes of the FITS file; nobody writes to them any more. An HDU list from `load` that was not changed gives
        the bytes that it was read from. So does each of its HDUs that was not changed, up to the padding.

    Raises
    ------
    TypeError
        If it is not an HDU list.
    ValueError
        If the list is empty.
    astropy.io.fits.VerifyError
        If it does not conform to the FITS standard.

    Notes
    -----
    Uses as much memory as the file is long. A table that is loaded, and an image that is to be compressed, need their
    own size once more.

    astropy joins the tiles of a compressed image, and the strings of a table, while it holds the interpreter lock:
    about 0.5 ms for each MB. Before astropy 7.0 compressed images that were changed are written on the event loop,
    and the list is changed as ``writeto`` changes it.
    """
    fits = sys.modules.get("astropy.io.fits")
    if fits is None or not isinstance(hdulist, fits.HDUList):
        msg = f"hdulist must be an astropy.io.fits.HDUList, not {type(hdulist).__name__}"
        raise TypeError(msg)
    if not list.__len__(hdulist):
        msg = "hdulist must have at least one HDU"
        raise ValueError(msg)
    written = await _in_thread(_write, await _snapshot(hdulist))
    return written if written is not None else _written(hdulist)


async def load(data: io.BytesIO) -> HDUList:
    """Read an HDU list, with all its headers and data.

    Parameters
    ----------
    data : `io.BytesIO`
        The bytes of a FITS file, from the first one on, wherever the position is. It is not changed, and not needed
        any more afterwards.

    Returns
    -------
    hdulist : `astropy.io.fits.HDUList`
        The HDU list, in memory: no access to it does I/O. It keeps the bytes that it was read from. The data of an
        HDU that astropy cannot read are left to be asked for, and raise then.

    Raises
    ------
    OSError
        If it is not a FITS file, or a truncated one.
    """
    return await _in_thread(_load, data.getvalue())


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread of ours: the loop's own may all be waiting for us."""
    call = functools.partial(contextvars.copy_context().run, function, *args)
    return await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), call)


@functools.cache
def _threads(_process: int) -> ThreadPoolExecutor:
    """Make the threads of a process; those of its parent did not come along."""
    return ThreadPoolExecutor(4, thread_name_prefix="lsst_lfa-fits")


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Origin:
    """What an HDU was read from, and what its header was then."""

    data: bytes
    index: int
    count: int
    header: Header


_origins: weakref.WeakKeyDictionary[Any, _Origin] = weakref.WeakKeyDictionary()


def _load(data: bytes) -> HDUList:
    hdulist = _open(data)
    for index, hdu in enumerate(hdulist):
        try:
            hdu.data  # noqa: B018  (astropy reads data when they are asked for)
        except Exception as exc:  # noqa: BLE001  (whoever asks for these data hears of it)
            where = hdu.fileinfo()
            if where["datLoc"] + where["datSpan"] > len(data):
                msg = f"the FITS file is truncated: it has {len(data)} bytes, and HDU {index} does not end there"
                raise OSError(msg) from exc
        _origins[hdu] = _Origin(data, index, len(hdulist), hdu.header.copy())
    return hdulist


def _open(data: bytes) -> HDUList:
    from astropy.io import fits

    return fits.open(_Reader(data), memmap=False, lazy_load_hdus=False)


class _Reader:
    """A file to read from whose large reads copy nothing: numpy does, without the lock."""

    closed = False

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self._position = 0

    def read(self, size: int = -1) -> bytes | memoryview:
        start, end = self._position, len(self.data)
        if size >= 0:
            end = min(start + size, end)
        self._position = max(start, end)
        part = memoryview(self.data)[start:end]
        return part if len(part) > _SMALL else bytes(part)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = start.get(whence, len(self.data)) + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Do nothing: there is nothing to release, and the data may still be asked for."""


# A snapshot: on the event loop, where nothing happens in between ------------------------------------------------------


@dataclass
class _Snapshot:
    """An HDU list at rest: nobody else changes these HDUs and headers."""

    state: dict[str, Any]
    """Attributes of the list: how far a file has been read into it, and how."""

    hdus: list[Any] = field(default_factory=list)
    origins: list[_Origin | None] = field(default_factory=list)
    handles: dict[int, Callable[[], Any]] = field(default_factory=dict)
    """How to open, for ourselves, the files that must still be read, by the ``id`` of astropy's object."""


async def _snapshot(hdulist: HDUList) -> _Snapshot:
    """Take a snapshot, and let others run after each HDU."""
    snapshot = _Snapshot(dict(vars(hdulist)))
    if not snapshot.state.get("_read_all", True):
        await _keep_open(snapshot, snapshot.state["_file"])
    for hdu in list(list.__iter__(hdulist)):  # astropy's own would read the rest of the file
        snapshot.hdus.append(_apart(hdu))
        snapshot.origins.append(_origins.get(hdu))
        if "data" not in vars(hdu):
            await _keep_open(snapshot, getattr(hdu, "_file", None))
        await asyncio.sleep(0)
    return snapshot


def _apart(hdu: Any) -> Any:
    """Copy an HDU and its header, but not its data; what astropy derived from them is left out."""
    apart = copy.copy(hdu)
    state = vars(apart)
    header = hdu.header.copy()
    header._modified = hdu.header._modified  # noqa: SLF001  (a copy forgets it)
    state["header" if "header" in state else "_header"] = header
    state.pop("columns", None)
    if state.get("_bintable") is not None:
        state["_bintable"] = _apart(hdu._bintable)  # noqa: SLF001
        vars(state["_bintable"]).pop("data", None)
    return apart


async def _keep_open(snapshot: _Snapshot, file: Any) -> None:
    """Make sure that we can read a file even if its owner closes it, and without moving its position."""
    if file is None or id(file) in snapshot.handles or file.closed:
        return
    raw = file._file  # noqa: SLF001
    if isinstance(raw, _Reader):
        handle: Callable[[], Any] = functools.partial(_Reader, raw.data)
    elif type(raw) is io.BytesIO:
        handle = functools.partial(_Reader, raw.getvalue())
    elif file.file_like:
        handle = functools.partial(_Reader, await _read_here(raw))
    else:
        handle = _Descriptor(raw.fileno()).open
    snapshot.handles[id(file)] = handle


async def _read_here(file: Any) -> bytearray:
    """Read a file of the user's own kind: nobody may do that at the same time, so it is done on the event loop."""
    data = bytearray()
    while True:
        file.seek(len(data))
        part = file.read(_BLOCK // 4)
        if not part:
            return data
        data += part
        await asyncio.sleep(0)


class _Descriptor:
    """A descriptor of our own of an open file; closed with its last reference, and so not under a thread's feet."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)

    def open(self) -> Any:
        """Open the same file once more, with a position of its own."""
        return open(f"/proc/self/fd/{self._descriptor}", "rb")  # noqa: SIM115  (its user closes it)

    def __del__(self) -> None:
        os.close(self._descriptor)


# Writing: in a thread -----------------------------------------------------------------------------------------------


def _write(snapshot: _Snapshot) -> memoryview | None:
    """Write a snapshot, unless it needs names that this astropy does not have."""
    from astropy.io import fits

    originals = _originals(snapshot)
    if all(originals) and _is_whole([origin for origin in snapshot.origins if origin]):
        return memoryview(snapshot.origins[0].data)
    hdus = [original or apart for original, apart in zip(originals, snapshot.hdus, strict=True)]
    if any(isinstance(hdu, fits.CompImageHDU) and "_bintable" not in vars(hdu) for hdu in hdus):
        return None
    hdulist = fits.HDUList(hdus)
    vars(hdulist).update(snapshot.state)
    with contextlib.ExitStack() as stack:
        files: dict[int, Any] = {}
        for owner in (hdulist, *hdus, *(vars(hdu).get("_bintable") for hdu in hdus)):
            file = getattr(owner, "_file", None)
            if id(file) in snapshot.handles:
                if id(file) not in files:
                    files[id(file)] = type(file)(snapshot.handles[id(file)](), mode="readonly", memmap=False)
                    stack.callback(files[id(file)].close)
                vars(owner)["_file"] = files[id(file)]
        for hdu in hdulist:  # reads the rest of the file
            _make_ready(hdu)
        return _written(hdulist)


def _written(hdulist: HDUList) -> memoryview:
    """Have astropy write a list to a file without a name, and take its bytes out of there."""
    import numpy as np

    with _unnamed_file() as descriptor, open(descriptor, "wb", closefd=False) as file:
        hdulist.writeto(file)
        file.flush()
        end = os.fstat(descriptor).st_size
        data = np.empty(end, np.uint8)
        with open(descriptor, "rb", closefd=False) as written:
            while end:  # from the end: no byte takes memory twice for long
                start = max(0, end - _BLOCK)
                written.seek(start)
                data[start:end] = np.fromfile(written, np.uint8, end - start)
                os.truncate(descriptor, start)
                end = start
        return data.data


@contextlib.contextmanager
def _unnamed_file() -> Iterator[int]:
    """Open a file in memory, or else on disk: numpy writes to a real one without the interpreter lock."""
    try:
        descriptor = os.memfd_create("lsst_lfa-fits")
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_ready(hdu: Any) -> None:
    """Keep astropy from what it would do to the data while it writes them."""
    import numpy as np
    from astropy.io import fits

    state = vars(hdu)
    data = state.get("data")
    if "data" not in state:
        # Scaled pixels go as they are, and with their scale.
        if not hdu.header._modified:  # noqa: SLF001
            state["_data_needs_rescale"] = False
    elif isinstance(data, fits.FITS_rec):
        state["data"] = _own_rows(data)
    elif isinstance(data, np.ndarray):
        if type(hdu) in {fits.PrimaryHDU, fits.ImageHDU} and type(data) is np.ndarray and not state.get("_scale_back"):
            state["data"] = data.view()
            state["data"].flags.writeable = False
            state["_writedata_internal"] = functools.partial(_write_image, data)
        else:
            state["data"] = data.copy()
        bitpix = 8 * data.dtype.itemsize * (-1 if data.dtype.kind == "f" else 1)
        if hdu.header.get("BITPIX") != bitpix and not state.get("_scale_back"):
            # astropy forgets this where BLANK has made floats of integers.
            hdu.header.remove("BLANK", ignore_missing=True)
            hdu.data = state["data"].view()


def _write_image(data: np.ndarray[Any, Any], file: Any) -> int:
    """Write an image's pixels, big-endian, a block at a time, where astropy would copy them all."""
    import numpy as np

    # Unsigned integers, and signed bytes, are stored with a BZERO of half their range: their highest bit, flipped.
    kind, bits = data.dtype.kind, 8 * data.dtype.itemsize
    flip = (kind == "u" and bits > 8) or (kind == "i" and bits == 8)  # noqa: PLR2004
    raw = data.view(f"{data.dtype.byteorder}u{bits // 8}") if flip else data
    raw = raw.reshape(-1) if raw.flags.c_contiguous else raw
    step = max(1, _BLOCK // max(1, raw[:1].nbytes))
    for start in range(0, len(raw), step):
        rows = raw[start : start + step]
        block = np.empty(rows.shape, rows.dtype.newbyteorder(">"))
        if flip:
            np.bitwise_xor(rows, rows.dtype.type(1 << (bits - 1)), out=block)
        else:
            np.copyto(block, rows)
        file.writearray(block)
    return data.nbytes


def _own_rows(data: Any) -> Any:
    """Copy a table's rows and arrays of variable length: astropy brings them into agreement with the columns."""
    import numpy as np

    ours = {**vars(data), "_converted": dict(data._converted), "_col_weakrefs": weakref.WeakSet()}  # noqa: SLF001
    view = np.ndarray.view(data, type(data))
    vars(view).update(ours)
    if data._load_variable_length_data:  # noqa: SLF001
        for column in data.columns:
            if column.format.format in {"P", "Q"}:
                arrays = view.field(column.name).copy()
                for index, array in enumerate(arrays.view(np.ndarray)):
                    arrays.view(np.ndarray)[index] = array.copy()
                ours["_converted"][column.name] = arrays
    rows = np.ndarray.view(data, np.ndarray)
    # Without the names of its fields numpy copies without the lock.
    copied = (rows.view(f"V{rows.itemsize}") if rows.itemsize else rows).copy()
    own = np.ndarray.__new__(type(data), rows.shape, rows.dtype, copied)
    vars(own).update(ours)
    return own


# What was not changed since it was read -----------------------------------------------------------------------------


def _originals(snapshot: _Snapshot) -> list[Any]:
    """List, for each HDU, its original, not read yet, if reading that gives this HDU; else `None`."""
    opened = {id(origin.data): (_open(origin.data), _open(origin.data)) for origin in snapshot.origins if origin}
    originals = []
    for hdu, origin in zip(snapshot.hdus, snapshot.origins, strict=True):
        original = None
        if origin and _cards(hdu.header) == _cards(origin.header):
            twins, unread = opened[id(origin.data)]
            if _is_twin(hdu, twins[origin.index], origin.data):
                original = unread[origin.index]
        originals.append(original)
    return originals


def _is_whole(origins: list[_Origin]) -> bool:
    """Tell whether these are all HDUs of one file, in its order."""
    first = origins[0]
    found = [origin.index for origin in origins if origin.data is first.data]
    return len(found) == len(origins) and found == list(range(first.count))


def _cards(header: Header) -> list[tuple[str, ...]]:
    """List what a header says. Formatting a card that breaks the standard would change it."""
    from astropy.io import fits

    cards = []
    for card in header.cards:
        try:
            cards.append((card.keyword, repr(card.value), card.comment))
        except fits.VerifyError:
            cards.append((card.rawkeyword,))
    return cards


def _is_twin(hdu: Any, twin: Any, source: bytes) -> bool:
    """Tell whether an HDU is what its original is read to."""
    import numpy as np
    from astropy.io import fits

    if type(hdu) is not type(twin) or any(getattr(hdu, k, None) != getattr(twin, k, None) for k in _COMPRESSION):
        return False
    data = vars(hdu).get("data")
    if data is None:
        return True
    if not isinstance(data, np.ndarray):
        return False
    stored = np.frombuffer(source, np.uint8)[twin.fileinfo()["datLoc"] :][: data.nbytes]
    if isinstance(data, fits.FITS_rec):
        converted = dict(data._converted)  # noqa: SLF001
        same = data.dtype == data.dtype.newbyteorder(">") and _equal(_bytes(data), stored)
        return same and all(_equal(array, twin.data.field(name)) for name, array in converted.items())
    if type(twin) in {fits.PrimaryHDU, fits.ImageHDU} and _SCALING.isdisjoint(twin.header):
        bits = twin.header["BITPIX"]
        dtype = np.dtype("u1" if bits == 8 else f">{'f' if bits < 0 else 'i'}{abs(bits) // 8}")  # noqa: PLR2004
        return (data.dtype, data.shape) == (dtype, twin.shape) and _equal(_bytes(data), stored)
    return _equal(data, twin.data)


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two arrays are of the same kind, and the same to the last bit."""
    if (type(one), one.dtype, one.shape) != (type(other), other.dtype, other.shape):
        return False
    if one.dtype.hasobject:
        return all(map(_equal, one.ravel(), other.ravel()))
    one, other = _bytes(one), _bytes(other)
    return all((one[i : i + _BLOCK] == other[i : i + _BLOCK]).all() for i in range(0, len(one), _BLOCK))


def _bytes(array: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    plain = np.ndarray.view(array, np.ndarray)
    if not plain.nbytes:
        return np.empty(0, np.uint8)
    return np.ascontiguousarray(plain.view(f"V{plain.itemsize}")).reshape(-1).view(np.uint8)
