"""Operations that transfer no object data."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from botocore import UNSIGNED

from lsst_lfa import naming
from lsst_lfa._transfer import operations
from lsst_lfa.errors import KeyNotFoundError, MissingCredentialsError

from .base import BucketBase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from lsst_lfa._transfer.attempts import BucketClient
    from lsst_lfa._transfer.responses import Folder, ObjectInfo, PendingUpload
    from lsst_lfa.errors import LfaError

__all__ = ["Management"]

_Item = TypeVar("_Item")

# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
_MAX_DELETED = 1000


async def _batches(keys: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[list[str], None]:
    batch: dict[str, None] = {}  # each key once
    async for key in _each(keys):
        batch[naming.check_key(key)] = None
        if len(batch) == _MAX_DELETED:
            yield list(batch)
            batch = {}
    if batch:
        yield list(batch)


async def _each(keys: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[str, None]:
    if isinstance(keys, str):
        msg = "keys is a str: pass an iterable of keys, or call delete(key) for one"
        raise TypeError(msg)
    if isinstance(keys, AsyncIterable):
        async for key in keys:
            yield key
    else:
        for key in keys:
            yield key


def _age(seconds: float | timedelta) -> timedelta:
    return seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)


async def _items(
    borrow: Callable[[], AbstractAsyncContextManager[BucketClient]],
    next_page: Callable[[BucketClient, operations.Pages], Awaitable[list[_Item]]],
) -> AsyncGenerator[_Item, None]:
    """Iterate over a listing; the client is borrowed for each request, not while the user works on a page."""
    pages = operations.Pages()
    while pages.more:
        async with borrow() as client:
            page = await next_page(client, pages)
        for item in page:
            yield item


class Management(BucketBase):
    """Metadata and lifecycle: operations that transfer no object data."""

    async def head(self, key: str) -> ObjectInfo:
        """Return an object's size, ETag, time, content type, metadata, version and storage class, but not its data.

        Raises
        ------
        KeyNotFoundError
            If there is no such object.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        """
        await self._client.turn()
        naming.check_key(key)
        async with self._borrow("head", key) as client:
            return await operations.head(client, key)

    async def exists(self, key: str) -> bool:
        """Return whether there is an object with this key.

        Raises
        ------
        LfaError
            If this cannot be determined: the bucket does not exist, access is
            denied, the server cannot be reached.
        """
        try:
            await self.head(key)
        except KeyNotFoundError:
            return False
        return True

    async def size(self, key: str) -> int:
        """Return an object's size, in bytes; raises the same errors as `head`."""
        return (await self.head(key)).size

    @overload
    def list(self, prefix: str = "", delimiter: Literal[""] = "") -> AsyncGenerator[ObjectInfo, None]: ...

    @overload
    def list(self, prefix: str, delimiter: str) -> AsyncGenerator[ObjectInfo | Folder, None]: ...

    @overload
    def list(self, prefix: str = "", *, delimiter: str) -> AsyncGenerator[ObjectInfo | Folder, None]: ...

    def list(self, prefix: str = "", delimiter: str = "") -> AsyncGenerator[ObjectInfo | Folder, None]:
        """Iterate over the objects whose keys begin with ``prefix``, in the order of their keys.

        Parameters
        ----------
        prefix : `str`, optional
            The beginning of the keys.
        delimiter : `str`, optional
            Usually "/". Keys that contain it after ``prefix`` are grouped: the
            part up to it is yielded once, as a `Folder`.

        Yields
        ------
        item : `ObjectInfo` or `Folder`
            An object or, with ``delimiter``, a folder.
        """
        borrow = self._borrow_repeatedly("list", None)
        return _items(borrow, lambda client, pages: operations.list_objects(client, prefix, delimiter, pages))

    async def check(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a health check's own bound
        """Check that the bucket can be reached and listed, within ``timeout`` seconds.

        Raises
        ------
        LfaError
            If it cannot; the message says what is wrong and what to do.
        """
        once = replace(self._config, max_attempts=1)
        async with self._borrow("check", None, timeout, config=once, create=False) as client:
            await client.call("list_objects_v2", MaxKeys=1)

    async def presigned_url(
        self, key: str, *, expires: float | timedelta = 3600, method: Literal["get", "put"] = "get"
    ) -> str:
        """Return a URL with which anyone can download or upload an object for a limited time.

        Parameters
        ----------
        key : `str`
            The object's key.
        expires : `float` or `datetime.timedelta`
            How long the URL is valid, in seconds or as a
            `~datetime.timedelta`; at most 7 days.
        method : {"get", "put"}
            The operation that it permits.

        Raises
        ------
        MissingCredentialsError
            If there are no credentials to sign the URL with.
        ValueError
            If ``expires`` is out of range, or the key is invalid.
        """
        await self._client.turn()
        naming.check_key(key)
        seconds = round(expires.total_seconds() if isinstance(expires, timedelta) else expires)
        if not 0 < seconds <= 7 * 24 * 3600:
            msg = f"expires is {expires!r}; it must be more than 0 and at most 7 days"
            raise ValueError(msg)
        async with self._borrow("presign", key) as client:
            if client.client.meta.config.signature_version is UNSIGNED:
                what, hint = "this session is anonymous, so it cannot sign a URL", "Use a session with credentials."
                raise client.info("presign", key).failed(MissingCredentialsError, what, hint, transient=False)
            return str(
                await client.client.generate_presigned_url(
                    f"{method}_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=seconds
                )
            )

    async def delete(self, key: str) -> None:
        """Delete an object; it is not an error if it does not exist."""
        await self._client.turn()
        naming.check_key(key)
        async with self._borrow("delete", key) as client:
            await client.call("delete_object", key)

    async def delete_many(self, keys: Iterable[str] | AsyncIterable[str]) -> dict[str, LfaError]:
        """Delete many objects, up to 1,000 per request; it is not an error if some do not exist.

        Parameters
        ----------
        keys : iterable or async iterable of `str`
            The keys to delete.

        Returns
        -------
        failed : `dict` [`str`, `LfaError`]
            The keys of objects that could not be deleted, with their errors;
            empty if all were deleted.

        Raises
        ------
        ValueError
            If a key is invalid. Complete batches before it have already been
            deleted.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        """
        failed: dict[str, LfaError] = {}
        async with self._borrow("delete_many", None) as client, aclosing(_batches(keys)) as batches:
            async for batch in batches:
                failed |= await operations.delete_objects(client, batch)
        return failed

    async def create(self) -> None:
        """Create the bucket; it is not an error if you already own it.

        Raises
        ------
        BucketTakenError
            If it belongs to another account.
        """
        async with self._borrow("create", None, create=False) as client:
            await operations.create_bucket(client)

    def list_uploads(
        self, prefix: str = "", *, older_than: float | timedelta = 0.0
    ) -> AsyncGenerator[PendingUpload, None]:
        """Iterate over unfinished multipart uploads, in the server's order.

        This includes uploads that are in progress; see `abort_stale_uploads`.

        Parameters
        ----------
        prefix : `str`, optional
            The beginning of the keys.
        older_than : `float` or `datetime.timedelta`, optional
            Minimum age by the server's clock, in seconds or as a
            `~datetime.timedelta`.

        Yields
        ------
        upload : `PendingUpload`
            Its key, its ID, and when it was started.
        """
        borrow, age = self._borrow_repeatedly("list_uploads", None), _age(older_than)
        return _items(borrow, lambda client, pages: operations.list_uploads(client, prefix, age, pages))

    async def abort_stale_uploads(self, older_than: float | timedelta, *, prefix: str = "") -> int:
        """Abort abandoned multipart uploads.

        A process that is killed leaves these behind; their parts take up
        space, and no listing of objects shows them.

        Parameters
        ----------
        older_than : `float` or `datetime.timedelta`
            Minimum age, in seconds or as a `~datetime.timedelta`: choose more
            than your longest upload takes.
        prefix : `str`, optional
            The beginning of their keys.

        Returns
        -------
        count : `int`
            How many uploads were aborted.
        """
        async with self._borrow("abort_stale_uploads", None) as client:
            return await operations.abort_uploads(client, prefix, _age(older_than))
