"""Sockets and HTTP/1.1 heads, with nothing between a test and the bytes.

Everything here runs on plain non-blocking sockets and the loop's ``sock_*`` calls, not on transports or streams. A
server that stops reading then truly stops (nothing goes on filling a buffer behind its back), a reset is a reset, and
a body goes from the socket to where it is kept, and back, without a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

CHUNK = 128 * 1024
"""Most bytes moved by one system call."""

HEAD_CHUNK = 16 * 1024
"""Most bytes read at once while the end of a head is sought: so much of a body may come along with it."""

HEAD_LIMIT = 256 * 1024
"""A head longer than this is refused."""

BACKLOG = 4096
"""Connections that may wait to be accepted: a thousand at once is one of the tests."""


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or of a response.

    Attributes
    ----------
    raw : bytes
        As it came, the empty line included.
    start : str
        The first line.
    headers : dict
        By lower-case name; the values of a repeated header are joined with ", ".
    """

    raw: bytes
    start: str
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Take a head apart; ValueError if a header has no colon."""
        start, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                msg = f"Not a header: {line!r}"
                raise ValueError(msg)
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return cls(raw, start, headers)

    @property
    def content_length(self) -> int:
        """Length of the body in bytes; 0 where nothing is said."""
        return int(self.headers.get("content-length", "0"))


class Connection:
    """One accepted or opened connection.

    Whatever ends it, here or on the other side, is a ConnectionError in the coroutine that uses it.

    Parameters
    ----------
    sock : socket.socket
        Connected; owned from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._ahead = bytearray()

    async def read_head(self) -> Head | None:
        """Read up to and including the next empty line; None if the other side closed before its first byte."""
        raw = await self.read_until(b"\r\n\r\n")
        return Head.parse(raw) if raw else None

    async def read_until(self, mark: bytes) -> bytes:
        """Read up to and including a mark; nothing if the other side closed before the first byte."""
        while (end := self._ahead.find(mark)) < 0:
            if len(self._ahead) > HEAD_LIMIT:
                msg = f"No {mark!r} in {len(self._ahead)} bytes."
                raise ValueError(msg)
            chunk = await self._receive(HEAD_CHUNK)
            if not chunk and self._ahead:
                msg = f"Closed after {len(self._ahead)} bytes, in mid-head."
                raise ConnectionResetError(msg)
            if not chunk:
                return b""
            self._ahead += chunk
        return self._take(end + len(mark))

    async def read_some(self, limit: int) -> bytes:
        """Read between one and `limit` bytes, or none if the other side has closed."""
        if self._ahead:
            return self._take(limit)
        chunk = await self._receive(min(limit, CHUNK))
        # The loop's calls return at once while there is something to read: let others have their turn.
        await asyncio.sleep(0)
        return chunk

    async def _receive(self, limit: int) -> bytes:
        return await self._loop.sock_recv(self._socket, limit)

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self._socket, data)

    async def gone(self) -> None:
        """Read and forget everything, until the other side closes; then raise ConnectionResetError."""
        while await self.read_some(CHUNK):
            pass
        msg = "Closed by the other side."
        raise ConnectionResetError(msg)

    def close_sending(self) -> None:
        """Say that no more will be sent, and go on listening."""
        # It is an error to say so to one who has gone.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close; the system makes it a reset if there are bytes which nobody has read."""
        self._socket.close()

    def reset(self) -> None:
        """Close with a TCP reset: what the system has not sent yet is thrown away."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._ahead[:count])
        del self._ahead[:count]
        return taken


class TlsConnection(Connection):
    """An accepted connection with TLS. The handshake is part of the first read; one that fails is a ConnectionError.

    Parameters
    ----------
    sock : socket.socket
        Connected; owned from here on.
    context : ssl.SSLContext
        Has the certificate to show.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def _receive(self, limit: int) -> bytes:
        while True:
            try:
                return self._tls.read(limit)
            except ssl.SSLWantReadError:
                # Our part of the handshake.
                await super().write(self._outgoing.read())
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise ConnectionAbortedError(*error.args) from error
            sealed = await super()._receive(CHUNK)
            if not sealed:
                return b""
            self._incoming.write(sealed)

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await super().write(self._outgoing.read())


class Listener:
    """Accepts on a free port of 127.0.0.1 and runs one task per connection, until the context ends.

    The end of the context closes every socket and awaits every task. An error which is not the connection's own is a
    fault of the server or of a hook: it is raised there, lest it be taken for the client's.

    Parameters
    ----------
    receive_buffer : int, optional
        Bytes that the system may hold per connection, unread (SO_RCVBUF; Linux doubles it). By default some
        megabytes, which a client may send to a server that has stopped reading before it notices anything.
    tls : ssl.SSLContext, optional
        Serve https, with the certificate that it has.
    """

    def __init__(self, *, receive_buffer: int | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.connections_made = 0
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    async def serve(self, connection: Connection) -> None:
        """Serve one connection; it is closed when this returns or raises."""
        raise NotImplementedError

    @property
    def endpoint_url(self) -> str:
        """Where it listens, as ``http://127.0.0.1:port``; ``https`` with TLS."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections accepted and not closed yet."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        # Sockets inherit the size; set before listen(), for it bounds the window that the handshake announces.
        self._socket = socket.socket()
        self._socket.settimeout(0)
        if self._receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(BACKLOG)
        self.port = self._socket.getsockname()[1]
        self._loop.add_reader(self._socket.fileno(), self._accept)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_listening()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failures and error is None:
            msg = "The tests' own server failed."
            raise ExceptionGroup(msg, self._failures)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, most likely: it would come again at once and for ever.
            self._failures.append(error)
            self._stop_listening()
            return
        self.connections_made += 1
        connection = TlsConnection(accepted, self._tls) if self._tls else Connection(accepted)
        task = self._loop.create_task(self.serve(connection))
        self._tasks.add(task)
        # In a callback and not in the task, whose body never runs if it is cancelled before its first step.
        task.add_done_callback(lambda task: self._ended(task, connection))

    def _ended(self, task: asyncio.Task[None], connection: Connection) -> None:
        connection.close()
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self._failures.append(error)

    def _stop_listening(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
