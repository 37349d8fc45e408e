"""`download_url`: an object by its URL, from an event or presigned."""

from __future__ import annotations

import asyncio
import io
import os
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from multidict import CIMultiDict

from . import errors
from ._bucket_for import make_session
from ._client.error_responses import client_error
from ._client.http import HttpSession, read_body
from ._public import public
from ._transfer.attempts import Requester, Slots, transfer
from ._transfer.concurrency import in_thread
from ._transfer.config import TransferConfig
from ._transfer.download import download
from ._transfer.download import verify as verify_download
from ._transfer.failures import ErrorRule, service_error
from ._transfer.progress import Progress
from ._transfer.responses import server_time
from ._transfer.retry import back_off
from ._transfer.sinks import FileSink, MemorySink, new_file
from ._transfer.sources import open_source
from ._urls import FileUrl, PresignedUrl, parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    import aiohttp

    from ._transfer.attempts import Attempts
    from ._transfer.progress import Callback

__all__ = ["download_url", "explain_refusal", "save_url", "wait_for"]

T = TypeVar("T")

_HINTS = {
    errors.AccessDeniedError: "The user who signed the URL is not allowed to read the object.",
    errors.ClockSkewError: "The URL was signed on a machine whose clock differs too much from the server's.",
    errors.UnknownKeyIdError: "The server no longer knows the user who signed the URL: ask for a new one.",
    errors.WrongSecretError: "The URL was altered or cut short, or is not for downloads: use it as it was issued.",
}
_MAYBE_EXPIRED = {errors.AccessDeniedError, errors.ClockSkewError}
_CONNECT_TIMEOUT = 3.0
# Bytes that are read from a file at once.
_COPIED = 1024 * 1024
# Seconds between two checks for an object that does not exist yet.
_FIRST_LOOK = 0.2
_LONGEST_DELAY = 1.0


@public
async def download_url(
    url: str,
    callback: Callback | None = None,
    *,
    wait: float = 0.0,
    verify: bool | str | Path | None = None,
    config: TransferConfig | None = None,
) -> io.BytesIO:
    """Download an object by its URL into memory, with the guarantees of `AsyncS3Bucket.download`.

    Parameters
    ----------
    url : `str`
        Either an object's URL, as for `bucket_for`, which is downloaded with
        the environment's credentials, or anonymously if there are none; or a
        presigned URL, exactly as it was issued, for which no credentials are
        needed or looked up; or a file's, ``file:///path``, percent-encoded.
    callback : callable, optional
        Called with the number of bytes received since its last call; see
        `AsyncS3Bucket.upload`.
    wait : `float`, optional
        How long to wait for an object that does not exist yet, in seconds.
        This includes objects to which access is denied, because that is how a
        service may report a missing object to a user who may not list the
        bucket.
    verify : `bool`, `str` or `pathlib.Path`, optional
        A file of certificate authorities for https; see `S3Session`.
    config : `TransferConfig`, optional
        Transfer settings.

    Returns
    -------
    fileobj : `io.BytesIO`
        The data, at position 0.

    Raises
    ------
    ValueError
        If the URL has none of these forms.
    KeyNotFoundError
        If there is no such object, after ``wait`` seconds.
    ExpiredUrlError
        If a presigned URL has expired, or expires during the download.
    OSError
        If a file cannot be read.
    LfaError
        If the request failed; see `lsst_lfa.errors`.

    Notes
    -----
    Each call opens its own client; for many objects of one service, use an
    `S3Session`. The session token, but never the secret key, is sent to the
    host that the URL names.
    """
    parsed = parse_url(url)
    if isinstance(parsed, FileUrl):
        return await wait_for(lambda: _read_file(parsed.path, callback), wait)
    if isinstance(parsed, PresignedUrl):
        limits = config or TransferConfig()
        return await wait_for(lambda: _download_presigned(parsed, callback, verify, limits), wait)
    async with aclosing(make_session(parsed, verify=verify, config=config)) as session:
        bucket = session.bucket(parsed.bucket)
        return await wait_for(lambda: bucket.download(parsed.key, callback), wait)


async def wait_for(download: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Download an object that may not exist yet; see `download_url`."""
    if not seconds >= 0:  # also refuses NaN, which would never end
        msg = f"wait is {seconds!r}; it must be a number of seconds, 0 or more"
        raise ValueError(msg)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    failures = 0
    while True:
        try:
            return await download()
        except (FileNotFoundError, errors.AccessDeniedError) as error:
            left = end - loop.time()
            if left <= 0 or isinstance(error, errors.BucketNotFoundError):
                raise
        failures += 1
        delay = back_off(_FIRST_LOOK, failures, random.random())  # noqa: S311 - not a secret
        await asyncio.sleep(min(delay, _LONGEST_DELAY, left))


async def _read_file(path: Path, callback: Callback | None) -> io.BytesIO:
    progress = Progress(callback)
    data = await in_thread(path.read_bytes)
    progress.advance(len(data))
    await progress.finish()
    return io.BytesIO(data)


async def save_url(
    url: FileUrl | PresignedUrl, path: Path, callback: Callback | None, config: TransferConfig | None = None
) -> None:
    """Save the object of such a URL to a file, all or nothing."""
    async with new_file(path) as sink:
        if isinstance(url, FileUrl):
            await _copy_file(url.path, sink, Progress(callback))
        else:
            await _fetch_presigned(url, sink, callback, None, config or TransferConfig())


async def _copy_file(source: Path, sink: FileSink, progress: Progress) -> None:
    position = 0
    async with open_source(source) as file:
        while views := await file.read(_COPIED):
            for view in views:
                await sink.write(view, position)
                position += view.nbytes
                progress.advance(view.nbytes)
            await progress.report()
    await progress.finish()


async def _download_presigned(
    presigned: PresignedUrl,
    callback: Callback | None,
    verify: bool | str | Path | None,  # noqa: FBT001 - as `download_url` has it
    config: TransferConfig,
) -> io.BytesIO:
    sink = MemorySink()
    try:
        await _fetch_presigned(presigned, sink, callback, verify, config)
    finally:
        sink.close()
    return sink.file


async def _fetch_presigned(
    presigned: PresignedUrl,
    sink: MemorySink | FileSink,
    callback: Callback | None,
    verify: bool | str | Path | None,  # noqa: FBT001 - as `download_url` has it
    config: TransferConfig,
) -> None:
    progress = Progress(callback)
    if verify is None:
        verify = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    proxies = {} if proxy_bypass(urlsplit(presigned.url).netloc) else getproxies()
    http = HttpSession(
        timeout=_CONNECT_TIMEOUT, proxies=proxies, verify=verify if isinstance(verify, bool) else str(verify)
    )
    reader = _PresignedReader(http, presigned, config)
    async with transfer(reader.request, config.total_timeout), http:
        try:
            pinned = await download(reader, sink, progress)
            await verify_download(reader, pinned, sink)
        except (errors.AccessDeniedError, errors.AuthenticationError) as error:
            rule = explain_refusal(error, presigned.expires)
            raise service_error(error, reader.request, rule) from error.__cause__


class _PresignedReader:
    """Opens ranges of an object through a presigned URL: plain HTTP, without credentials."""

    def __init__(self, http: HttpSession, presigned: PresignedUrl, config: TransferConfig) -> None:
        endpoint_url, bucket, self._key = presigned.place
        slots = Slots.make(config.max_concurrency)
        self._requester = Requester(bucket=bucket, endpoint_url=str(endpoint_url), config=config, slots=slots)
        self._http = http
        self._url = presigned.url
        self.config = config
        self.slots = slots
        self.request = self._requester.info("download", self._key)

    def attempts(self) -> Attempts:
        return self._requester.attempts("download", self._key)

    async def open(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        response = await self._http.get(self._url, headers)
        if response.status < 300:  # noqa: PLR2004
            return response
        try:
            body = await read_body(response)
        finally:
            response.close()
        raise client_error(response.status, CIMultiDict(response.headers), body, "GetObject")


def explain_refusal(error: errors.ServiceError, expires: datetime | None) -> ErrorRule:
    """Decide why a presigned URL was refused.

    AWS and SeaweedFS say "Request has expired". Ceph says only AccessDenied,
    so the server's time has to tell; ours may be off.

    Parameters
    ----------
    error : `ServiceError`
        The refusal.
    expires : `datetime.datetime` or `None`
        When the URL expires according to its parameters, if they say so.
    """
    kind = type(error)
    over = expires is not None and server_time(error.response) >= expires
    said = str(error.response.get("Error", {}).get("Message")).lower()
    if kind is errors.ExpiredCredentialsError or (kind in _MAYBE_EXPIRED and (over or "expired" in said)):
        when = f" at {expires:%Y-%m-%dT%H:%M:%SZ}" if over else " early, with the credentials that signed it"
        return ErrorRule(errors.ExpiredUrlError, f"The URL has expired{when}: ask for a new one.")
    return ErrorRule(kind, _HINTS.get(kind, ""))
