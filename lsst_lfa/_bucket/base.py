"""What every operation of a bucket needs: its name, its client, its lifetime."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

from lsst_lfa import _urls, naming
from lsst_lfa._client.boto3_resource import service_resource
from lsst_lfa._client.loop_client import SharedClient
from lsst_lfa._client.settings import Settings
from lsst_lfa._mock.server import MockS3Server
from lsst_lfa._transfer import operations
from lsst_lfa._transfer.attempts import transfer
from lsst_lfa._transfer.config import TransferConfig
from lsst_lfa._transfer.failures import RequestInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from lsst_lfa._transfer.attempts import BucketClient

__all__ = ["BucketBase"]


class _Session(Protocol):
    """The part of an `S3Session`, one layer up, that a bucket needs."""

    config: TransferConfig
    _client: SharedClient


class BucketBase:
    """A bucket without operations; see `AsyncS3Bucket`."""

    def __init__(
        self,
        name: str,
        domock: bool = False,  # noqa: FBT001, FBT002 - specified so
        *,
        create: bool = False,
        profile: str | None = None,
        session: _Session | None = None,
        config: TransferConfig | None = None,
    ) -> None:
        naming.check_bucket(name)
        if session is not None and (profile is not None or domock):
            msg = "a session has its own profile and endpoint: pass either session, or profile or domock"
            raise ValueError(msg)
        self.name = name
        self.profile = profile
        self._mock = MockS3Server() if domock else None
        self._owns_client = session is None
        self._client = self._make_client() if session is None else session._client  # noqa: SLF001 - internal to this package
        self._config = config or (TransferConfig() if session is None else session.config)
        self._create = create
        self._created = False

    def _make_client(self) -> SharedClient:
        if self._mock is None:
            return SharedClient(Settings.from_environment(self.profile))
        self._mock.start()
        try:
            self._mock.create_bucket(self.name)
        except BaseException:
            self._mock.stop()
            raise
        return SharedClient(Settings.for_mock(self._mock))

    def __repr__(self) -> str:
        return f"AsyncS3Bucket({self.name!r}, endpoint_url={self._client.settings.endpoint_url!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy, which gets its own client, and uses the same mock server, if any."""
        state = {name: value for name, value in vars(self).items() if name not in {"service_resource", "bucket"}}
        mocks = {name: None for name, value in state.items() if isinstance(value, MockS3Server)}
        return state | mocks | {"_created": False}

    @cached_property
    def service_resource(self) -> Any:
        """boto3's synchronous ``ServiceResource`` on the same service.

        Its endpoint, ``service_resource.meta.client.meta.endpoint_url``, is
        known at once. Warning: any other use first loads boto3's client, which
        blocks for 0.1 to 0.2 s, and every request blocks as well.
        """
        return service_resource(self._client.settings, self._client.endpoint_url)

    @cached_property
    def bucket(self) -> Any:
        """boto3's synchronous ``Bucket``; see `service_resource`."""
        return self.service_resource.Bucket(self.name)

    def url(self, key: str) -> str:
        """Return an object's URL, ``{endpoint}/{bucket}/{key}``, not percent-encoded. It contains no credentials."""
        return _urls.object_url(self._endpoint_url, self.name, naming.check_key(key))

    @property
    def _endpoint_url(self) -> str:
        known = self._client.endpoint_url
        return known if known is not None else str(self.service_resource.meta.client.meta.endpoint_url)

    def stop_mock(self) -> None:
        """Stop the mock S3 server, if one is running."""
        if self._mock is not None:
            self._mock.stop()

    async def aclose(self) -> None:
        """Close the client, and stop the mock server. Idempotent.

        Transfers in progress fail with `ClosedError`. Unless there is a mock
        server, the client is reopened on next use. A session that was passed
        in stays open.
        """
        try:
            if self._owns_client:
                await self._client.aclose()
        finally:
            self.stop_mock()

    async def __aenter__(self) -> Self:
        async with self._borrow("open", None):
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _borrow(
        self,
        verb: str,
        key: str | None,
        limit: float | None = None,
        *,
        config: TransferConfig | None = None,
        create: bool = True,
    ) -> AsyncIterator[BucketClient]:
        """Borrow the client for one operation, which errors then name."""
        what = RequestInfo(verb, self.name, key, self._client.endpoint_url or "AWS")
        borrowed = self._client.borrow(what, config or self._config)
        async with transfer(what, limit), borrowed as client:
            if self._create and create and not self._created:
                await operations.create_bucket(client, hidden=True)
                self._created = True
            yield client

    def _borrow_repeatedly(self, verb: str, key: str | None) -> Callable[[], AbstractAsyncContextManager[BucketClient]]:
        """Return a function that borrows the client for one request of an operation that may outlive the client.

        Once the client is closed, that fails: it must not open another one, which nobody would close.
        """
        closings = self._client.closings

        @asynccontextmanager
        async def borrow() -> AsyncIterator[BucketClient]:
            await self._client.turn(closings)
            async with self._borrow(verb, key) as client:
                yield client

        return borrow
