"""The one client of an event loop: opened once, closed once."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore import UNSIGNED

from lsst_lfa._transfer.attempts import BucketClient, Slots
from lsst_lfa._transfer.concurrency import Turnstile
from lsst_lfa._transfer.failures import translate_error
from lsst_lfa.errors import ClosedError

from .factory import open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from lsst_lfa._transfer.config import TransferConfig
    from lsst_lfa._transfer.failures import RequestInfo

    from .data_requests import S3DataRequests
    from .settings import Settings

__all__ = ["SharedClient"]

log = logging.getLogger(__name__)

_ANONYMOUS = "The session is anonymous: use a session with credentials."
_NO_CREDENTIALS = (
    "No credentials were found, so the request was anonymous: "
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile."
)


class SharedClient:
    """The client that a session's buckets share, in whichever event loop is running.

    It is opened by the first task that borrows it, even if several arrive
    together, and belongs to the loop that opened it. When that loop has been
    closed, the next task that borrows it opens a new one. It can be dropped
    without being closed, and emits no warning.

    Attributes
    ----------
    settings : `Settings`
        The settings with which it is opened.
    closings : `int`
        Number of times that it was closed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closings = 0
        self._client: _LoopClient | None = None
        self._opened_endpoint_url: str | None = None
        self._warned = False

    @property
    def endpoint_url(self) -> str | None:
        """The service's URL; for AWS, `None` until the client is opened."""
        return self.settings.endpoint_url or self._opened_endpoint_url

    async def turn(self, closings: int | None = None) -> None:
        """Wait until it is an operation's turn to begin: only one does so in each turn of the event loop.

        An operation waits here first, because all tasks that are started
        together take their first step in a single turn of the loop.

        Parameters
        ----------
        closings : `int`, optional
            The value of ``closings`` when the operation started, if that was
            earlier.

        Raises
        ------
        RuntimeError
            If another event loop that is still open opened the client.
        ClosedError
            If the client has been closed since then: the operation is over.
        """
        begun = self.closings if closings is None else closings
        if begun == self.closings:
            await self._client_here().turn()
        if begun != self.closings:
            raise ClosedError(self._closed())

    @asynccontextmanager
    async def borrow(self, what: RequestInfo, config: TransferConfig) -> AsyncIterator[BucketClient]:
        """Borrow the client for one transfer; it is opened if necessary.

        Parameters
        ----------
        what, config
            What it is borrowed for.

        Raises
        ------
        RuntimeError
            If another event loop that is still open opened the client.
        ClosedError
            In the borrower's task, if `aclose` is called in the meantime.
        LfaError
            If the client cannot be opened.
        """
        self._warn(config)
        client = self._client_here()
        opened = await client.open(self.settings, what)
        self._opened_endpoint_url = opened.endpoint_url
        if client.closing:
            raise ClosedError(self._closed())
        try:
            async with asyncio.timeout(None) as scope:
                client.users.add(scope)
                yield BucketClient(
                    client=opened.client,
                    data=opened.data,
                    slots=opened.slots,
                    endpoint_url=opened.endpoint_url,
                    bucket=what.bucket,
                    config=config,
                    unsigned=self._unsigned(opened.client),
                )
        except TimeoutError:
            # `aclose` lets the users' scopes expire.
            if not (client.closing and scope.expired()):
                raise
            raise ClosedError(self._closed()) from None
        finally:
            client.left_by(scope)

    def _unsigned(self, client: Any) -> str:
        """Return why a client does not sign its requests; empty if it does."""
        if client.meta.config.signature_version is not UNSIGNED:
            return ""
        return _ANONYMOUS if self.settings.anonymous else _NO_CREDENTIALS

    def _warn(self, config: TransferConfig) -> None:
        if config.integrity == "unsigned" and (self.endpoint_url or "").startswith("http:") and not self._warned:
            self._warned = True
            log.warning(
                'integrity="unsigned" over http: only TCP\'s checksum protects the data sent to %s',
                self.endpoint_url,
            )

    def __reduce__(self) -> tuple[type[SharedClient], tuple[Settings]]:
        """Return the arguments for a copy, or a pickle: the copy opens its own client."""
        return type(self), (self.settings,)

    def _closed(self) -> str:
        return f"the client of {self.endpoint_url or 'AWS'} was closed while a transfer was in progress"

    def _client_here(self) -> _LoopClient:
        """Return this loop's client, or a new one if the old one's loop is gone."""
        loop = asyncio.get_running_loop()
        client = self._client
        if client is not None and client.loop is loop and not client.closing and client.pid == os.getpid():
            return client
        if client is not None:
            client.require_done(loop)
            self._forget()
        self._client = client = _LoopClient(loop)
        # A client that is dropped must be silent: see `_LoopClient.abandon`.
        self._finalizer = weakref.finalize(self, client.abandon)
        self._finalizer.atexit = False
        return client

    def _forget(self) -> _LoopClient | None:
        client, self._client = self._client, None
        if client is not None and client.pid == os.getpid():  # else it is the parent's client
            self._finalizer.detach()
        return client

    async def aclose(self) -> None:
        """Close the client. Idempotent; it is reopened on next use.

        Transfers in progress clean up, and fail with `ClosedError`. The client
        is closed even if the caller is cancelled, or is such a transfer.
        """
        self.closings += 1
        if self._client is not None:
            self._client.require_done(asyncio.get_running_loop())
        client = self._forget()
        if client is not None:
            await client.close()


class _Opened(NamedTuple):
    client: Any
    data: S3DataRequests
    slots: Slots
    endpoint_url: str


# A loop keeps only weak references to its tasks.
_closing: set[asyncio.Task[None]] = set()


class _LoopClient:
    """One event loop's client.

    The generator that holds the client open lives here, apart from the
    `SharedClient`, whose finalizer keeps it. When a loop ends it closes the
    generator itself (`shutdown_asyncgens`); were it collected together with
    the client, aiohttp would complain first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.closing = False
        self.users: set[asyncio.Timeout] = set()
        self.turn = Turnstile()
        self._idle = asyncio.Event()
        self._lock = asyncio.Lock()
        self._opened: _Opened | None = None
        self._holder: AsyncGenerator[Any, None] | None = None
        self._close_task: asyncio.Task[None] | None = None

    async def open(self, settings: Settings, what: RequestInfo) -> _Opened:
        """Return the open client; the first task opens it."""
        async with self._lock:
            if self._opened is None:
                holder = open_client(settings)
                try:
                    client, data = await anext(holder)
                except Exception as error:
                    failure = translate_error(error, what)
                    if failure is None:
                        raise
                    raise failure from error
                self._holder = holder
                slots = Slots.make(settings.max_connections, settings.max_rate)
                self._opened = _Opened(client, data, slots, client.meta.endpoint_url)
            return self._opened

    def require_done(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raise RuntimeError if another loop is still using the client."""
        if self.loop is loop or self.loop.is_closed() or self.pid != os.getpid():
            return
        msg = (
            "this session's client belongs to another event loop that is still open; "
            "close it there first (aclose), or use one session for each loop"
        )
        raise RuntimeError(msg)

    def left_by(self, scope: asyncio.Timeout) -> None:
        """Note that a user has finished."""
        self.users.discard(scope)
        if self.closing and not self.users:
            self._idle.set()

    async def close(self) -> None:
        """End the transfers in progress, let them clean up, and close the client."""
        if self.loop is asyncio.get_running_loop() and self.pid == os.getpid():
            # The caller may be cancelled, or be one of those transfers: the task goes on.
            await asyncio.shield(self._start_closing())

    def _start_closing(self) -> asyncio.Task[None]:
        if self._close_task is None:
            self.closing = True
            for scope in self.users:
                with suppress(RuntimeError):  # one that ends at this moment
                    scope.reschedule(self.loop.time())
            # A loop that ends before it is done ends it too.
            self._close_task = self.loop.create_task(self._close())
            _closing.add(self._close_task)
            self._close_task.add_done_callback(_closing.discard)
        return self._close_task

    async def _close(self) -> None:
        try:
            if self.users:
                await self._idle.wait()
        finally:
            async with self._lock:
                holder, self._holder, self._opened = self._holder, None, None
                if holder is not None:
                    await holder.aclose()

    def abandon(self) -> None:
        """Close a dropped client, from whatever thread drops it."""
        if self.pid == os.getpid():
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._start_closing)
