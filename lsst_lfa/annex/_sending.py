"""Sends a file to S3 under a key that holds no other data."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import dropwhile
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.etag import check_etag, parts_in
from lsst_lfa._transfer.hashing import hash_views
from lsst_lfa._transfer.responses import object_info
from lsst_lfa.errors import IntegrityError, KeyExistsError, KeyNotFoundError, ServiceError, UnverifiableError
from lsst_lfa.naming import revised_key

from ._decisions import Found, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool.record import IfExists
    from lsst_lfa._transfer.responses import ObjectInfo

    from ._reading import Digest, Reading

__all__ = ["KeyLocks", "KeyTakenError", "Sending"]

_MAX_REVISIONS: Final = 10_000
_NOT_FOUND: Final = 404
_NOT_SEEN: Final = (403, _NOT_FOUND)


class KeyTakenError(FileExistsError):
    """The key holds different data."""


class KeyLocks:
    """A lock for each key in use: of two files with the same key, one waits until the other is stored."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: str) -> asyncio.Lock:
        """Return a key's lock."""
        return self._locks.setdefault(key, asyncio.Lock())


class Sending:
    """One file that is being sent to S3.

    Parameters
    ----------
    bucket : `AsyncS3Bucket`
        The destination.
    locks : `KeyLocks`
        The locks of all files with this destination.
    asked : `str`
        The requested key.
    key : `str`
        The first key to try: the requested one, or a revision of it.
    if_exists : {"keep", "overwrite", "error"}
        What to do if the key exists.
    mime_type : `str`
        The object's content type; empty for none.

    Attributes
    ----------
    key : `str`
        The key that is used at present.
    """

    def __init__(
        self, bucket: S3Bucket, locks: KeyLocks, asked: str, key: str, *, if_exists: IfExists, mime_type: str
    ) -> None:
        self._bucket = bucket
        self._locks = locks
        self._asked = asked
        self.key = key
        self._if_exists = if_exists
        self._mime_type = mime_type
        self._may_look = True

    async def send(self, reading: Reading, digest: Callable[[], Awaitable[Digest]]) -> None:
        """Send it, unless the same data are stored already.

        Parameters
        ----------
        reading : `Reading`
            The bytes.
        digest : callable
            Waits for size and MD5.

        Raises
        ------
        KeyTakenError
            If the key holds different data, and ``if_exists`` is "error".
        LfaError
            If the request failed.
        """
        for key in self._candidates():
            self.key = key
            async with self._locks.of(key):
                found = Found.SEND
                while found is Found.SEND:  # again, if an object came in between
                    found = await self._look(reading, digest)
                    if found is Found.ALREADY_THERE or (found is Found.SEND and await self._put(reading)):
                        return
            if found is Found.REFUSE:
                break
        msg = f"s3://{self._bucket.name}/{self._asked} exists with different data: nothing was overwritten"
        raise KeyTakenError(msg)

    def _candidates(self) -> Iterator[str]:
        """Iterate over the keys to try: this one, then its next revisions."""
        keys = (revised_key(self._asked, number) for number in range(_MAX_REVISIONS))
        return dropwhile(lambda key: key != self.key, keys) if self.key != self._asked else keys

    async def _look(self, reading: Reading, digest: Callable[[], Awaitable[Digest]]) -> Found:
        info = None if self._if_exists == "overwrite" else await self._head()
        same = info is not None and reading.repeatable and await self._same(info, reading, await digest())
        return judge(exists=info is not None, same=same, if_exists=self._if_exists)

    async def _head(self) -> ObjectInfo | None:
        """Return the object of the key, in one request; `head` would confirm a missing one with a second."""
        bucket = self._bucket
        try:
            async with bucket._borrow("head", self.key) as client:  # noqa: SLF001 - internal to this package
                response = await client.call("head_object", self.key)
                return object_info(client.info("head_object", self.key), self.key, response)
        except ServiceError as error:
            status = error.response["ResponseMetadata"].get("HTTPStatusCode")
            if status not in _NOT_SEEN:
                raise
            # S3 reports a missing key as 403 to users who may not list the bucket; if more is missing, the upload says
            # so.
            self._may_look = self._may_look and status == _NOT_FOUND
            return None

    async def _same(self, info: ObjectInfo, reading: Reading, digest: Digest) -> bool:
        """Whether an object has the same data as the file."""
        if info.size != digest.size:
            return False
        if parts_in(info.etag) == 0:
            return info.etag == digest.md5
        part_size = self._bucket._config.part_size  # noqa: SLF001 - internal to this package
        try:
            await in_thread(check_etag, self.key, info.etag, info.size, part_size, reading.read)
        except (IntegrityError, UnverifiableError):
            return False
        return await self._can_be_read(digest)

    async def _can_be_read(self, digest: Digest) -> bool:
        """Whether all of an object's bytes come back, and are ours.

        Its ETag alone is no proof: a gateway that hangs or dies while it
        completes an upload that is aborted meanwhile (Ceph RGW 16) leaves an
        object that HEAD describes as it should be, and whose parts are gone.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        try:
            async with self._bucket.stream(self.key) as chunks:
                async for chunk in chunks:
                    await hash_views([memoryview(chunk)], md5)
        except (KeyNotFoundError, IntegrityError):
            return False
        return md5.hexdigest() == digest.md5

    async def _put(self, reading: Reading) -> bool:
        """Send it; return whether that was done, and no other object was stored in between."""
        never_replace = self._if_exists != "overwrite" and self._may_look
        content_type = self._mime_type or None
        try:
            await self._bucket.upload(reading.body(), self.key, content_type=content_type, if_none_match=never_replace)
        except KeyExistsError:
            return False
        return True
