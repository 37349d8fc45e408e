"""Carries out single S3 requests, and retries them: slots, time limits, attempts, errors."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from lsst_lfa.errors import LfaError, TransferTimeoutError, UnavailableError

from .concurrency import Turnstile
from .failures import RequestInfo, translate_error
from .lanes import Lanes
from .rate import RateLimiter
from .responses import require_proof
from .retry import RetryPolicy
from .timeouts import StallTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    import aiohttp

    from .config import TransferConfig

__all__ = ["Attempts", "BucketClient", "DataRequests", "Requester", "Slots", "transfer"]

log = logging.getLogger(__name__)


class Slots(NamedTuple):
    """How many requests a client may send in parallel.

    aiobotocore signs a request before it waits for a connection, where the
    signature may expire and no time limit applies: so take a slot first, then
    make the request. Clean-up never waits for transfers. A request that
    carries much data also takes a lane, before its data are read.
    """

    transfers: asyncio.Semaphore
    cleanup: asyncio.Semaphore
    up: Lanes
    down: Lanes
    rate: RateLimiter
    turn: Turnstile

    @classmethod
    def make(cls, connections: int, max_rate: float | None = None) -> Self:
        """Make the slots of a client with this many connections, and as many for clean-up."""
        each = asyncio.Semaphore(connections), asyncio.Semaphore(connections)
        return cls(*each, Lanes(connections), Lanes(connections), RateLimiter(max_rate), Turnstile())

    def took(self, seconds: float) -> None:
        """Note how long a request without data took."""
        self.up.took(seconds)
        self.down.took(seconds)

    def throttled(self) -> None:
        """Note that the server asked us to slow down."""
        self.up.throttled()
        self.down.throttled()


@dataclass(frozen=True, kw_only=True)
class Requester:
    """What all requests to one bucket have in common.

    Attributes
    ----------
    bucket, endpoint_url : `str`
        For the requests, and for error messages.
    config : `TransferConfig`
        Limits.
    slots : `Slots`
        Of the client.
    unsigned : `str`
        Why the requests are unsigned, and the remedy; empty if they are
        signed.
    """

    bucket: str
    endpoint_url: str
    config: TransferConfig
    slots: Slots
    unsigned: str = ""

    def info(self, operation: str, key: str | None = None) -> RequestInfo:
        """Name a request, for messages."""
        return RequestInfo(operation, self.bucket, key, self.endpoint_url, self.unsigned)

    def attempts(self, operation: str, key: str | None = None, *, extra_timeout: float = 0.0) -> Attempts:
        """Return the attempts of one request; see `Attempts`."""
        return Attempts(self.info(operation, key), self.config, self.slots, extra_timeout)


class DataRequests(Protocol):
    """Sends and receives the data of objects, in one attempt."""

    async def get(self, bucket: str, key: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a GET, with ``Range`` and ``If-Match`` as given; nothing of the body has been read."""

    async def put(self, operation: str, bucket: str, key: str, body: Any, **params: Any) -> Mapping[str, Any]:
        """Send a body; the response has an ``ETag``, if the server sent one."""


@dataclass(frozen=True, kw_only=True)
class BucketClient(Requester):
    """Carries out one bucket's requests through an open client.

    Attributes
    ----------
    client
        An open aiobotocore client that does not retry by itself.
    data : `DataRequests`
        For the requests that carry an object's data.
    """

    client: Any
    data: DataRequests

    async def call(self, operation: str, key: str | None = None, *, extra_timeout: float = 0.0, **params: Any) -> Any:
        """Carry out a request whose response is small, and return that response.

        Parameters
        ----------
        operation : `str`
            The client's method, e.g. ``head_object``.
        key : `str` or `None`
            The object; `None` for the bucket itself.
        extra_timeout : `float`
            Seconds to wait for the response beyond ``stall_timeout``.
        **params
            The operation's other parameters.
        """
        if key is not None:
            params["Key"] = key
        async for attempt in self.attempts(operation, key, extra_timeout=extra_timeout):
            async with attempt as timeout:
                response = await getattr(self.client, operation)(Bucket=self.bucket, **params)
                self.slots.took(timeout.idle)
                require_proof(self.info(operation, key), response)
        return response

    @asynccontextmanager
    async def for_cleanup(self) -> AsyncIterator[BucketClient]:
        """Take one of the slots that are reserved for clean-up, for the duration of the block."""
        async with self.slots.cleanup:
            yield replace(self, slots=self.slots._replace(transfers=asyncio.Semaphore()))


@asynccontextmanager
async def transfer(what: RequestInfo, limit: float | None) -> AsyncIterator[None]:
    """Limit a whole transfer to some seconds, and name it in errors that it raises."""
    try:
        async with asyncio.timeout(limit) as scope:
            yield
    except LfaError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and scope.expired():
            cause, hint = f"it took more than {limit} s", "Raise TransferConfig.total_timeout, or the timeout argument."
            raise what.failed(TransferTimeoutError, cause, hint, transient=True) from None
        error.add_note(f"raised during the {what}")
        raise


class Attempts:
    """The attempts of one request, as blocks.

    Iterate over it, and do the request in a block of the attempt::

        async for attempt in client.attempts("head_object", key):
            async with attempt:
                response = await client.client.head_object(Bucket=..., Key=key)

    A block that ends normally ends the iteration. One that fails is repeated
    after a pause, as long as a retry may help; then its error is raised, as an
    `LfaError`. Anything that neither the network nor the server caused
    propagates at once and unchanged.
    """

    def __init__(self, request: RequestInfo, config: TransferConfig, slots: Slots, extra_timeout: float) -> None:
        self._request = request
        self._config = config
        self._slots = slots
        self._extra_timeout = extra_timeout
        self._policy = RetryPolicy(config)
        self._delay: float | None = 0.0
        self._count = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Attempt:
        if self._delay is None:
            raise StopAsyncIteration
        if self._delay:
            await asyncio.sleep(self._delay)
        self._delay = None
        self._count += 1
        return _Attempt(self._slots, StallTimeout(self._config, self._extra_timeout), self._failed)

    def _failed(self, error: Exception, timeout: StallTimeout) -> bool:
        """Plan the next attempt; or return False, or raise, to give up."""
        failure = None if error is timeout.caller_error else translate_error(error, self._request)
        if failure is None:
            return False
        if isinstance(failure, UnavailableError):
            self._slots.throttled()
        self._delay = self._policy.delay_after(failure, timeout)
        if self._delay is not None:
            log.debug("%s; trying again in %.1f s", failure, self._delay)
            return True
        failure.attempts = self._count
        if failure is error:
            return False
        try:
            raise failure from error
        finally:
            del failure  # its traceback has this frame, so that only the garbage collector would free both


class _Attempt:
    """One attempt: it holds a slot, and is limited in time."""

    def __init__(self, slots: Slots, timeout: StallTimeout, failed: Any) -> None:
        self._slots = slots
        self._timeout = timeout
        self._failed = failed

    async def __aenter__(self) -> StallTimeout:
        await self._slots.transfers.acquire()
        try:
            await self._slots.turn()
            return await self._timeout.__aenter__()
        except BaseException:
            self._slots.transfers.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as expired:
            error = expired
        finally:
            self._slots.transfers.release()
        return isinstance(error, Exception) and self._failed(error, self._timeout)
