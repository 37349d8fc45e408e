"""Views of memory that others own, and memory of our own."""

from __future__ import annotations

import asyncio
import mmap
import re
from contextlib import suppress
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["LentViews", "Part", "copied", "flat_view", "gather", "is_buffer", "new_memory", "release", "require_bytes"]

Part = list[memoryview]

# Shorter pieces are joined: many small views cost more than a copy.
_SMALL = 64 * 1024
# Copied in one turn of the event loop.
_COPY = 1024 * 1024
# PEP 3118: Python objects, and pointers. Text between colons is a name.
_REFERENCE = re.compile(r"[OP&X]")
_NAME = re.compile(r":[^:]*:")


def is_buffer(obj: Any) -> bool:
    """Whether ``obj`` can provide a view of its bytes."""
    try:
        memoryview(obj).release()
    except TypeError:
        return False
    return True


def require_bytes(view: memoryview) -> None:
    """Refuse memory that holds references, which mean nothing outside this process.

    Raises
    ------
    TypeError
        If it does.
    """
    if _REFERENCE.search(_NAME.sub("", view.format)):
        msg = f"cannot upload references to objects (format {view.format!r}): convert the array, or pickle it"
        raise TypeError(msg)


def flat_view(obj: Any) -> memoryview:
    """Return a view of the bytes of a C-contiguous buffer, in one dimension.

    `memoryview.cast` does not work for all of them: not for numbers in the
    other byte order, as in FITS, nor for records, nor for ctypes arrays.
    """
    return PickleBuffer(obj).raw()


async def copied(data: object) -> memoryview:
    """Return bytes of a source in memory that the source can no longer change."""
    if type(data) is bytes:
        return memoryview(data)
    if not is_buffer(data):
        msg = f"the source gave {type(data).__name__}, not bytes"
        raise TypeError(msg)
    with memoryview(data) as given:  # type: ignore[arg-type]
        require_bytes(given)
        if given.nbytes <= _COPY or not given.c_contiguous:
            return memoryview(given.tobytes())
        own = new_memory(given.nbytes)
        with flat_view(given) as flat:
            for start in range(0, flat.nbytes, _COPY):
                own[start : start + _COPY] = flat[start : start + _COPY]
                await asyncio.sleep(0)  # a copy blocks the loop, and a long one for too long
        return own


def new_memory(size: int) -> memoryview:
    """Return memory that does not come from malloc, which keeps for each thread what that thread once had."""
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def release(views: Iterable[memoryview]) -> None:
    """Let go of memory, whoever still has these views.

    After a failure the frames in the error's traceback have them, often until
    the garbage collector finds it; that counts objects, not bytes, so dozens
    of uploads may fail before it does.
    """
    for view in views:
        with suppress(BufferError):  # a thread that hangs uses it
            view.release()


class LentViews:
    """Views that were lent, as long as somebody has them."""

    def __init__(self) -> None:
        # By their identity, because a view that can be written to has no hash.
        self._views: WeakValueDictionary[int, memoryview] = WeakValueDictionary()

    def add(self, views: Iterable[memoryview]) -> None:
        """Note that these are lent as well."""
        self._views.update((id(view), view) for view in views)

    def release(self) -> None:
        """Release those that somebody still has."""
        release(list(self._views.values()))


async def gather(read: Callable[[int], Awaitable[memoryview]], size: int) -> Part:
    """Read exactly ``size`` bytes, or what is left, and join small pieces."""
    views: Part = []
    small = bytearray()
    while size and (piece := await read(size)).nbytes:
        size -= piece.nbytes
        if piece.nbytes < _SMALL:
            small += piece
            continue
        if small:
            views.append(memoryview(small))
            small = bytearray()
        views.append(piece)
    if small:
        views.append(memoryview(small))
    return views
