"""Credentials: botocore's chain of providers, but with one error of ours for whatever goes wrong in it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ConnectionError, HTTPClientError, NoCredentialsError  # noqa: A004

from lsst_lfa import errors
from lsst_lfa._transfer.failures import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiobotocore.session import AioSession

    from .settings import Settings

__all__ = ["prepare_credentials"]


async def prepare_credentials(session: AioSession, settings: Settings) -> None:
    """Check that a session has credentials, and that they can be sent.

    Raises
    ------
    TransportError, botocore.exceptions.BotoCoreError
        If there are none, or if they cannot be obtained.
    """
    if settings.access_key_id is not None:
        _check(settings.access_key_id, settings.secret_access_key, settings.session_token)
        return
    # For the services that a provider calls, such as STS: botocore would wait for minutes.
    limit = settings.connect_timeout
    session.set_default_client_config(
        AioConfig(connect_timeout=limit, read_timeout=limit, retries={"total_max_attempts": 2})
    )
    provider = _Provider(session.get_component("credential_provider"))
    session.register_component("credential_provider", provider)
    credentials = await session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    # Those of a role are requested only now. Later, this would happen on the event loop.
    frozen = await credentials.get_frozen_credentials()
    _check(frozen.access_key, frozen.secret_key, frozen.token)


def _check(access_key_id: str | None, secret_access_key: str | None, session_token: str | None) -> None:
    """Refuse credentials that are empty, or cannot be sent in a header."""
    if not access_key_id or not secret_access_key:
        raise NoCredentialsError
    for what, text in (
        ("access key ID", access_key_id),
        ("secret access key", secret_access_key),
        ("session token", session_token or ""),
    ):
        if not (text.isascii() and text.isprintable() and text == text.strip()):
            raise TransportError(
                errors.ConfigurationError,
                f"the {what} has white space around it, or characters that credentials cannot have",
                "Check the AWS_* variables, the profile, or the session's arguments.",
            )


class _Provider:
    """The chain of providers, which replaces the session's own."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def load_credentials(self) -> _Credentials | None:
        """Find credentials; `None` if there are none."""
        with _explained():
            found = await self._provider.load_credentials()
        return None if found is None else _Credentials(found)


class _Credentials:
    """botocore's credentials, which may have to be renewed at any time."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._credentials, name)

    async def get_frozen_credentials(self) -> Any:
        """Return the current credentials."""
        with _explained():
            return await self._credentials.get_frozen_credentials()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever a provider raises into one error.

    The user's own programs, files and services run here. They may raise
    anything, and botocore lets it through (JSONDecodeError, FileNotFoundError,
    a ClientError of STS, which is not the bucket's).
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BotoCoreError) and not isinstance(error, (HTTPClientError, ConnectionError)):
            raise
        raise TransportError(
            errors.MissingCredentialsError,
            f"the credentials could not be obtained ({type(error).__name__}: {error})",
            "Check the profile, and the program, the file or the service that it names.",
        ) from error
