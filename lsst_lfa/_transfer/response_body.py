"""The body of a download: from the socket straight to its destination."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResponseBody", "connection_protocol"]

# Shorter bodies come as fast through aiohttp's parser.
_WORTHWHILE = 128 * 1024
# The maximum that one turn of the event loop takes from a socket.
_AT_ONCE = 1024 * 1024
_ENDED = "the connection was closed before the body was complete"


def connection_protocol(response: aiohttp.ClientResponse, *names: str) -> Any:
    """Return aiohttp's protocol of a response's connection.

    aiohttp documents neither this protocol nor its names. If one of ``names``
    is missing, or there is no connection any more, it is `None`.
    """
    protocol = getattr(response.connection, "protocol", None)
    return protocol if all(hasattr(protocol, name) for name in names) else None


class ResponseBody:
    """Receives a response's body into memory that the caller provides.

    aiohttp reads into new ``bytes``, copies them to other ones, and leaves it
    to the caller to copy those to their destination: three times the work, and
    twice the memory. So once the response's headers have been parsed, the
    connection gets a protocol of ours that receives in place, and aiohttp gets
    the connection back when the body is complete. aiohttp makes a new parser
    for each request, so the connection can be used again.

    Parameters
    ----------
    response : `aiohttp.ClientResponse`
        The response, whose body has not been read yet.
    length : `int` or `None`
        Bytes in the body; `None` if that is known only at its end.
    on_bytes : callable
        Called with the number of bytes whenever some are in place.
    """

    def __init__(self, response: aiohttp.ClientResponse, length: int | None, on_bytes: Callable[[int], None]) -> None:
        self._response = response
        self._left = length
        self._on_bytes = on_bytes
        self._receiver: _Receiver | None = None
        self._ended = False

    async def readinto(self, view: memoryview) -> int:
        """Fill ``view``, as far as the body has bytes left.

        Returns
        -------
        count : `int`
            Bytes that were placed there.

        Raises
        ------
        aiohttp.ClientError
            If the connection is lost, or ends early. The bytes that
            ``on_bytes`` was told of are in place.
        """
        done, stop = 0, view.nbytes if self._left is None else min(view.nbytes, self._left)
        while done < stop and self._receiver is None:
            # Bytes that came with the headers are already in aiohttp's hands.
            chunk = self._response.content.read_nowait(stop - done)
            if not chunk and self._take_over():
                break
            chunk = chunk or await self._response.content.read(stop - done)
            if not chunk:
                self._ended = True
                if self._left is None:
                    return done
                raise aiohttp.ClientPayloadError(_ENDED)
            view[done : done + len(chunk)] = chunk
            done += len(chunk)
            self._moved(len(chunk))
        if done < stop and self._receiver is not None:
            await self._receiver.fill(view, done, stop)
            if not self._left:
                self._receiver.give_back()
                self._response.content.feed_eof()  # now aiohttp's pool may have the connection
        return stop

    def _moved(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
        self._on_bytes(count)

    def _take_over(self) -> bool:
        """Take over the connection, if the rest of the body comes through it unchanged, and is worth the trouble."""
        protocol = connection_protocol(self._response, "transport", "set_response_params")
        transport = protocol.transport if protocol is not None else None
        if (
            transport is None
            or not hasattr(self._response.content, "feed_eof")
            or transport.is_closing()
            or not transport.is_reading()  # paused by a parser that may hold back some of the body
            or "Transfer-Encoding" in self._response.headers
            or self._left is None
            or self._left < _WORTHWHILE
        ):
            return False
        self._receiver = _Receiver(transport, protocol, self._moved)
        return True

    def close(self) -> None:
        """Stop receiving; a connection whose body is not complete is aborted."""
        if self._receiver is not None:
            self._receiver.give_back()
            self._receiver = None  # they refer to each other, and to a part in memory
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        self._response.close()
        if transport is not None and not self._ended:
            transport.abort()


class _Receiver(asyncio.BufferedProtocol):
    """Receives on a transport in place of aiohttp's protocol, until it is given back.

    In the meantime that protocol does not know the transport: an earlier
    response on the same connection would otherwise pause and resume it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        owner: Any,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._on_bytes = on_bytes
        self._view = self._lent = memoryview(b"")
        self._done = self._stop = 0
        self._full: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        owner.transport = None
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
            self._done = self._stop

    def give_back(self) -> None:
        """Give the transport back to its own protocol."""
        self._owner.transport = self._transport
        if self._transport.is_closing():
            # It will not be used again, and what it still reports is passed on. A TLS transport that was closed twice,
            # as aiohttp does, no longer has a protocol that could be read or set.
            return
        if self._transport.get_protocol() is not self:
            return
        # Its parser has not seen the body, and would take the next bytes for it.
        self._owner.set_response_params()
        self._transport.set_protocol(self._owner)
        self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        self._lent.release()
        if self._done == self._stop:
            # Nobody is waiting: this is the end of a cancelled fill, or more than was announced.
            self._lent = memoryview(bytearray(1))
        else:
            self._lent = self._view[self._done : min(self._done + _AT_ONCE, self._stop)]
        return self._lent

    def buffer_updated(self, count: int) -> None:
        if self._done == self._stop:
            self._transport.abort()
            return
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
        lost = aiohttp.ClientPayloadError(f"{_ENDED}: {error}" if error else _ENDED)
        self._full.set_exception(lost)
        self._full.exception()  # seen: nobody may wait for it any more
