"""`MockS3Server`: its socket, its threads, its lifetime. moto itself is behind `_mock.moto`."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from lsst_lfa._public import public

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

    from .moto import Storage

__all__ = ["MockS3Server"]

_HOST: Final = "127.0.0.1"
_POLL_INTERVAL: Final = 0.02
"""Seconds: the longest that the serving thread takes to notice that it must end."""

_BACKLOG: Final = 128
"""Connections that may wait to be accepted."""

_GRACE: Final = 1.0
"""Seconds that a request in progress has to end, once its connection is cut."""

_lock = threading.Lock()
"""Held while a server starts, creates a bucket or frees its memory: moto's tables are the whole process's."""


_threads = functools.cache(lambda _process: ThreadPoolExecutor(4, thread_name_prefix="lsst_lfa-mock"))


async def _in_thread(function: Callable[[], None]) -> None:
    """Call a function in a thread of our own: those of the event loop's executor may all be waiting for us."""
    await asyncio.get_running_loop().run_in_executor(_threads(os.getpid()), function)


@public
class MockS3Server:
    """A mock S3 server on 127.0.0.1, for tests and for simulation.

    It is moto's S3, served over HTTP on a free port by threads of this
    process. Nothing is verified: signatures and checksums are ignored, and
    requests without a signature are served as well. Buckets are addressed by
    path. Objects are kept until the server stops, in memory up to 5 MiB each
    and in temporary files above that.

    Use it with ``async with`` (which imports moto in a thread, so that the
    event loop keeps running), with ``with``, or by `start` and `stop`. Any
    number of servers can run at the same time; each has its own buckets,
    whatever their names. A server runs once: after `stop` it cannot be started
    again. One that is dropped without being stopped stops by itself.

    Parameters
    ----------
    port : `int`, optional
        The port; by default one that is free.

    Attributes
    ----------
    access_key_id, secret_access_key : `str`
        Dummy credentials for a client of this server.

    Raises
    ------
    ValueError
        If ``port`` is not a port number.

    Notes
    -----
    The server ignores environment variables and AWS configuration files, and
    changes neither. Clients of real servers are not affected. moto's own
    decorator, ``mock_aws``, erases whatever moto holds in the process when it
    begins and ends, the contents of these servers included.

    The process that started a server owns it. A forked child can be a client of
    its parent's server; whatever it does with its copy of this object, the
    parent's server keeps running.
    """

    access_key_id: Final = "MOCKACCESSKEYID00000"
    secret_access_key: Final = "mock-secret-access-key"  # noqa: S105  (a dummy)

    def __init__(self, *, port: int = 0) -> None:
        if not 0 <= port < 1 << 16:
            msg = f"port is {port!r}; it must be 1 to 65535, or 0 for one that is free"
            raise ValueError(msg)
        self._port = port
        self._service: _Service | None = None
        self._stopped = False
        self._finalizer: weakref.finalize[..., MockS3Server] | None = None

    def __repr__(self) -> str:
        where = self.endpoint_url if self.running else "not running"
        return f"<{type(self).__name__} {where}>"

    @property
    def running(self) -> bool:
        """Whether the server accepts requests."""
        return self._service is not None and not self._stopped

    @property
    def endpoint_url(self) -> str:
        """The server's URL, such as ``http://127.0.0.1:41093``.

        It stays readable after the server has stopped.

        Raises
        ------
        RuntimeError
            If the server was never started.
        """
        if self._service is None:
            msg = "This mock S3 server was never started"
            raise RuntimeError(msg)
        return f"http://{_HOST}:{self._service.server.port}"

    def start(self) -> None:
        """Start serving; do nothing if the server is running already.

        The first start in a process imports moto, which takes half a second
        or more: in a coroutine, prefer ``async with``. Requests are accepted
        as soon as this returns.

        Raises
        ------
        RuntimeError
            If the server was stopped before.
        OSError
            If the port is already in use, or may not be used.
        """
        with _lock:
            from .moto import Storage

            if self._stopped:
                msg = "This mock S3 server was stopped; make a new MockS3Server"
                raise RuntimeError(msg)
            if self._service is None:
                # werkzeug ends the process if a port is taken, so it gets one that is ours already.
                with socket.create_server((_HOST, self._port), backlog=_BACKLOG) as listening:
                    self._service = _Service(Storage(), listening)
                self._finalizer = weakref.finalize(self, self._service.stop)
                self._finalizer.atexit = False
            if self._stopped:
                # By stop(), in the meantime: it takes no lock, and found nothing.
                self.stop()

    def stop(self) -> None:
        """Stop serving for good; do nothing if the server is not running.

        From here on connections are refused, and open ones are cut. This
        waits for nothing, so it may be called from a coroutine; memory and
        temporary files are freed by the serving thread a moment later.
        """
        self._stopped = True
        if self._finalizer is not None:
            self._finalizer()

    def create_bucket(self, name: str) -> None:
        """Create a bucket, without a request; it is not an error if it exists.

        Parameters
        ----------
        name : `str`
            Name of the bucket: 3 to 63 characters.

        Raises
        ------
        RuntimeError
            If the server is not running, or was started by a parent process.
        ValueError
            If the name is too short or too long.
        """
        if self._service is None or self._stopped:
            msg = "This mock S3 server is not running: start it first"
            raise RuntimeError(msg)
        if self._service.inherited:
            msg = "This mock S3 server runs in the parent process: create the bucket there, or by a client's request"
            raise RuntimeError(msg)
        if not 3 <= len(name) <= 63:  # noqa: PLR2004 - S3's own limits
            msg = f"Invalid bucket name {name!r}: it must have 3 to 63 characters"
            raise ValueError(msg)
        with _lock:
            self._service.storage.create_bucket(name)

    def _stop_and_wait(self) -> None:
        self.stop()
        if self._service is not None:
            self._service.thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_and_wait()

    async def __aenter__(self) -> Self:
        try:
            await _in_thread(self.start)
        except BaseException:
            # Cancelled, say, while the thread goes on: it sees the mark.
            self.stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await _in_thread(self._stop_and_wait)


class _Service:
    """One server's socket, thread and storage, apart from the object that users hold.

    It must not refer to that object, whose end is what stops it.
    """

    def __init__(self, storage: Storage, listening: socket.socket) -> None:
        from werkzeug.serving import make_server

        self.storage = storage
        self.connections: set[socket.socket] = set()
        self.stopping = False
        self.inherited = False
        """Whether this is a forked child's copy."""
        self.server: BaseWSGIServer = make_server(
            _HOST, 0, storage, threaded=True, request_handler=_request_handler(self), fd=listening.fileno()
        )
        self.server.timeout = _POLL_INTERVAL
        self.thread = threading.Thread(target=self._serve, name=f"MockS3Server:{self.server.port}", daemon=True)
        _services.add(self)
        self.thread.start()

    def _serve(self) -> None:
        # Not serve_forever(): its shutdown() waits, and the garbage collector
        # may call stop() on any thread, including this one.
        while not self.stopping:
            self.server.handle_request()
        self.server.server_close()
        # Otherwise a request in progress could add objects afterwards, which nobody would free.
        give_up_at = time.monotonic() + _GRACE
        while self.connections and time.monotonic() < give_up_at:
            time.sleep(0.001)
        with _lock:
            self.storage.close()
        _services.discard(self)

    def stop(self) -> None:
        self.stopping = True
        # Where the system can do this, it refuses connections and wakes the
        # thread at once; elsewhere the thread sees the mark soon. A forked
        # child's sockets are closed already: nothing happens.
        with suppress(OSError):
            self.server.socket.shutdown(socket.SHUT_RDWR)
        for connection in self.connections.copy():
            _cut(connection)

    def leave_to_parent(self) -> None:
        """Close a forked child's copies of the sockets; to shut them down would reach the parent's."""
        self.inherited = True
        for inherited in (self.server.socket, *self.connections):
            # Not close(): that waits for the files which threads of the parent have on it.
            with suppress(OSError):
                os.close(inherited.detach())


_services: Final[set[_Service]] = set()
"""Those whose threads have not ended."""


def _stop_all() -> None:
    """Stop what is left when the interpreter exits, and wait until it is."""
    for service in _services.copy():
        service.stop()
        service.thread.join(2 * _GRACE)


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it, and will not release it here
    _lock = threading.Lock()
    while _services:
        _services.pop().leave_to_parent()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _request_handler(service: _Service) -> type[WSGIRequestHandler]:
    """Make a handler class that keeps account of its open connections."""
    from .moto import RequestHandler

    class Handler(RequestHandler):
        def setup(self) -> None:
            super().setup()
            service.connections.add(self.connection)
            if service.stopping:
                _cut(self.connection)

        def finish(self) -> None:
            service.connections.discard(self.connection)
            super().finish()

        def send_response(self, code: int, message: str | None = None) -> None:
            # The inherited one adds a Server header, and moto sends its own:
            # two of them are an error to a strict client.
            self.send_response_only(code, message)
            self.send_header("Date", self.date_time_string())

        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
            """Say nothing: each request would be a line on stderr."""

    return Handler
