"""What a command's argument means: a URL of any kind, or a key with a site and a bucket."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from lsst_lfa import sites
from lsst_lfa._bucket_for import make_session
from lsst_lfa._urls import FileUrl, ObjectUrl, parse_url
from lsst_lfa.naming import check_bucket, check_key

if TYPE_CHECKING:
    from types import TracebackType

    from lsst_lfa import AsyncS3Bucket, S3Session
    from lsst_lfa._urls import PresignedUrl

__all__ = ["Places", "Service", "is_url"]


@dataclass(frozen=True, slots=True)
class Places:
    """Tells where targets are, by the options that they all share.

    Attributes
    ----------
    site, bucket, profile : `str` or `None`
        As given on the command line.
    """

    site: str | None = None
    bucket: str | None = None
    profile: str | None = None

    def target(self, text: str) -> ObjectUrl | PresignedUrl | FileUrl:
        """Tell where an object is.

        Raises
        ------
        ValueError
            If it is neither a URL nor a key.
        ConfigurationError
            If the site is unknown.
        """
        if not is_url(text):
            return self._located(ObjectUrl(None, self._bucket(text), check_key(text)))
        parsed = parse_url(text)
        return self._located(parsed) if isinstance(parsed, ObjectUrl) else parsed

    def target_or_path(self, text: str) -> ObjectUrl | PresignedUrl | FileUrl:
        """Tell where an object is, or a file on this machine: a path, where no bucket is given."""
        return self.target(text) if self.bucket is not None or is_url(text) else FileUrl(Path(text))

    def object(self, text: str) -> ObjectUrl:
        """Tell where an object of a bucket is: not a presigned URL, nor that of a file."""
        target = self.target(text)
        if isinstance(target, ObjectUrl):
            return target
        msg = "this needs the URL of an object in a bucket: not a presigned one, nor that of a file"
        raise click.UsageError(msg)

    def prefix(self, text: str | None) -> ObjectUrl:
        """Tell where all objects are whose keys begin alike; without a key, all of the bucket."""
        if text is None or not is_url(text):
            key = check_key(text) if text else ""
            return self._located(ObjectUrl(None, self._bucket(text or ""), key))
        # As the URL of an object in it.
        scheme, _, rest = text.partition("://")
        slash = "" if rest.count("/") > (scheme.lower() != "s3") else "/"
        found = self.object(f"{text}{slash}x")
        return replace(found, key=found.key[:-1])

    def _bucket(self, key: str) -> str:
        if self.bucket is None:
            what = f"{key!r} is not a URL: to use it as a key, pass --bucket" if key else "pass a URL or --bucket"
            raise click.UsageError(what)
        return check_bucket(self.bucket)

    def _located(self, url: ObjectUrl) -> ObjectUrl:
        if url.endpoint is not None or url.profile is not None:
            if self.site is not None:
                raise click.UsageError("the URL names its service: pass either such a URL, or --site")
            return url if url.profile is not None else replace(url, profile=self.profile)
        return replace(url, endpoint=self.endpoint_url(), profile=self.profile)

    def endpoint_url(self) -> str | None:
        """Return the site's service, else that of ``S3_ENDPOINT_URL`` or ``LSST_SITE``; `None` is AWS's own."""
        if self.site is not None:
            return sites.current(self.site).endpoint_url
        named = os.environ.get("S3_ENDPOINT_URL", "").strip()
        return named or (sites.current().endpoint_url if os.environ.get("LSST_SITE", "").strip() else None)


class Service:
    """The sessions of a command, one for each service and profile; closed at the end of its block.

    Parameters
    ----------
    anonymous : `bool` or `None`
        `None`: without credentials, requests are not signed, which is enough to
        read what anybody may read. `False`: credentials are needed.
    """

    def __init__(self, *, anonymous: bool | None = None) -> None:
        self._anonymous = anonymous
        self._sessions: dict[tuple[str | None, str | None], S3Session] = {}
        self._open = AsyncExitStack()

    def bucket(self, url: ObjectUrl) -> AsyncS3Bucket:
        """Return the bucket of an object."""
        where = (url.endpoint, url.profile)
        if where not in self._sessions:
            session = make_session(url, anonymous=self._anonymous)
            self._open.push_async_callback(session.aclose)
            self._sessions[where] = session
        return self._sessions[where].bucket(url.bucket)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()


def is_url(text: str) -> bool:
    """Whether an argument is a URL, rather than a key or the name of a file."""
    return "://" in text or text[:5].lower() == "file:"
