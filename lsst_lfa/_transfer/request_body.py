"""A body on its way up: from memory to the network, in slices."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING, Any, Self

from .concurrency import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .progress import BodyProgress
    from .timeouts import StallTimeout

__all__ = ["RepeatableBody", "RequestBody"]

# Below this a digest takes less time than a thread.
_HASH_INLINE = 128 * 1024
# Hashed at a time: between two of these a cancelled upload stops hashing.
_HASH_BLOCK = 8 * 1024 * 1024


class RequestBody:
    """A request's body, in memory: hashed off the loop, sent in slices.

    An async iterator for aiohttp, which would hold ``bytes`` up to the loop in
    one piece and read file objects 64 KiB at a time; a file object for
    botocore, which reads it when it computes a checksum of its own.

    Only copies leave it: a transport, or the traceback of an error, may keep
    what it was given for longer than the memory behind the views is ours. A
    slice is copied while the cache is about to need it anyway, which was
    measured to cost nothing.

    Parameters
    ----------
    views : sequence of `memoryview`
        The bytes.
    io_chunksize : `int`
        Bytes in a slice.
    progress : `BodyProgress`
        Is told of each slice that was taken.

    Attributes
    ----------
    sha256 : `str`
        What the signature needs, in hexadecimal digits, after `digest`.
    md5 : `str` or `None`
        For ``Content-MD5``, in Base64.
    """

    def __init__(self, views: Sequence[memoryview], io_chunksize: int, progress: BodyProgress) -> None:
        self._views = views
        self._chunksize = io_chunksize
        self._progress = progress
        self._timeout: StallTimeout | None = None
        self._position = 0
        self._size = sum(view.nbytes for view in views)
        self._sent = 0
        self._closed = False
        self.sha256 = ""
        self.md5: str | None = None

    async def digest(self, *, md5: bool) -> None:
        """Compute ``sha256``, and ``md5`` if asked for; in a thread, unless it is quick."""
        if self._size <= _HASH_INLINE:
            self._digest(md5=md5)
            return
        try:
            await in_thread(self._digest, md5=md5)
        finally:
            self._closed = True  # a thread that is left behind reads no further

    def _digest(self, *, md5: bool) -> None:
        sha256, content_md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        for view in self._views:
            for start in range(0, view.nbytes, _HASH_BLOCK):
                if self._closed:
                    return
                with view[start : start + _HASH_BLOCK] as block:
                    sha256.update(block)
                    if md5:
                        content_md5.update(block)
        self.sha256 = sha256.hexdigest()
        if md5:
            self.md5 = base64.b64encode(content_md5.digest()).decode()

    def watched_by(self, timeout: StallTimeout) -> Self:
        """Begin anew, and tell this attempt's time limit, no longer the last one's, of what is sent."""
        self._timeout = timeout
        self._position = 0
        return self

    @property
    def unsent(self) -> int:
        """Bytes that the network has not been handed yet."""
        return self._size - self._sent

    def _slices(self) -> Iterator[bytes]:
        for view in self._views:
            for start in range(0, view.nbytes, self._chunksize):
                yield bytes(view[start : start + self._chunksize])

    def __aiter__(self) -> AsyncIterator[bytes]:
        # Here, for aiohttp may send a body again by itself.
        self._progress.restart()
        self._sent = 0
        return _Slices(self._slices(), self)

    def handed_over(self, count: int) -> None:
        """Note that the network was handed ``count`` bytes more."""
        self._sent += count

    def taken(self, count: int) -> None:
        """Note that the network took ``count`` bytes more."""
        if self._timeout is not None:
            self._timeout.made_progress(count)
        self._progress.moved(count)

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        """Return the position that `read` has come to."""
        return self._position

    def seek(self, position: int) -> int:
        """Move to ``position``, for `read`."""
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes from the position on."""
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        pieces, base = [], 0
        for view in self._views:
            pieces.append(bytes(view[max(self._position - base, 0) : max(stop - base, 0)]))
            base += view.nbytes
        if self._timeout is not None:
            self._timeout.made_progress(stop - self._position)  # a checksum takes its time, or it is sent at once
        self._position = stop
        return b"".join(pieces)


class RepeatableBody:
    """A body that botocore wraps, in chunks of AWS's own: from its beginning each time.

    aiohttp may send it again by itself, and would find it read.

    Attributes
    ----------
    unsent : `int`
        0 when all of it was handed over, else more.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self.unsent = 1

    def __aiter__(self) -> Self:
        self._body.seek(0)
        self.unsent = 1
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await anext(self._body)
        except StopAsyncIteration:
            self.unsent = 0
            raise
        await asyncio.sleep(0)
        return chunk


class _Slices:
    """Hands out slices, and counts each when the next is asked for: then it was taken.

    Not an async generator: one that a broken request leaves unfinished would
    need a task to close it.
    """

    def __init__(self, slices: Iterator[bytes], body: RequestBody) -> None:
        self._slices = slices
        self._body = body
        self._handed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._handed:
            self._body.taken(self._handed)
            self._handed = 0
            # A socket that takes all at once would let nobody else have the loop.
            await asyncio.sleep(0)
        piece = next(self._slices, None)
        if piece is None:
            raise StopAsyncIteration
        self._handed = len(piece)
        self._body.handed_over(len(piece))
        return piece
