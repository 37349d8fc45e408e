"""The body of an upload: from memory to the network, in slices."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from typing import TYPE_CHECKING, Any, Self

from .hashing import hash_views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .attempts import Slots
    from .config import Integrity
    from .progress import BodyProgress
    from .timeouts import StallTimeout

__all__ = ["RepeatableBody", "RequestBody"]

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
_UNSIGNED = "UNSIGNED-PAYLOAD"


class RequestBody:
    """A request's body, in memory: hashed off the loop, sent in slices.

    It is an async iterator for aiohttp, which would block the loop with
    ``bytes`` in one piece, and would read a file object 64 KiB at a time. It
    is a file object for botocore, which reads it when it computes a checksum
    of its own.

    Only copies leave it, because a transport, or the traceback of an error,
    may keep them for longer than the memory behind the views is ours. Copying
    a slice just before it is sent costs nothing measurable, since it is then
    in the cache.

    Parameters
    ----------
    views : sequence of `memoryview`
        The bytes.
    io_chunksize : `int`
        Bytes in a slice.
    progress : `BodyProgress`
        Told of each slice that the network took.
    slots : `Slots`, optional
        Their lanes are told as well; and they limit the rate.

    Attributes
    ----------
    sha256 : `str`
        The digest for the signature, in hexadecimal, or ``UNSIGNED-PAYLOAD``;
        after `digest`.
    md5 : `str` or `None`
        For ``Content-MD5``, in Base64.
    """

    def __init__(
        self, views: Sequence[memoryview], io_chunksize: int, progress: BodyProgress, slots: Slots | None = None
    ) -> None:
        self._views = views
        self._chunksize = io_chunksize
        self._progress = progress
        self._slots = slots
        if slots is not None and slots.rate.chunk is not None:
            self._chunksize = min(io_chunksize, slots.rate.chunk)
        self._timeout: StallTimeout | None = None
        self._position = 0
        self._size = sum(view.nbytes for view in views)
        self._sent = 0
        self.sha256 = ""
        self.md5: str | None = None

    async def digest(self, integrity: Integrity) -> None:
        """Compute the digests that protect the body."""
        if integrity == "unsigned":
            self.sha256 = _UNSIGNED
            return
        md5 = integrity == "md5"
        sha256, content_md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        await hash_views(self._views, *([sha256, content_md5] if md5 else [sha256]))
        self.sha256 = sha256.hexdigest()
        if md5:
            self.md5 = base64.b64encode(content_md5.digest()).decode()

    def watched_by(self, timeout: StallTimeout) -> Self:
        """Start again, and report what is sent to the time limit of this attempt, no longer to that of the last one."""
        self._timeout = timeout
        self._position = 0
        return self

    @property
    def unsent(self) -> int:
        """Bytes that have not been handed to the network yet."""
        return self._size - self._sent

    def _slices(self) -> Iterator[bytes]:
        for view in self._views:
            for start in range(0, view.nbytes, self._chunksize):
                yield bytes(view[start : start + self._chunksize])

    def __aiter__(self) -> AsyncIterator[bytes]:
        # Here, because aiohttp may send a body again by itself.
        self._progress.restart()
        self._sent = 0
        return _Slices(self._slices(), self)

    async def hand_over(self, count: int) -> None:
        """Wait until ``count`` more bytes may be handed to the network."""
        if self._slots is not None and self._timeout is not None and self._slots.rate.chunk is not None:
            with self._timeout.suspended():
                await self._slots.rate.take(count)
        self._sent += count

    def taken(self, count: int) -> None:
        """Note that the network took ``count`` more bytes."""
        if self._timeout is not None:
            self._timeout.made_progress(count)
        if self._slots is not None:
            self._slots.up.moved(count)
        self._progress.moved(count)

    def __len__(self) -> int:
        return self._size

    def tell(self) -> int:
        """Return the position of `read`."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position of `read`, like any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes from the position."""
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        pieces, base = [], 0
        for view in self._views:
            pieces.append(bytes(view[max(self._position - base, 0) : max(stop - base, 0)]))
            base += view.nbytes
        if self._timeout is not None:
            self._timeout.made_progress(stop - self._position)  # computing a checksum takes time
        self._position = stop
        return b"".join(pieces)


class RepeatableBody:
    """A body that botocore wraps in AWS chunks, sent from its beginning each time.

    aiohttp may send it again by itself, and would find it already read.

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
    """Hands out slices, and counts each when the next is requested, for then it has been taken.

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
            # A socket that takes everything at once would block the loop.
            await asyncio.sleep(0)
        piece = next(self._slices, None)
        if piece is None:
            raise StopAsyncIteration
        self._handed = len(piece)
        await self._body.hand_over(len(piece))
        return piece
