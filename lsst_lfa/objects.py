"""What is asked of a bucket beside its objects' data: one small request after another."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import BucketTakenError, ServiceError, UploadNotFoundError

if TYPE_CHECKING:
    from datetime import timedelta

    from .transfer.requests import Requests

__all__ = ["ObjectInfo", "abort_uploads", "create_bucket", "head", "list_page"]

_BARE_ANSWERS = (400, 403, 404, 412)


class ObjectInfo(NamedTuple):
    """What a bucket tells of an object.

    Attributes
    ----------
    key : `str`
        Its key.
    size : `int`
        Bytes.
    etag : `str`
        Names this version of the content; without quotes.
    last_modified : `datetime.datetime`
        When it was stored, in UTC.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime


async def head(requests: Requests, key: str) -> ObjectInfo:
    """Return what HEAD tells of an object."""
    try:
        answer = await requests.call("head_object", key)
    except ServiceError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") not in _BARE_ANSWERS:
            raise
        # The answer to HEAD has no body that would say what is wrong; that to GET has.
        answer = await requests.call("get_object", key, Range="bytes=0-0")
        answer["Body"].close()
        answer = await requests.call("head_object", key)
    return ObjectInfo(key, answer["ContentLength"], _bare(answer), answer["LastModified"])


async def list_page(requests: Requests, prefix: str, token: str) -> tuple[list[ObjectInfo], str | None]:
    """Return some objects, and the token of the page after them; `None` if there is none."""
    more: dict[str, Any] = {"ContinuationToken": token} if token else {}
    page = await requests.call("list_objects_v2", Prefix=prefix, **more)
    items = [
        ObjectInfo(item["Key"], item["Size"], _bare(item), item["LastModified"]) for item in page.get("Contents", ())
    ]
    return items, page["NextContinuationToken"] if page.get("IsTruncated") else None


async def create_bucket(requests: Requests) -> None:
    """Make the bucket; no error if it is there and ours."""
    meta = requests.client.meta
    # AWS's own service wants to hear its region, except for the first of them.
    on_aws = meta.endpoint_url.endswith(".amazonaws.com") and meta.region_name != "us-east-1"
    params: dict[str, Any] = {}
    if on_aws:
        params["CreateBucketConfiguration"] = {"LocationConstraint": meta.region_name}
    try:
        await requests.call("create_bucket", **params)
    except ServiceError as error:
        if error.response["Error"].get("Code") == "BucketAlreadyOwnedByYou":
            return
        if not isinstance(error, BucketTakenError):
            raise
        try:  # some servers do not say whose it is
            await requests.call("head_bucket")
        except ServiceError:
            raise error from None


async def abort_uploads(requests: Requests, age: timedelta) -> int:
    """Abort multipart uploads that were begun at least ``age`` ago; return their number."""
    count = 0
    more: dict[str, Any] = {}
    while True:
        page = await requests.call("list_multipart_uploads", **more)
        limit = _server_time(page) - age
        for item in page.get("Uploads", ()):
            if item["Initiated"] <= limit:
                try:
                    await requests.call("abort_multipart_upload", item["Key"], UploadId=item["UploadId"])
                except UploadNotFoundError:  # ended meanwhile
                    continue
                count += 1
        if not page.get("IsTruncated"):
            return count
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _bare(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


def _server_time(answer: dict[str, Any]) -> datetime:
    """Return the server's time: ours may be off."""
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
