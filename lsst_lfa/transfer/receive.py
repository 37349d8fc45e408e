"""A body on its way down: from the socket straight into its place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Incoming"]

# What is shorter comes as fast through aiohttp's parser.
_WORTHWHILE = 128 * 1024
# One turn of the event loop takes no more from a socket.
_AT_ONCE = 1024 * 1024


class Incoming:
    """Receives an answer's body in memory that the caller provides.

    aiohttp reads into new ``bytes``, copies them to others, and leaves it to
    the caller to copy those to where they belong: three times the work, and
    twice the memory to be had from the system. So once the answer's head was
    parsed, the connection gets a protocol of ours that receives in place, and
    aiohttp gets it back when the body is complete. It makes a parser for each
    request, so the connection can be used again.

    Parameters
    ----------
    response : `aiohttp.ClientResponse`
        The answer, of whose body nothing was read yet.
    length : `int`
        Bytes in the body.
    on_bytes : callable
        Called with the number of bytes whenever some are in their place.
    """

    def __init__(self, response: aiohttp.ClientResponse, length: int, on_bytes: Callable[[int], None]) -> None:
        self._response = response
        self._left = length
        self._on_bytes = on_bytes
        self._receiver: _Receiver | None = None

    async def fill(self, view: memoryview) -> None:
        """Fill ``view``, or as much of it as the body has bytes left.

        Raises
        ------
        aiohttp.ClientError, OSError
            If the connection breaks, or ends early. What ``on_bytes`` was
            told of is in its place.
        """
        content = self._response.content
        done, stop = 0, min(view.nbytes, self._left)
        while done < stop and self._receiver is None:
            # What came along with the head is aiohttp's already.
            chunk = content.read_nowait(stop - done)
            if not chunk and self._take_over():
                break
            chunk = chunk or await content.read(stop - done)
            if not chunk:
                raise aiohttp.ClientPayloadError(_ENDED)
            view[done : done + len(chunk)] = chunk
            done += len(chunk)
            self._moved(len(chunk))
        if done < stop and self._receiver is not None:
            await self._receiver.fill(view, done, stop)
            if not self._left:
                self._receiver.give_back()
                content.feed_eof()  # now aiohttp's pool may have the connection

    def _moved(self, count: int) -> None:
        self._left -= count
        self._on_bytes(count)

    def _take_over(self) -> bool:
        """Take the connection, if the rest of the body is in it as it is, and worth the trouble."""
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        if (
            transport is None
            or transport.is_closing()
            or not transport.is_reading()  # paused by a parser that may hold some of the body back
            or "Transfer-Encoding" in self._response.headers
            or self._left < _WORTHWHILE
        ):
            return False
        self._receiver = _Receiver(transport, self._moved)
        return True

    def close(self) -> None:
        """End the receiving; a connection whose body is not complete is closed."""
        if self._receiver is not None:
            self._receiver.give_back()
        self._response.close()


_ENDED = "the connection was closed before the body was complete"


class _Receiver(asyncio.BufferedProtocol):
    """Receives on a transport in place of its own protocol, until it is given back."""

    def __init__(self, transport: asyncio.Transport, on_bytes: Callable[[int], None]) -> None:
        self._transport = transport
        self._on_bytes = on_bytes
        self._owner = cast("asyncio.Protocol", transport.get_protocol())
        self._view = self._lent = memoryview(b"")
        self._done = self._stop = 0
        self._full: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)

    async def fill(self, view: memoryview, start: int, stop: int) -> None:
        """Fill bytes ``start`` to ``stop`` of ``view``."""
        if self._full.done():
            self._full.result()  # the connection may have been lost since
            self._full = asyncio.get_running_loop().create_future()
            self._transport.resume_reading()
        self._view, self._done, self._stop = view, start, stop
        try:
            await self._full
        finally:
            # An error's traceback must not keep a view that its owner could not release.
            self._lent.release()
            self._view = memoryview(b"")

    def give_back(self) -> None:
        """Let the transport's own protocol have it again."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._owner)
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        self._lent.release()
        self._lent = self._view[self._done : min(self._done + _AT_ONCE, self._stop)]
        return self._lent

    def buffer_updated(self, count: int) -> None:
        self._done += count
        self._on_bytes(count)
        if self._done == self._stop:
            self._transport.pause_reading()
            if not self._full.done():
                self._full.set_result(None)

    def eof_received(self) -> None:
        self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.connection_lost(error)
        if self._full.done():
            self._full = asyncio.get_running_loop().create_future()
        self._full.set_exception(error or aiohttp.ClientPayloadError(_ENDED))
        self._full.exception()  # seen: nobody may wait for it any more
