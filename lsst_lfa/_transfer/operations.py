"""Operations on a bucket and its objects that move no data: small requests, one after another."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from lsst_lfa.errors import AccessDeniedError, ServiceError, UploadNotFoundError

from .responses import bad_response, listed_object, object_info, require_field, server_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import timedelta

    from .attempts import BucketClient
    from .failures import RequestInfo
    from .responses import ObjectInfo

__all__ = ["Pages", "abort_uploads", "create_bucket", "head", "list_objects"]

# What a response without a body leaves open.
_BARE_STATUSES = (400, 403, 404, 412)


async def head(client: BucketClient, key: str) -> ObjectInfo:
    """Return what HEAD tells of an object."""
    try:
        response = await client.call("head_object", key)
    except ServiceError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") not in _BARE_STATUSES:
            raise
        # The response to HEAD has no body that would say what is wrong; that to GET has.
        found = await client.call("get_object", key, Range="bytes=0-0")
        found["Body"].close()
        response = await client.call("head_object", key)
    return object_info(client.info("head_object", key), key, response)


class Pages:
    """Where a listing has come to.

    Attributes
    ----------
    following : `tuple` of `str`
        What the server calls the next page; empty at the start and the end.
    more : `bool`
        Whether there is a next page.
    """

    def __init__(self) -> None:
        self.following: tuple[str, ...] = ()
        self.more = True
        self._seen: set[tuple[str, ...]] = set()

    def turn(self, request: RequestInfo, following: tuple[str, ...]) -> None:
        """Go on to the next page; no listing comes back to a page that it has been to."""
        if following in self._seen:
            raise bad_response(request, "the listing runs in a circle, back to an earlier page", transient=False)
        self._seen.add(following)
        self.following, self.more = following, bool(following)


async def list_objects(client: BucketClient, prefix: str, pages: Pages) -> list[ObjectInfo]:
    """Return the objects of the next page."""
    more: dict[str, Any] = {"ContinuationToken": pages.following[0]} if pages.following else {}
    page = await client.call("list_objects_v2", Prefix=prefix, **more)
    request = client.info("list_objects_v2")
    items = [listed_object(request, item) for item in page.get("Contents", ())]
    following = (require_field(request, page, "NextContinuationToken", str),) if page["IsTruncated"] else ()
    pages.turn(request, following)
    return items


async def create_bucket(client: BucketClient, *, hidden: bool = False) -> None:
    """Make the bucket; no error if it is there and this user may see it.

    With ``hidden``, also none if it is there (a missing one is a 404) and this
    user may not even see it: those who may only write need not.
    """
    meta = client.client.meta
    # AWS's own service wants to hear its region, except for the first of them.
    on_aws = meta.endpoint_url.endswith(".amazonaws.com") and meta.region_name != "us-east-1"
    params: dict[str, Any] = {}
    if on_aws:
        params["CreateBucketConfiguration"] = {"LocationConstraint": meta.region_name}
    try:
        await client.call("create_bucket", **params)
    except ServiceError as error:
        if error.response["Error"].get("Code") == "BucketAlreadyOwnedByYou":
            return
        # Some servers do not say whose it is; and who may use a bucket may not be allowed to make one.
        try:
            await client.call("head_bucket")
        except ServiceError as unseen:
            if not (hidden and isinstance(unseen, AccessDeniedError)):
                raise error from None


async def abort_uploads(client: BucketClient, age: timedelta) -> int:
    """Abort multipart uploads that were begun at least ``age`` ago; return their number."""
    count = 0
    async for key, upload_id in _stale_uploads(client, age):
        try:
            await client.call("abort_multipart_upload", key, UploadId=upload_id)
        except UploadNotFoundError:  # ended meanwhile
            continue
        count += 1
    return count


async def _stale_uploads(client: BucketClient, age: timedelta) -> AsyncGenerator[tuple[str, str], None]:
    request = client.info("list_multipart_uploads")
    pages = Pages()
    while pages.more:
        more: dict[str, Any] = dict(zip(("KeyMarker", "UploadIdMarker"), pages.following, strict=False))
        page = await client.call("list_multipart_uploads", **more)
        now = server_time(page)
        for item in page.get("Uploads", ()):
            if now - require_field(request, item, "Initiated", datetime) >= age:
                yield require_field(request, item, "Key", str), require_field(request, item, "UploadId", str)
        following: tuple[str, ...] = ()
        if page["IsTruncated"]:
            marker = page.get("NextUploadIdMarker")
            following = require_field(request, page, "NextKeyMarker", str), marker if isinstance(marker, str) else ""
        pages.turn(request, following)
