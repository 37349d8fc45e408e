"""A TCP proxy which damages what goes through it; for use in front of real servers."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from .wire import CHUNK, Connection, Listener

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

    from .wire import Head


@dataclass
class Tamper:
    """Base of what is done to one message.

    Parameters
    ----------
    line : str
        Part of the request's first line, as ``PUT /bucket/key?partNumber=2``.
    offset : int
        Byte of the body at which it happens; without the framing, if the body is chunked.
    side : {"request", "response"}
        Whether it is the body of the request or that of its response.
    nth : int, optional
        Which of the requests that have `line`, counted from 1.
    times : float, optional
        To how many of them from there on.
    """

    line: str
    offset: int
    side: Literal["request", "response"]
    nth: int = 1
    times: float = 1

    def apply(self, piece: bytes) -> bytes:
        """Return what to send in place of a piece which begins at `offset`; or raise ConnectionError."""
        raise NotImplementedError


@dataclass
class Flip(Tamper):
    """Flips one bit on its way.

    Parameters
    ----------
    bit : int, optional
        Which bit of the byte, 0 to 7.
    """

    bit: int = 0

    def apply(self, piece: bytes) -> bytes:
        """Flip it."""
        return bytes([piece[0] ^ 1 << self.bit]) + piece[1:]


@dataclass
class Cut(Tamper):
    """Resets the connection, on both sides, before the byte goes through."""

    def apply(self, piece: bytes) -> bytes:  # noqa: ARG002 - there is nothing left to send
        """Give up the connection."""
        raise ConnectionAbortedError


_Chosen = tuple[str, list[Tamper]]
"""A request that has been sent on: its method, and what is to be done to its response."""


class Proxy(Listener):
    """A proxy in front of an ``http`` endpoint.

    The messages go through as they are, but for the tampering. A tampering which has no such byte to damage does
    nothing; `done` tells.

    Parameters
    ----------
    endpoint_url : str
        The real server.
    *tampers : Tamper
        What to do.
    tls : ssl.SSLContext, optional
        Serve https, and end it here.

    Attributes
    ----------
    done : list of Tamper
        What was done.
    lines : list of str
        First lines of all the requests.
    """

    def __init__(self, endpoint_url: str, *tampers: Tamper, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        url = urlsplit(endpoint_url)
        self._target = (url.hostname or "", url.port or 80)
        self._tampers: list[tuple[Tamper, Iterator[int]]] = [(tamper, itertools.count(1)) for tamper in tampers]
        self.done: list[Tamper] = []
        self.lines: list[str] = []

    async def serve(self, connection: Connection) -> None:
        """Connect to the server, and relay both ways until both sides are done or one breaks."""
        sock = socket.socket()
        upstream = Connection(sock)
        try:
            await self._loop.sock_connect(sock, self._target)
            chosen: deque[_Chosen] = deque()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relay_requests(connection, upstream, chosen))
                group.create_task(self._relay_responses(upstream, connection, chosen))
        except* ConnectionError:
            # What breaks on one side must not look like an orderly end on the other.
            connection.reset()
            upstream.reset()
        finally:
            upstream.close()

    async def _relay_requests(self, client: Connection, server: Connection, chosen: deque[_Chosen]) -> None:
        while (head := await client.read_head()) is not None:
            tampers = self._choose(head.start)
            chosen.append((head.start.partition(" ")[0], [each for each in tampers if each.side == "response"]))
            await server.write(head.raw)
            length = sys.maxsize if "transfer-encoding" in head.headers else head.content_length
            body = _body(client, head, length)
            await self._relay_body(body, server, [each for each in tampers if each.side == "request"])
        server.close_sending()

    async def _relay_responses(self, server: Connection, client: Connection, chosen: deque[_Chosen]) -> None:
        while (head := await server.read_head()) is not None:
            await client.write(head.raw)
            status = int(head.start.split(" ")[1])
            if status < 200:
                # 100 Continue and its like come before the response.
                continue
            method, tampers = chosen.popleft()
            length = head.content_length if "content-length" in head.headers else sys.maxsize
            if method == "HEAD" or status in (204, 304):
                length = 0
            await self._relay_body(_body(server, head, length), client, tampers)
        client.close_sending()

    async def _relay_body(
        self, body: AsyncIterator[tuple[bytes, bool]], sink: Connection, tampers: list[Tamper]
    ) -> None:
        tampers = sorted(tampers, key=lambda tamper: tamper.offset)
        offset = 0
        async for piece, is_content in body:
            rest = piece
            while is_content and tampers and tampers[0].offset < offset + len(rest):
                tamper = tampers.pop(0)
                untouched = tamper.offset - offset
                await sink.write(rest[:untouched])
                self.done.append(tamper)
                rest = tamper.apply(rest[untouched:])
                offset = tamper.offset
            await sink.write(rest)
            offset += len(rest) if is_content else 0

    def _choose(self, line: str) -> list[Tamper]:
        self.lines.append(line)
        chosen = []
        for tamper, numbers in self._tampers:
            if tamper.line in line and tamper.nth <= next(numbers) < tamper.nth + tamper.times:
                chosen.append(tamper)
        return chosen


async def _body(source: Connection, head: Head, length: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Iterate over a body as it comes: pieces, and whether each is content and not framing."""
    if "chunked" not in head.headers.get("transfer-encoding", "").lower() or length == 0:
        async for piece in _pieces(source, length):
            yield piece, True
        return
    while True:
        line = await source.read_until(b"\r\n")
        yield line, False
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        async for piece in _pieces(source, size):
            yield piece, True
        yield await source.read_until(b"\r\n"), False
    # Trailers, if any, up to the empty line.
    while (line := await source.read_until(b"\r\n")) != b"\r\n":
        yield line, False
    yield line, False


async def _pieces(source: Connection, length: int) -> AsyncIterator[bytes]:
    """Read so many bytes; up to the end of the connection if the length is not known."""
    left = length
    while left:
        piece = await source.read_some(min(left, CHUNK))
        if not piece and length == sys.maxsize:
            return
        if not piece:
            msg = f"Closed {left} bytes before the end of a body."
            raise ConnectionResetError(msg)
        yield piece
        left -= len(piece)
