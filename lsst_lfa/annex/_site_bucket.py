"""The bucket of a site, which an annex opens and closes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsst_lfa._session import S3Session
from lsst_lfa.salobj import AsyncS3Bucket

if TYPE_CHECKING:
    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa.sites import Site

__all__ = ["SiteBucket"]


class SiteBucket:
    """The bucket of a site: created at once, and again after it was closed.

    Parameters
    ----------
    site : `Site`
        The site.
    domock : `bool`
        Whether to use a mock server.

    Attributes
    ----------
    bucket : `AsyncS3Bucket`
        The bucket.
    """

    def __init__(self, site: Site, *, domock: bool) -> None:
        self._name = AsyncS3Bucket.make_bucket_name(site.instance)
        self._session = None if domock else S3Session(endpoint_url=site.endpoint_url)
        self.bucket = self._make()

    def _make(self) -> S3Bucket:
        if self._session is not None:
            return self._session.bucket(self._name)
        return AsyncS3Bucket(self._name, domock=True)

    def renew(self) -> None:
        """Make it usable again: a mock server does not restart by itself."""
        if getattr(self.bucket, "mock", self) is None:
            self.bucket = self._make()

    async def aclose(self) -> None:
        """Close everything that was opened for it."""
        await self.bucket.aclose()
        if self._session is not None:
            await self._session.aclose()
