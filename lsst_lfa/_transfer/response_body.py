"""A body on its way down: from the socket straight into its place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResponseBody", "connection_protocol"]

# What is shorter comes as fast through aiohttp's parser.
_WORTHWHILE = 128 * 1024
# One turn of the event loop takes no more from a socket.
_AT_ONCE = 1024 * 1024
_ENDED = "the connection was closed before the body was complete"


def connection_protocol(response: aiohttp.ClientResponse, *names: str) -> Any:
    """Return aiohttp's protocol of a response's connection.

    aiohttp documents neither this protocol nor its names: where one of
    ``names`` is missing, as where there is no connection any more, it is `None`.
    """
    protocol = getattr(response.connection, "protocol", None)
    return protocol if all(hasattr(protocol, name) for name in names) else None


class ResponseBody:
    """Receives a response's body in memory that the caller provides.

    aiohttp reads into new ``bytes``, copies them to others, and leaves it to
    the caller to copy those to where they belong: three times the work, and
    twice the memory to be had from the system. So once the response's head was
    parsed, the connection gets a protocol of ours that receives in place, and
    aiohttp gets it back when the body is complete. It makes a parser for each
    request, so the connection can be used again.

    Parameters
    ----------
    response : `aiohttp.ClientResponse`
        The response, of whose body nothing was read yet.
    length : `int` or `None`
        Bytes in the body; `None` if only its end will tell.
    on_bytes : callable
        Called with the number of bytes whenever some are in their place.
    """

    def __init__(self, response: aiohttp.ClientResponse, length: int | None, on_bytes: Callable[[int], None]) -> None:
        self._response = response
        self._left = length
        self._on_bytes = on_bytes
        self._receiver: _Receiver | None = None
        self._ended = False

    async def readinto(self, view: memoryview) -> int:
        """Fill ``view``, or as much of it as the body has bytes left.

        Returns
        -------
        count : `int`
            Bytes that were put there.

        Raises
        ------
        aiohttp.ClientError
            If the connection breaks, or ends early. What ``on_bytes`` was
            told of is in its place.
        """
        done, stop = 0, view.nbytes if self._left is None else min(view.nbytes, self._left)
        while done < stop and self._receiver is None:
            # What came along with the head is aiohttp's already.
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
        """Take the connection, if the rest of the body is in it as it is, and worth the trouble."""
        protocol = connection_protocol(self._response, "transport", "set_response_params")
        transport = protocol.transport if protocol is not None else None
        if (
            transport is None
            or not hasattr(self._response.content, "feed_eof")
            or transport.is_closing()
            or not transport.is_reading()  # paused by a parser that may hold some of the body back
            or "Transfer-Encoding" in self._response.headers
            or self._left is None
            or self._left < _WORTHWHILE
        ):
            return False
        self._receiver = _Receiver(transport, protocol, self._moved)
        return True

    def close(self) -> None:
        """End the receiving; a connection whose body is not complete is aborted."""
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

    Meanwhile that protocol does not know the transport: a response that was
    read before over the same connection would pause and resume it.
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
        """Let the transport's own protocol have it again."""
        self._owner.transport = self._transport
        if self._transport.is_closing():
            # It will not be used again, and what it still says is passed on. Under TLS one that was
            # closed twice, as aiohttp does, has no protocol any more, to be asked for or to be set.
            return
        if self._transport.get_protocol() is not self:
            return
        # Its parser has seen nothing of the body, and would take what comes next for it.
        self._owner.set_response_params()
        self._transport.set_protocol(self._owner)
        self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        self._lent.release()
        if self._done == self._stop:
            # Nobody waits for more: the end of a fill that was cancelled, or more than was promised.
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
