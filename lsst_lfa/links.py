"""`download_url`: an object by its URL, as an event tells it or presigned."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from . import errors
from ._urls import parse_presigned, split_url
from .session import S3Session
from .transfer.diagnosis import Reading, Request, service_error

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from .config import TransferConfig
    from .transfer.progress import Callback

__all__ = ["download_url", "read_refusal"]

_CURES = {
    errors.AccessDeniedError: "Whoever made the URL may not read the object.",
    errors.ClockSkewError: "The URL was made by a clock that differs too much from the server's.",
    errors.UnknownKeyIdError: "The server no longer knows who made the URL: ask for a new one.",
    errors.WrongSecretError: "The URL was altered or cut short, or is not for downloads: take it exactly as it was.",
}
_MAYBE_EXPIRED = {errors.AccessDeniedError, errors.ClockSkewError}


async def download_url(
    url: str,
    callback: Callback | None = None,
    *,
    verify: bool | str | Path | None = None,
    config: TransferConfig | None = None,
) -> io.BytesIO:
    """Download an object by its URL into memory; guarantees as `AsyncS3Bucket.download` gives them.

    Parameters
    ----------
    url : `str`
        Either an object's URL as `AsyncS3Bucket.upload` returns it, unquoted,
        or ``s3://bucket/key``, at the environment's endpoint: downloaded with
        the environment's credentials. Or a presigned URL, exactly as it was
        given: it is all that is needed, and no credentials are looked up.
    callback : callable, optional
        Called with the number of bytes received since its last call; see
        `AsyncS3Bucket.upload`.
    verify : `bool`, `str` or `pathlib.Path`, optional
        A file of certificate authorities for https; see `S3Session`.
    config : `TransferConfig`, optional
        How the transfer is carried out.

    Returns
    -------
    fileobj : `io.BytesIO`
        The data, at position 0.

    Raises
    ------
    ValueError
        If it is no such URL.
    ExpiredUrlError
        If it is a presigned URL whose time is over, or ends meanwhile.
    LfaError
        If the service failed; see `lsst_lfa.errors`.

    Notes
    -----
    It opens a client of its own each time; for many objects of one service
    use an `S3Session`. The credentials' session token, but never the secret
    key, goes to the host that the URL names.
    """
    presigned = parse_presigned(url)
    endpoint_url, name, key = split_url(url) if presigned is None else presigned.place
    session = S3Session(endpoint_url=endpoint_url, verify=verify, config=config)
    if presigned is not None:
        session.settings = replace(session.settings, presigned_url=presigned.url, hermetic=True, region="us-east-1")
    async with aclosing(session):
        try:
            return await session.bucket(name).download(key, callback)
        except errors.AccessDeniedError as error:
            if presigned is None:
                raise
            request = Request("download", name, key, str(session.endpoint_url))
            raise service_error(error, request, read_refusal(error, presigned.expires)) from error.__cause__


def read_refusal(error: errors.AccessDeniedError, expires: datetime | None) -> Reading:
    """Decide what it means that a presigned URL was refused.

    AWS and SeaweedFS say "Request has expired"; Ceph says AccessDenied and no
    more, so that the server's time has to tell. Ours may be off.

    Parameters
    ----------
    error : `AccessDeniedError`
        The refusal.
    expires : `datetime.datetime` or `None`
        When the URL expires by what stands in it.
    """
    kind = type(error)
    over = expires is not None and _time_of(error) >= expires
    said = str(error.response.get("Error", {}).get("Message")).lower()
    if kind is errors.ExpiredCredentialsError or (kind in _MAYBE_EXPIRED and (over or "expired" in said)):
        when = f" at {expires:%Y-%m-%dT%H:%M:%SZ}" if over else " before its time, with who made it"
        return Reading(errors.ExpiredUrlError, f"The URL has expired{when}: ask for a new one.")
    return Reading(kind, _CURES[kind])


def _time_of(error: errors.ServiceError) -> datetime:
    """Return the server's time when it answered; ours for want of it."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        # HTTP's dates are all of this zone.
        return parsedate_to_datetime(headers["date"]).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)
