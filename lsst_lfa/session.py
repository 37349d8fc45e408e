"""`S3Session`: owns the one aiobotocore client of an event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from . import naming
from .config import TransferConfig
from .errors import ClosedError
from .transport import Settings, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path
    from types import TracebackType

    from ._mock.server import MockS3Server
    from .bucket import AsyncS3Bucket

__all__ = ["Connection", "S3Session"]

log = logging.getLogger(__name__)


class Connection(NamedTuple):
    """An open client, and the places at its pool of connections.

    Requests are signed before they queue at the pool, where signatures grow
    stale and no time limit holds: take a place first, then make the request.
    """

    client: Any
    places: asyncio.Semaphore
    endpoint_url: str


class S3Session:
    """Credentials, an endpoint, and one client for each event loop.

    The client is opened by the first await or by ``async with``, once,
    however many tasks arrive together. It belongs to the loop that opened it:
    when that loop has been closed, the next await opens afresh. Making a
    session does no I/O and needs no loop; dropping one unclosed is silent.

    Parameters
    ----------
    endpoint_url : `str`, optional
        The service. By default ``S3_ENDPOINT_URL``; blank means AWS's own.
        Credentials written into it are dropped.
    profile : `str`, optional
        A profile in AWS's configuration files.
    access_key_id, secret_access_key, session_token : `str`, optional
        Explicit credentials. Without them AWS's usual chain: environment,
        profile, files, instance metadata.
    region : `str`, optional
        By default the environment's or the profile's, else ``us-east-1``.
    verify : `bool`, `str` or `pathlib.Path`, optional
        A file of certificate authorities for https; `False` trusts any
        certificate, and logs a warning once. By default ``AWS_CA_BUNDLE``.
    max_connections : `int`, optional
        Connections that all transfers share.
    config : `TransferConfig`, optional
        How this session's buckets carry out transfers.

    Raises
    ------
    ValueError
        If the endpoint is no http(s) URL, or only one of the two explicit
        credentials is given.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None = None,
        profile: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        region: str | None = None,
        verify: bool | str | Path | None = None,
        max_connections: int = 32,
        config: TransferConfig | None = None,
    ) -> None:
        if (access_key_id is None) != (secret_access_key is None):
            msg = "access_key_id and secret_access_key go together: give both or none"
            raise ValueError(msg)
        if max_connections < 1:
            msg = f"max_connections is {max_connections!r}; it must be 1 or more"
            raise ValueError(msg)
        self.config = config or TransferConfig()
        self.settings = Settings(
            endpoint_url=naming.clean_endpoint(
                os.environ.get("S3_ENDPOINT_URL") if endpoint_url is None else endpoint_url
            ),
            profile=profile,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            region=region,
            verify=verify if verify is None or isinstance(verify, bool) else str(verify),
            max_connections=max_connections,
            connect_timeout=self.config.connect_timeout,
            request_timeout=self.config.request_timeout,
        )
        if verify is False:
            log.warning("verify=False: whoever answers as %s is trusted", self.settings.endpoint_url or "AWS")
        self._lease: _Lease | None = None
        self._opened_endpoint_url: str | None = None

    @classmethod
    def for_mock(cls, server: MockS3Server, config: TransferConfig | None = None) -> Self:
        """Make a session on a mock server, which hears nothing of the user's environment."""
        session = cls(
            endpoint_url=server.endpoint_url,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            config=config,
        )
        session.settings = replace(session.settings, hermetic=True, region="us-east-1", verify=True)
        return session

    @property
    def endpoint_url(self) -> str | None:
        """The service; for AWS's own, `None` until the client was opened."""
        return self.settings.endpoint_url or self._opened_endpoint_url

    def __repr__(self) -> str:
        return f"S3Session(endpoint_url={self.settings.endpoint_url!r}, profile={self.settings.profile!r})"

    def bucket(self, name: str, *, create: bool = False, config: TransferConfig | None = None) -> AsyncS3Bucket:
        """Return a bucket on this session. No I/O; see `AsyncS3Bucket`."""
        from .bucket import AsyncS3Bucket

        return AsyncS3Bucket(name, create=create, session=self, config=config)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow the client for one transfer; it is opened if need be.

        Raises
        ------
        RuntimeError
            If another event loop that is still open opened the client.
        ClosedError
            In the borrower's task, when `aclose` is called meanwhile.
        """
        lease = self._lease_here()
        connection = await lease.open(self.settings)
        self._opened_endpoint_url = connection.endpoint_url
        if lease.closing:
            raise ClosedError(self._closed())
        try:
            async with asyncio.timeout(None) as scope:
                lease.borrowers.add(scope)
                yield connection
        except TimeoutError:
            # `aclose` lets the borrowers' scopes expire.
            if not (lease.closing and scope.expired()):
                raise
            raise ClosedError(self._closed()) from None
        finally:
            lease.borrowers.discard(scope)
            if lease.closing and not lease.borrowers:
                lease.idle.set()

    def _closed(self) -> str:
        return f"{self!r} was closed while a transfer was under way"

    def _lease_here(self) -> _Lease:
        """Return this loop's lease, or a new one if the old one's loop is gone."""
        loop = asyncio.get_running_loop()
        lease = self._lease
        if lease is not None and lease.loop is loop and not lease.closing and lease.pid == os.getpid():
            return lease
        if lease is not None:
            lease.require_done(loop)
            self._forget()
        self._lease = lease = _Lease(loop)
        # A dropped session must be silent: see `_Lease.abandon`.
        self._finalizer = weakref.finalize(self, lease.abandon)
        self._finalizer.atexit = False
        return lease

    def _forget(self) -> _Lease | None:
        lease, self._lease = self._lease, None
        if lease is not None and lease.pid == os.getpid():  # else the parent's client, which is not ours to drop
            self._finalizer.detach()
        return lease

    async def aclose(self) -> None:
        """Close the client. Idempotent; the next await opens afresh.

        Transfers under way end with `ClosedError`, after cleaning up.
        """
        if self._lease is not None:
            self._lease.require_done(asyncio.get_running_loop())
        lease = self._forget()
        if lease is not None:
            await lease.close()

    async def __aenter__(self) -> Self:
        async with self.connection():
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


# Of its tasks a loop keeps weak references only.
_closing: set[asyncio.Task[None]] = set()


class _Lease:
    """One event loop's client: opened once, closed once.

    The generator that holds the client open lives here, apart from the
    session, whose finalizer keeps it. When a loop ends it closes the generator
    itself (`shutdown_asyncgens`); were it collected together with the client,
    aiohttp would complain first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.closing = False
        self.borrowers: set[asyncio.Timeout] = set()
        self.idle = asyncio.Event()
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._holder: AsyncGenerator[Any, None] | None = None

    async def open(self, settings: Settings) -> Connection:
        """Return the connection; the first to come opens it."""
        async with self._lock:
            if self._connection is None:
                holder = open_client(settings)
                client = await anext(holder)
                self._holder = holder
                places = asyncio.Semaphore(settings.max_connections)
                self._connection = Connection(client, places, client.meta.endpoint_url)
            return self._connection

    def require_done(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise RuntimeError if the client is still in another loop's use."""
        if self.loop is loop or self.loop.is_closed() or self.pid != os.getpid():
            return
        msg = (
            "this session's client belongs to another event loop that is still open; "
            "close it there first (aclose), or use one session for each loop"
        )
        raise RuntimeError(msg)

    async def close(self) -> None:
        """End the transfers under way, let them clean up, close the client."""
        if self.loop is not asyncio.get_running_loop() or self.pid != os.getpid():
            return
        self.closing = True
        for scope in self.borrowers:
            with suppress(RuntimeError):  # one that ends at this moment
                scope.reschedule(self.loop.time())
        if self.borrowers:
            await self.idle.wait()
        async with self._lock:
            holder, self._holder, self._connection = self._holder, None, None
            if holder is not None:
                await holder.aclose()

    def abandon(self) -> None:
        """Close a dropped session's client, from whatever thread drops it."""
        if self.pid == os.getpid():
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._start_closing)

    def _start_closing(self) -> None:
        # A loop that ends before it is done ends it too.
        task = self.loop.create_task(self.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)
