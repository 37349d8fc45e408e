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
    """Credentials, an endpoint, and the one client that its buckets share.

    The client is opened once, on first use or by ``async with``, even if
    several tasks arrive together. It belongs to the event loop that opened it:
    to use the session in another one meanwhile is a RuntimeError; once that
    loop is closed, the next use opens a new client. Creating a session does no
    I/O and needs no event loop. A session that is dropped without being closed
    emits no warning.

    Parameters
    ----------
    endpoint_url : `str`, optional
        The service's URL, by default ``S3_ENDPOINT_URL``; blank means AWS.
        Credentials in the URL are removed.
    profile : `str`, optional
        A profile in the AWS configuration files.
    access_key_id, secret_access_key, session_token : `str`, optional
        Explicit credentials. If omitted, the usual AWS chain is searched:
        environment, profile, files, instance metadata.
    region : `str`, optional
        By default that of the environment or the profile, otherwise
        ``us-east-1``.
    verify : `bool`, `str` or `pathlib.Path`, optional
        A file of certificate authorities for https, by default
        ``AWS_CA_BUNDLE``. `False` disables the verification of certificates,
        and logs a warning.
    anonymous : `bool` or `None`, optional
        Send unsigned requests and look for no credentials, for public data.
        `None`: only if no credentials are found.
    addressing_style : {"path", "virtual", "auto"}, optional
        Whether requests name the bucket in the path, or in the host
        (``bucket.host``). By default the profile's ``addressing_style``;
        otherwise "path" if there is an endpoint. This does not affect the URLs
        that `AsyncS3Bucket.upload` returns.
    max_connections : `int`, optional
        Maximum number of connections, shared by all transfers.
    connect_timeout : `float`, optional
        Seconds to wait for a connection; and for the response of a service
        that grants credentials, such as STS.
    max_rate : `float`, optional
        Maximum bytes per second, uploads and downloads together, shared by all
        transfers; `None` means no limit.
    config : `TransferConfig`, optional
        Transfer settings for this session's buckets.

    Attributes
    ----------
    config : `TransferConfig`
        As given, or the default.

    Raises
    ------
    ValueError
        If the endpoint is not an http(s) URL, if only one of the two keys is
        given, if any of the credentials is combined with ``anonymous``, or if
        another argument is out of range.

    Notes
    -----
    Copies and unpickled sessions have the same settings, and are not open.
    Warning: a pickle contains explicit credentials.
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
            log.warning(
                "verify=False: certificates are not verified, so any server that responds as %s is trusted",
                settings.endpoint_url or "AWS",
            )
        self._set_up(settings, config)

    def _set_up(self, settings: Settings, config: TransferConfig | None) -> None:
        self.config = config or TransferConfig()
        self._client = SharedClient(settings)

    @classmethod
    def for_mock(cls, server: MockS3Server, config: TransferConfig | None = None) -> Self:
        """Create a session for a mock server, whatever the environment says."""
        session = cls.__new__(cls)
        session._set_up(Settings.for_mock(server), config)  # noqa: SLF001 - its own, in place of __init__
        return session

    @property
    def endpoint_url(self) -> str | None:
        """The service's URL; for AWS, `None` until the client is opened."""
        return self._client.endpoint_url

    def __repr__(self) -> str:
        settings = self._client.settings
        return f"S3Session(endpoint_url={settings.endpoint_url!r}, profile={settings.profile!r})"

    def bucket(self, name: str, *, create: bool = False, config: TransferConfig | None = None) -> AsyncS3Bucket:
        """Return a bucket on this session. No I/O; see `AsyncS3Bucket`."""
        return AsyncS3Bucket(name, create=create, session=self, config=config)

    async def aclose(self) -> None:
        """Close the client. Idempotent; the client is reopened on next use.

        Transfers in progress clean up, and fail with `ClosedError`.
        """
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        async with self._client.borrow(RequestInfo("open", "", None, self.endpoint_url or "AWS"), self.config):
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
