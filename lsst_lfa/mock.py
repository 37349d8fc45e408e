"""A mock S3 server inside this process: moto's S3, over a real socket."""

from __future__ import annotations

import asyncio
import atexit
import functools
import itertools
import os
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from ._client.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from moto.s3.models import S3Backend
    from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

__all__ = ["MockS3Server"]

_HOST: Final = "127.0.0.1"
_REGION: Final = "us-east-1"
_POLL_INTERVAL: Final = 0.02
"""Seconds: the longest that the serving thread takes to see that it must end."""

_GRACE: Final = 1.0
"""Seconds that a request in work has to end, once its connection is cut."""

_moto = threading.RLock()
"""Held while moto's process-wide tables are changed by us."""

_account_ids = (f"{number:012d}" for number in itertools.count(1))
"""AWS account numbers, one for each server: moto keeps its state by account."""


class MockS3Server:
    """A mock S3 server on 127.0.0.1, for tests and for simulation.

    It is moto's S3, served over HTTP on a free port by a thread of this
    process. Nothing is verified (signatures, checksums); any credentials do.
    Objects are kept until the server stops: in memory up to 5 MiB each, else
    in a temporary file.

    Use it with ``async with`` (which imports moto in a thread, so that the
    event loop runs on), with ``with``, or by `start` and `stop`. Any number
    of servers can run at the same time; each has buckets of its own, whatever
    their names. A server serves once: stopped, it cannot be started again.
    One that is dropped without being stopped stops by itself.

    Attributes
    ----------
    access_key_id, secret_access_key : `str`
        Credentials for a client of this server: dummies.

    Notes
    -----
    The environment is never changed, and clients of real servers are not
    touched. But moto's own decorator, ``mock_aws``, resets what moto holds in
    the whole process when it begins and ends: these servers too.
    """

    access_key_id: Final = "MOCKACCESSKEYID00000"
    secret_access_key: Final = "mock-secret-access-key"  # noqa: S105  (a dummy)

    def __init__(self) -> None:
        self._service: _Service | None = None
        self._stopped = False
        self._finalizer: weakref.finalize[..., MockS3Server] | None = None

    def __repr__(self) -> str:
        where = self.endpoint_url if self.running else "not running"
        return f"<{type(self).__name__} {where}>"

    @property
    def running(self) -> bool:
        """Whether the server takes requests."""
        return self._service is not None and not self._stopped

    @property
    def endpoint_url(self) -> str:
        """The server's URL, such as ``http://127.0.0.1:41093``.

        It stays readable once the server has stopped.

        Raises
        ------
        RuntimeError
            If the server was never started.
        """
        return f"http://{_HOST}:{self._started().server.port}"

    def start(self) -> None:
        """Start to serve; do nothing if the server runs already.

        The first start in a process imports moto, which takes half a second
        or more: in a coroutine, prefer ``async with``. Requests are accepted
        from the moment that this returns.

        Raises
        ------
        RuntimeError
            If the server was stopped before, or if the environment holds
            ``MOTO_ACCOUNT_ID``, under which all servers would share buckets.
        """
        if "MOTO_ACCOUNT_ID" in os.environ:
            msg = "With MOTO_ACCOUNT_ID in the environment, servers would share buckets"
            raise RuntimeError(msg)
        with _moto:
            application = _application()
            if self._stopped:
                msg = "This mock S3 server was stopped; make a new MockS3Server"
                raise RuntimeError(msg)
            if self._service is None:
                self._service = _Service(application)
                self._finalizer = weakref.finalize(self, self._service.stop)
                self._finalizer.atexit = False
            if self._stopped:
                # By stop(), meanwhile: it takes no lock, and found nothing.
                self.stop()

    def stop(self) -> None:
        """Stop to serve, for good; do nothing if it does not run.

        From here on connections are refused, and open ones are cut. Waits for
        nothing, so it may be called from a coroutine; memory and temporary
        files are freed by the serving thread as it ends, a moment later.
        """
        self._stopped = True
        if self._finalizer is not None:
            self._finalizer()

    def create_bucket(self, name: str) -> None:
        """Make a bucket, without a request; no error if it exists.

        Parameters
        ----------
        name : `str`
            Name of the bucket: 3 to 63 characters.

        Raises
        ------
        RuntimeError
            If the server does not run.
        ValueError
            If the name is too short or too long.
        """
        if not self.running:
            msg = "This mock S3 server does not run: start it first"
            raise RuntimeError(msg)
        self._started().create_bucket(name)

    def _started(self) -> _Service:
        if self._service is None:
            msg = "This mock S3 server was never started"
            raise RuntimeError(msg)
        return self._service

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
            await asyncio.to_thread(self.start)
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
        await asyncio.to_thread(self._stop_and_wait)


class _Service:
    """One server's socket, thread and state, apart from the object users hold.

    It must not refer to that object, whose end is what stops it.
    """

    def __init__(self, application: WSGIApplication) -> None:
        from werkzeug.serving import make_server

        self.connections: set[socket.socket] = set()
        self.stopping = False
        self._backend = _add_account(next(_account_ids))
        self.server: BaseWSGIServer = make_server(
            _HOST,
            0,
            _as_account(application, self._backend.account_id),
            threaded=True,
            request_handler=_request_handler(self),
        )
        self.server.timeout = _POLL_INTERVAL
        self.thread = threading.Thread(target=self._serve, name=f"MockS3Server:{self.server.port}", daemon=True)
        _services.add(self)
        self.thread.start()

    def _serve(self) -> None:
        # Not serve_forever(): its shutdown() waits, and the garbage collector
        # may call stop() on any thread, this one too.
        while not self.stopping:
            self.server.handle_request()
        self.server.server_close()
        # What a request still in work were to add now, nobody would free.
        give_up_at = time.monotonic() + _GRACE
        while self.connections and time.monotonic() < give_up_at:
            time.sleep(0.001)
        _remove_account(self._backend)
        _services.discard(self)

    def stop(self) -> None:
        self.stopping = True
        # Where the system can do this, it refuses connections and wakes the
        # thread at once; elsewhere the thread sees the mark soon.
        with suppress(OSError):
            self.server.socket.shutdown(socket.SHUT_RDWR)
        for connection in self.connections.copy():
            _cut(connection)

    def create_bucket(self, name: str) -> None:
        from moto.s3.exceptions import BucketAlreadyExists, InvalidBucketName

        try:
            self._backend.create_bucket(name, _REGION)
        except BucketAlreadyExists:
            pass
        except InvalidBucketName:
            msg = f"Invalid bucket name {name!r}: it must have 3 to 63 characters"
            raise ValueError(msg) from None


_services: Final[set[_Service]] = set()
"""Those whose threads have not ended."""


def _stop_all() -> None:
    """Stop what is left when the interpreter exits, and wait until it is."""
    for service in _services.copy():
        service.stop()
        service.thread.join(2 * _GRACE)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _request_handler(service: _Service) -> type[WSGIRequestHandler]:
    """Make a handler class that keeps account of its open connections."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler

    class Handler(MotoRequestHandler):
        def setup(self) -> None:
            super().setup()
            service.connections.add(self.connection)
            if service.stopping:
                _cut(self.connection)

        def finish(self) -> None:
            service.connections.discard(self.connection)
            super().finish()

        def send_response(self, code: int, message: str | None = None) -> None:
            # The inherited one adds a Server header, and moto has sent its
            # own: two of them are an error to a strict client.
            self.send_response_only(code, message)
            self.send_header("Date", self.date_time_string())

        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002
            """Say nothing: each request would be a line on stderr."""

    return Handler


@functools.cache
def _application() -> WSGIApplication:
    """Import moto and make its S3 application; one serves all accounts.

    Not moto's dispatcher over all of AWS's services: it guesses the service
    of an unsigned request from the bucket's name.
    """
    # Moto imports this one with the first request, which would be slow.
    import moto.iam.models  # noqa: F401
    from moto.moto_server.werkzeug_app import create_backend_app

    _learn_service_name()
    application = create_backend_app("s3")
    atexit.register(_stop_all)
    return application


def _learn_service_name() -> None:
    """Let moto look up once, and keep, what it would need the user's AWS configuration for.

    In a request that fails where AWS_PROFILE names no profile.
    """
    import botocore.session
    from moto.core import utils

    session = botocore.session.Session()
    Settings(endpoint_url=None, trust_env=False).configure(session)
    original = utils.__dict__["Session"]
    setattr(utils, "Session", lambda: session)  # noqa: B010 - moto declares no such name
    try:
        utils.service_name_from_moto_package_name("s3")
    finally:
        setattr(utils, "Session", original)  # noqa: B010


def _as_account(application: WSGIApplication, account_id: str) -> WSGIApplication:
    """Let an application of moto's work on one account's state."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = account_id
        # Moto takes the bucket from the quoted path: "tenant%3Abucket".
        for name in ("RAW_URI", "REQUEST_URI"):
            bucket, slash, key = environ[name][1:].partition("/")
            environ[name] = f"/{bucket.replace('%3A', ':')}{slash}{key}"
        return application(environ, start_response)

    return wrapped


def _add_account(account_id: str) -> S3Backend:
    """Give an account of moto's an S3 of its own, in all regions."""
    from moto.s3.models import s3_backends
    from moto.utilities.utils import PARTITION_NAMES

    backend = _backend_class()("aws", account_id)
    for partition in PARTITION_NAMES:
        s3_backends[account_id][partition] = backend
    return backend


@functools.cache
def _backend_class() -> type[S3Backend]:
    """Moto's S3 backend, with bucket names that are unique within it only."""
    from moto.s3.exceptions import BucketAlreadyExists, MissingBucket
    from moto.s3.models import FakeBucket, S3Backend, s3_backends

    owners = s3_backends.bucket_accounts

    class Backend(S3Backend):
        def create_bucket(
            self,
            bucket_name: str,
            region_name: str,
            bucket_namespace: str | None = None,
        ) -> FakeBucket:
            if bucket_name in self.buckets:
                raise BucketAlreadyExists(bucket=bucket_name)
            # Moto refuses a name that any account has, and notes this one.
            with _moto:
                owner = owners.pop(bucket_name, None)
                try:
                    return super().create_bucket(bucket_name, region_name, bucket_namespace)
                finally:
                    owners.pop(bucket_name, None)
                    if owner is not None:
                        owners[bucket_name] = owner

        def get_bucket(self, bucket_name: str) -> FakeBucket:
            if bucket_name in self.buckets:
                return self.buckets[bucket_name]
            # Here moto would look into the other accounts.
            raise MissingBucket(bucket=bucket_name)

    return Backend


def _remove_account(backend: S3Backend) -> None:
    """Forget an account's state, and free memory and temporary files."""
    from moto.iam.models import iam_backends
    from moto.s3.models import FakeBucket, FakeKey, FakeMultipart, s3_backends

    # Not backend.reset(): that closes the objects of every account.
    with _moto:
        for model in (FakeKey, FakeMultipart, FakeBucket):
            tracked: list[Any] = vars(model)["instances_tracked"]
            # Backwards and in place, while other servers append to the list.
            for index in range(len(tracked) - 1, -1, -1):
                instance = tracked[index]
                # One that another thread is making is listed already, bare.
                if getattr(instance, "account_id", None) != backend.account_id:
                    continue
                del tracked[index]
                if not isinstance(instance, FakeBucket):
                    instance.dispose()
        s3_backends.pop(backend.account_id, None)
        iam_backends.pop(backend.account_id, None)
