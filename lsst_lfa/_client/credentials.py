"""Credentials: botocore's chain of providers, but whatever goes wrong in it is one error of ours."""

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
    """Make sure that a session has credentials, and that they can be sent.

    Raises
    ------
    TransportError, botocore.exceptions.BotoCoreError
        If there are none, or if they cannot be had.
    """
    if settings.access_key_id is not None:
        _check(settings.access_key_id, settings.secret_access_key, settings.session_token)
        return
    # For the services that a provider asks, as STS: botocore would wait for minutes.
    limit = settings.connect_timeout
    session.set_default_client_config(
        AioConfig(connect_timeout=limit, read_timeout=limit, retries={"total_max_attempts": 2})
    )
    provider = _Provider(session.get_component("credential_provider"))
    session.register_component("credential_provider", provider)
    credentials = await session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    # Those of a role are asked for only now. Later on the event loop would have to.
    frozen = await credentials.get_frozen_credentials()
    _check(frozen.access_key, frozen.secret_key, frozen.token)


def _check(access_key_id: str | None, secret_access_key: str | None, session_token: str | None) -> None:
    """Refuse what cannot be sent in a header, or is none."""
    if not access_key_id or not secret_access_key:
        raise NoCredentialsError
    for what, text in (
        ("access key id", access_key_id),
        ("secret access key", secret_access_key),
        ("session token", session_token or ""),
    ):
        if not (text.isascii() and text.isprintable() and text == text.strip()):
            raise TransportError(
                errors.ConfigurationError,
                f"the {what} has white space around it, or characters that no credentials have",
                "Check the AWS_* variables, the profile, or the session's arguments.",
            )


class _Provider:
    """The chain of providers, in place of the session's own."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def load_credentials(self) -> _Credentials | None:
        """Find credentials; `None` if there are none."""
        with _explained():
            found = await self._provider.load_credentials()
        return None if found is None else _Credentials(found)


class _Credentials:
    """botocore's credentials, which may have to be got anew at any time."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._credentials, name)

    async def get_frozen_credentials(self) -> Any:
        """Return the credentials as they are now."""
        with _explained():
            return await self._credentials.get_frozen_credentials()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever a provider raises into one error.

    Programs, files and services of the user's are at work here: they may do
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
            f"the credentials could not be had ({type(error).__name__}: {error})",
            "Check the profile, and the program, the file or the service that it names.",
        ) from error
