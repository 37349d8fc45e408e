"""Sending a file to S3 under a key that no other bytes have."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.etag import check_etag, parts_in
from lsst_lfa.errors import AccessDeniedError, IntegrityError, KeyNotFoundError, UnverifiableError
from lsst_lfa.naming import revised_key

from ._decisions import Found, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lsst_lfa import ObjectInfo
    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool.record import IfExists

    from ._reading import Digest, Reading

__all__ = ["KeyTakenError", "Sending"]

_MAX_REVISIONS: Final = 10_000


class KeyTakenError(FileExistsError):
    """An object with other bytes has the key."""


class Sending:
    """One file on its way to S3.

    Parameters
    ----------
    bucket : `AsyncS3Bucket`
        Where it goes.
    key : `str`
        The first key to try.
    if_exists : {"keep", "overwrite", "error"}
        What happens to an object that has the key already.
    mime_type : `str`
        The object's content type; empty for none.

    Attributes
    ----------
    key : `str`
        The key, as far as it is settled.
    """

    def __init__(self, bucket: S3Bucket, key: str, if_exists: IfExists, mime_type: str) -> None:
        self._bucket = bucket
        self._first = self.key = key
        self._if_exists = if_exists
        self._mime_type = mime_type
        self._may_look = True

    async def send(self, reading: Reading, digest: Callable[[], Awaitable[Digest]]) -> None:
        """Send it, unless the same bytes are there.

        Parameters
        ----------
        reading : `Reading`
            The bytes.
        digest : callable
            Waits for size and MD5.

        Raises
        ------
        KeyTakenError
            If other bytes have the key, and ``if_exists`` is "error".
        LfaError
            If the service failed.
        """
        number = 0
        while number < _MAX_REVISIONS:
            self.key = revised_key(self._first, number)
            info = None if self._if_exists == "overwrite" else await self._head()
            same = info is not None and reading.repeatable and await self._same(info, reading, await digest())
            found = judge(exists=info is not None, same=same, if_exists=self._if_exists)
            if found is Found.ALREADY_THERE:
                return
            if found is Found.REFUSE:
                break
            if found is Found.NEXT_KEY:
                number += 1
            elif await self._put(reading):
                return
        msg = f"s3://{self._bucket.name}/{self._first} exists, and has other bytes: nothing was overwritten"
        raise KeyTakenError(msg)

    async def _head(self) -> ObjectInfo | None:
        try:
            return await self._bucket.head(self.key)
        except KeyNotFoundError:
            return None
        except AccessDeniedError:
            # S3 tells who may not list a bucket this of a missing key too.
            self._may_look = False
            return None

    async def _same(self, info: ObjectInfo, reading: Reading, digest: Digest) -> bool:
        """Whether an object has the bytes that we have."""
        if info.size != digest.size:
            return False
        if parts_in(info.etag) == 0:
            return info.etag == digest.md5
        part_size = self._bucket._config.part_size  # noqa: SLF001 - a room of ours
        try:
            await in_thread(check_etag, self.key, info.etag, info.size, part_size, reading.read)
        except (IntegrityError, UnverifiableError):
            return False
        return True

    async def _put(self, reading: Reading) -> bool:
        """Send it; return whether that was done, and no object came in between."""
        upload = self._bucket.upload
        known = inspect.signature(upload).parameters
        options: dict[str, Any] = {
            "content_type": self._mime_type or None,
            "if_none_match": self._if_exists != "overwrite" and self._may_look,
        }
        try:
            await upload(reading.body(), self.key, **{name: value for name, value in options.items() if name in known})
        except FileExistsError:
            return False
        return True
