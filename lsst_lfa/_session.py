"""`S3Session`: an endpoint, credentials, and the buckets that share them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Self

from . import _urls
from ._bucket import AsyncS3Bucket
from ._client.loop_client import SharedClient
from ._client.settings import Settings
from ._public import public
from ._transfer.config import TransferConfig
from ._transfer.failures import RequestInfo

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from ._client.settings import AddressingStyle
    from ._mock.server import MockS3Server

__all__ = ["S3Session"]

log = logging.getLogger(__name__)


@public
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
    anonymous : `bool` or `None`, optional
        Sign nothing, and look for no credentials: for what anybody may read.
        `None`: only if there are no credentials.
    addressing_style : {"path", "virtual", "auto"}, optional
        Whether requests name the bucket in the path, or in the host
        (``bucket.host``). By default as the profile says (``s3 =
        addressing_style``), or else in the path if there is an endpoint. The
        URLs that `AsyncS3Bucket.upload` returns are not changed by it.
    max_connections : `int`, optional
        Connections that all transfers share.
    connect_timeout : `float`, optional
        Seconds to wait for a connection; and for the response of a service
        that grants credentials, such as STS.
    max_rate : `float`, optional
        Bytes per second, both ways together, that all transfers share; `None`
        is no limit.
    config : `TransferConfig`, optional
        How this session's buckets carry out transfers.

    Attributes
    ----------
    config : `TransferConfig`
        As given, or the default.

    Raises
    ------
    ValueError
        If the endpoint is not an http(s) URL, if only one of the two explicit
        credentials is given, or any with ``anonymous``, or if another argument
        is out of bounds.

    Notes
    -----
    A copy, or an unpickled session, has the same settings and is not open.
    Hazard: a pickle contains explicit credentials.
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
        anonymous: bool | None = False,
        addressing_style: AddressingStyle | None = None,
        max_connections: int = 128,
        connect_timeout: float = 3.0,
        max_rate: float | None = None,
        config: TransferConfig | None = None,
    ) -> None:
        endpoint_url = os.environ.get("S3_ENDPOINT_URL") if endpoint_url is None else endpoint_url
        settings = Settings(
            endpoint_url=_urls.clean_endpoint(endpoint_url),
            profile=profile,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            region=region,
            verify=verify if verify is None or isinstance(verify, bool) else str(verify),
            anonymous=anonymous,
            addressing_style=addressing_style,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            max_rate=max_rate,
        )
        if verify is False:
            log.warning("verify=False: any server that responds as %s is trusted", settings.endpoint_url or "AWS")
        self._set_up(settings, config)

    def _set_up(self, settings: Settings, config: TransferConfig | None) -> None:
        self.config = config or TransferConfig()
        self._client = SharedClient(settings)

    @classmethod
    def for_mock(cls, server: MockS3Server, config: TransferConfig | None = None) -> Self:
        """Make a session on a mock server, whatever the environment says."""
        session = cls.__new__(cls)
        session._set_up(Settings.for_mock(server), config)  # noqa: SLF001 - its own, in place of __init__
        return session

    @property
    def endpoint_url(self) -> str | None:
        """The service; for AWS's own, `None` until the client is opened."""
        return self._client.endpoint_url

    def __repr__(self) -> str:
        settings = self._client.settings
        return f"S3Session(endpoint_url={settings.endpoint_url!r}, profile={settings.profile!r})"

    def bucket(self, name: str, *, create: bool = False, config: TransferConfig | None = None) -> AsyncS3Bucket:
        """Return a bucket on this session. No I/O; see `AsyncS3Bucket`."""
        return AsyncS3Bucket(name, create=create, session=self, config=config)

    async def aclose(self) -> None:
        """Close the client. Idempotent; the next await opens afresh.

        Transfers under way end with `ClosedError`, after cleaning up.
        """
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        async with self._client.borrow(RequestInfo("open", "", None, self.endpoint_url or "AWS"), self.config):
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
