"""Operations on a bucket and its objects that transfer no data: small requests, one after another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lsst_lfa.errors import AccessDeniedError, KeyExistsError, ServiceError, UploadNotFoundError

from .failures import service_error
from .responses import (
    bad_response,
    listed_folder,
    listed_object,
    listed_upload,
    object_info,
    require_field,
    server_time,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from lsst_lfa.errors import LfaError

    from .attempts import BucketClient
    from .failures import RequestInfo
    from .responses import Folder, ObjectInfo, PendingUpload

__all__ = [
    "Pages",
    "abort_uploads",
    "create_bucket",
    "delete_objects",
    "head",
    "head_response",
    "list_objects",
    "list_uploads",
    "require_absent",
]

# Codes that a response without a body leaves open.
_BARE_STATUSES = (400, 403, 404, 412)
_NOT_FOUND = 404
# Items of a listing that are parsed in one turn of the event loop.
_AT_ONCE = 200
# Seconds that a server takes to delete one of many objects.
_DELETE_TIMEOUT = 0.05


async def head(client: BucketClient, key: str) -> ObjectInfo:
    """Return an object's metadata, from a HEAD request."""
    return object_info(client.info("head_object", key), key, await head_response(client, key))


async def head_response(client: BucketClient, key: str) -> dict[str, Any]:
    """Return the response to a HEAD request, or raise an error that says what is wrong."""
    response: dict[str, Any]
    try:
        response = await client.call("head_object", key)
    except ServiceError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") not in _BARE_STATUSES:
            raise
        # The response to HEAD has no body that says what is wrong; the response to GET has.
        found = await client.call("get_object", key, Range="bytes=0-0")
        found["Body"].close()
        response = await client.call("head_object", key)
    return response


class Pages:
    """The position of a listing.

    Attributes
    ----------
    following : `tuple` of `str`
        The server's marker of the next page; empty at the start and the end.
    more : `bool`
        Whether there is a next page.
    """

    def __init__(self) -> None:
        self.following: tuple[str, ...] = ()
        self.more = True
        self._seen: set[tuple[str, ...]] = set()

    def turn(self, request: RequestInfo, following: tuple[str, ...]) -> None:
        """Go on to the next page; a listing never returns to an earlier one."""
        if following in self._seen:
            raise bad_response(request, "the listing repeats itself: it returns to an earlier page", transient=False)
        self._seen.add(following)
        self.following, self.more = following, bool(following)


async def require_absent(client: BucketClient, key: str) -> None:
    """Check that no object has this key.

    Raises
    ------
    KeyExistsError
        If one does.
    """
    try:
        found = await client.call("head_object", key)
    except ServiceError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") == _NOT_FOUND:
            return  # if it is the bucket that is missing, the upload will say so
        raise
    message = (
        f"{client.info('upload', key)} failed: the key already exists. "
        "Nothing was replaced: choose another key, or upload without if_none_match."
    )
    response = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": found["ResponseMetadata"]}
    raise KeyExistsError(message, response, "HeadObject")


async def list_objects(client: BucketClient, prefix: str, delimiter: str, pages: Pages) -> list[ObjectInfo | Folder]:
    """Return the objects, and the folders, of the next page."""
    more: dict[str, Any] = {"ContinuationToken": pages.following[0]} if pages.following else {}
    if delimiter:
        more["Delimiter"] = delimiter
    page = await client.call("list_objects_v2", Prefix=prefix, **more)
    request = client.info("list_objects_v2")
    items: list[ObjectInfo | Folder] = []
    contents = page.get("Contents", ())
    for start in range(0, len(contents), _AT_ONCE):
        items += [listed_object(request, item) for item in contents[start : start + _AT_ONCE]]
        await asyncio.sleep(0)  # a thousand would block the loop for too long
    if delimiter:
        items += [listed_folder(request, item) for item in page.get("CommonPrefixes", ())]
        items.sort(key=lambda item: item.key.encode())
    following = (require_field(request, page, "NextContinuationToken", str),) if page["IsTruncated"] else ()
    pages.turn(request, following)
    return items


async def delete_objects(client: BucketClient, keys: list[str]) -> dict[str, LfaError]:
    """Delete up to 1,000 objects in one request, and return the errors of those that were not deleted."""
    request = client.info("delete_objects")
    # Not "Quiet": only a response that lists each key proves that the object was deleted.
    response = await client.call(
        "delete_objects",
        extra_timeout=_DELETE_TIMEOUT * len(keys),
        Delete={"Objects": [{"Key": key} for key in keys]},
    )
    left = set(keys) - {require_field(request, item, "Key", str) for item in response.get("Deleted", ())}
    failed: dict[str, LfaError] = {}
    for item in response.get("Errors", ()):
        key = require_field(request, item, "Key", str)
        error = ClientError({"Error": item, "ResponseMetadata": response["ResponseMetadata"]}, "DeleteObjects")
        failed[key] = service_error(error, request._replace(key=key))
    for key in left - failed.keys():
        failed[key] = bad_response(request._replace(key=key), "the response does not confirm the deletion")
    return failed


async def create_bucket(client: BucketClient, *, hidden: bool = False) -> None:
    """Create the bucket; it is not an error if it exists and this user may see it.

    With ``hidden``, nor is it if the bucket exists (else the status is 404)
    and this user may not see it: a user who only writes need not.
    """
    meta = client.client.meta
    # AWS expects the region, except for the first one.
    on_aws = meta.endpoint_url.endswith(".amazonaws.com") and meta.region_name != "us-east-1"
    params: dict[str, Any] = {}
    if on_aws:
        params["CreateBucketConfiguration"] = {"LocationConstraint": meta.region_name}
    try:
        await client.call("create_bucket", **params)
    except ServiceError as error:
        if error.response["Error"].get("Code") == "BucketAlreadyOwnedByYou":
            return
        # Some servers do not say who owns it; and a user who may use a bucket may not be allowed to create one.
        try:
            await client.call("head_bucket")
        except ServiceError as unseen:
            if not (hidden and isinstance(unseen, AccessDeniedError)):
                raise error from None


async def list_uploads(client: BucketClient, prefix: str, age: timedelta, pages: Pages) -> list[PendingUpload]:
    """Return the multipart uploads of the next page that were started at least ``age`` ago."""
    more: dict[str, Any] = dict(zip(("KeyMarker", "UploadIdMarker"), pages.following, strict=False))
    if prefix:
        more["Prefix"] = prefix
    page = await client.call("list_multipart_uploads", **more)
    request = client.info("list_multipart_uploads")
    now = server_time(page)
    uploads = [listed_upload(request, item) for item in page.get("Uploads", ())]
    following: tuple[str, ...] = ()
    if page["IsTruncated"]:
        marker = page.get("NextUploadIdMarker")
        following = require_field(request, page, "NextKeyMarker", str), marker if isinstance(marker, str) else ""
    pages.turn(request, following)
    # Servers give their time in whole seconds: by that, an upload may seem to start in the future.
    return [upload for upload in uploads if now - upload.initiated >= age or not age]


async def abort_uploads(client: BucketClient, prefix: str, age: timedelta) -> int:
    """Abort multipart uploads that were started at least ``age`` ago; return their number."""
    count, pages = 0, Pages()
    while pages.more:
        for upload in await list_uploads(client, prefix, age, pages):
            try:
                await client.call("abort_multipart_upload", upload.key, UploadId=upload.upload_id)
            except UploadNotFoundError:  # it has ended in the meantime
                continue
            count += 1
    return count
