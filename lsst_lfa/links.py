"""`download_url`: an object by its URL, as an event tells it or presigned."""

from __future__ import annotations

import re
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote

from . import errors, naming
from .session import S3Session
from .transfer.diagnosis import Reading, Request, service_error

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from .config import TransferConfig
    from .transfer.progress import Callback

__all__ = ["PresignedUrl", "download_url", "parse_presigned", "read_refusal"]

_SIGNATURES = ({"X-Amz-Signature"}, {"AWSAccessKeyId", "Signature"})
_AWS_VIRTUAL_HOST = re.compile(r"(?i)(https?://)(?:[^/]*@)?([^/@]+)\.(s3[.-][^/]*\bamazonaws\.com(?:\.cn)?)/")
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
    presigned = parse_presigned(url) if isinstance(url, str) else None
    endpoint_url, name, key = naming.split_url(url) if presigned is None else presigned.place
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


class PresignedUrl(NamedTuple):
    """A URL that authorises whoever has it, and what it tells of itself. Its repr does not show it.

    Attributes
    ----------
    url : `str`
        What to ask for, to the letter: the quoting may be part of what was signed.
    place : `tuple` [`str` or `None`, `str`, `str`]
        Endpoint, bucket and key.
    expires : `datetime.datetime`
        Until when it is valid.
    """

    url: str
    place: tuple[str | None, str, str]
    expires: datetime

    def __repr__(self) -> str:
        return f"PresignedUrl(place={self.place!r}, expires={self.expires!r})"


def parse_presigned(url: str) -> PresignedUrl | None:
    """Take a presigned URL apart, of signature version 4 or 2.

    Returns
    -------
    presigned : `PresignedUrl` or `None`
        `None` if it has no signature.

    Raises
    ------
    ValueError
        If it has one, but is not in order. The message does not show it.
    """
    head, _, rest = url.partition("?")
    query = rest.partition("#")[0]
    values = dict(parse_qsl(query))
    if not any(signature <= values.keys() for signature in _SIGNATURES):
        return None
    place = naming.split_url(unquote(_AWS_VIRTUAL_HOST.sub(r"\1\3/\2/", head)))
    wrong = f"the presigned url of s3://{place[1]}/{place[2]} is not as it was made: "
    if not (url.isascii() and url.isprintable()) or " " in url:
        msg = f"{wrong}it is not quoted"
        raise ValueError(msg)
    try:
        expires = _expiry(values)
    except (KeyError, ValueError, OverflowError):
        msg = f"{wrong}it does not tell when it expires"
        raise ValueError(msg) from None
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    return PresignedUrl(f"{naming.clean_endpoint(f'{scheme}://{host}')}/{path}?{query}", place, expires)


def _expiry(values: dict[str, str]) -> datetime:
    if "X-Amz-Signature" in values:
        made = datetime.strptime(values["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
        return made + timedelta(seconds=int(values["X-Amz-Expires"]))
    return datetime.fromtimestamp(int(values["Expires"]), UTC)


def read_refusal(error: errors.AccessDeniedError, expires: datetime) -> Reading:
    """Decide what it means that a presigned URL was refused.

    AWS and SeaweedFS say "Request has expired"; Ceph says AccessDenied and no
    more, so that the server's time has to tell. Ours may be off.

    Parameters
    ----------
    error : `AccessDeniedError`
        The refusal.
    expires : `datetime.datetime`
        When the URL expires by what stands in it.
    """
    kind = type(error)
    over = _time_of(error) >= expires
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
