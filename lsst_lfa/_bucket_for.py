"""`bucket_for`: a bucket and a key by an object's URL, so that every operation works on URLs."""

from __future__ import annotations

import os
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from ._public import public
from ._session import S3Session
from ._urls import FileUrl, ObjectUrl, parse_profile, parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ._bucket import AsyncS3Bucket
    from ._transfer.config import TransferConfig

__all__ = ["bucket_for", "make_session"]

# A convention of lsst.resources: https://github.com/lsst/resources, in getS3Client.
_PROFILE_VARIABLE = "LSST_RESOURCES_S3_PROFILE_"


@public
@asynccontextmanager
async def bucket_for(
    url: str, *, verify: bool | str | Path | None = None, config: TransferConfig | None = None
) -> AsyncIterator[tuple[AsyncS3Bucket, str]]:
    """Return the bucket that an object's URL refers to, and the key.

    ::

        async with bucket_for("s3://summit@rubinobs-lfa-cp/a.fits") as (bucket, key):
            headers = await bucket.fits_headers(key)

    Parameters
    ----------
    url : `str`
        ``http(s)://host[:port]/bucket/key``, as `AsyncS3Bucket.upload` returns
        it, not percent-encoded; ``s3://bucket/key``, at ``S3_ENDPOINT_URL``;
        or ``s3://profile@bucket/key``. For the last, the environment variable
        ``LSST_RESOURCES_S3_PROFILE_<profile>`` supplies service and
        credentials, as a percent-encoded URL ``https://[id:secret@]host``.
        What it omits is taken from the profile in the AWS configuration files.
    verify : `bool`, `str` or `pathlib.Path`, optional
        A file of certificate authorities for https; see `S3Session`.
    config : `TransferConfig`, optional
        Transfer settings.

    Yields
    ------
    bucket : `AsyncS3Bucket`
        The bucket, in its own session, which is closed after the block.
        Without credentials, requests are unsigned, and can read only public
        objects.
    key : `str`
        The object's key.

    Raises
    ------
    ValueError
        If the URL has none of these forms. `download_url` also accepts
        presigned URLs, and those of files.
    """
    parsed = parse_url(url)
    if not isinstance(parsed, ObjectUrl):
        kind = "a file" if isinstance(parsed, FileUrl) else "one presigned object"
        msg = f"the URL is that of {kind}, and names no bucket: use download_url"
        raise ValueError(msg)  # noqa: TRY004 - it is a URL, of another kind
    async with aclosing(make_session(parsed, verify=verify, config=config)) as session:
        yield session.bucket(parsed.bucket), parsed.key


def make_session(url: ObjectUrl, *, anonymous: bool | None = None, **options: Any) -> S3Session:
    """Create the session for a URL, by default anonymous if there are no credentials; see `bucket_for`."""
    options["anonymous"] = anonymous
    if url.profile is None or url.endpoint is not None:
        return S3Session(endpoint_url=url.endpoint, profile=url.profile, **options)
    variable = f"{_PROFILE_VARIABLE}{url.profile}"
    value = os.environ.get(variable, "").strip()
    if not value:
        return S3Session(profile=url.profile, **options)
    endpoint_url, key_id, secret = parse_profile(variable, value)
    if key_id is None:
        return S3Session(endpoint_url=endpoint_url, profile=url.profile, **options)
    options["anonymous"] = False
    return S3Session(endpoint_url=endpoint_url, access_key_id=key_id, secret_access_key=secret, **options)
