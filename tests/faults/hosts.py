"""Hosts that misbehave as hosts. They need no loop: the system itself responds, or does not, for their sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

UNRESOLVABLE_URL = "http://nowhere.invalid"
"""A name that never resolves (RFC 6761, section 6.4)."""

CHUNK = 64 * 1024


class RefusingHost:
    """A port of 127.0.0.1 at which every connection is refused.

    It is bound, lest another process gets it, and does not listen.
    """

    def __enter__(self) -> Self:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._address = self._socket.getsockname()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def endpoint_url(self) -> str:
        """Where it is, as ``http://127.0.0.1:port``."""
        return "http://{}:{}".format(*self._address)


class Trap(RefusingHost):
    """A host that accepts, listens and stays silent, and remembers who came and what they said.

    The system completes the handshakes and takes some hundred kilobytes or more of each connection, also while the
    loop is blocked or when the client is in another thread or process; `heard` goes and looks.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self._socket.settimeout(0)
        self._socket.listen(128)
        self._visits: list[tuple[socket.socket, bytearray]] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for visitor, _ in self._visits:
            visitor.close()
        super().__exit__(kind, error, traceback)

    @property
    def heard(self) -> list[bytes]:
        """What was said so far: one item for each connection, empty if nothing was said."""
        with contextlib.suppress(BlockingIOError):
            while True:
                visitor, _ = self._socket.accept()
                visitor.settimeout(0)
                self._visits.append((visitor, bytearray()))
        for visitor, words in self._visits:
            # A visitor who has reset the connection was heard until then.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while chunk := visitor.recv(CHUNK):
                    words.extend(chunk)
        return [bytes(words) for _, words in self._visits]


class UnresponsiveHost(RefusingHost):
    """A host that does not respond to a SYN, as one behind a firewall: a connection never comes about.

    The queue of an empty-handed listener is filled up; Linux then drops what else arrives.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        self._socket.listen(0)
        self._filling: list[socket.socket] = []
        with contextlib.suppress(TimeoutError):
            while len(self._filling) < 16:
                self._filling.append(socket.create_connection(self._address, timeout=0.1))
            self.__exit__(None, None, None)
            msg = "The system accepts connections beyond the listener's backlog."
            raise RuntimeError(msg)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in self._filling:
            each.close()
        super().__exit__(kind, error, traceback)
