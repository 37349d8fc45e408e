"""Reading responses: every field that a server may get wrong is checked here."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lsst_lfa._public import public
from lsst_lfa.errors import ProtocolError

from .object_options import decode_metadata
from .plan import MAX_PART_SIZE, MAX_PARTS, ByteRange

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .failures import RequestInfo

__all__ = [
    "Folder",
    "ObjectInfo",
    "PendingUpload",
    "RangeHeaders",
    "bad_response",
    "etag_of",
    "listed_folder",
    "listed_object",
    "listed_upload",
    "object_info",
    "parse_range_headers",
    "parse_time",
    "require_field",
    "require_proof",
    "server_date",
    "server_time",
    "strong_etag",
]

# RFC 9110, 14.1: the unit has no case.
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII | re.IGNORECASE)
_EMPTY_RANGE = re.compile(r"bytes \*/0+", re.ASCII | re.IGNORECASE)
# No object can have more parts, or longer ones.
_MAX_SIZE = MAX_PARTS * MAX_PART_SIZE
_YEARS = range(1970, 9000)
# Fields that only S3's response has, and only if the request was carried out. The web page of a proxy has none of
# them, even with status 200.
_PROOFS = {
    "copy_object": ("CopyObjectResult", dict),
    "create_multipart_upload": ("UploadId", str),
    "get_object": ("ETag", str),
    "head_object": ("LastModified", datetime),
    "list_multipart_uploads": ("IsTruncated", bool),
    "list_objects_v2": ("IsTruncated", bool),
    "put_object": ("ETag", str),
    "upload_part": ("ETag", str),
    "upload_part_copy": ("CopyPartResult", dict),
}


@public
class ObjectInfo(NamedTuple):
    """The metadata of an object.

    Attributes
    ----------
    key : `str`
        Its key.
    size : `int`
        Bytes.
    etag : `str`
        The ETag, which identifies this content; without quotes.
    last_modified : `datetime.datetime`
        When it was stored, in UTC.
    content_type : `str` or `None`
        Its MIME type; `None` in a listing.
    metadata : `dict` [`str`, `str`] or `None`
        Its metadata, with names in lower case; `None` in a listing.
    version_id : `str` or `None`
        Its version ID, in a versioned bucket; `None` in a listing.
    storage_class : `str`
        ``STANDARD`` unless the server says otherwise.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    content_type: str | None = None
    metadata: dict[str, str] | None = None
    version_id: str | None = None
    storage_class: str = "STANDARD"


@public
class Folder(NamedTuple):
    """A folder: the common prefix of some keys, up to a delimiter.

    Attributes
    ----------
    key : `str`
        The common part, with the delimiter: pass it as ``prefix`` to list the
        contents.
    """

    key: str


@public
class PendingUpload(NamedTuple):
    """A multipart upload that was started, and neither completed nor aborted.

    Attributes
    ----------
    key : `str`
        The key that its object would have.
    upload_id : `str`
        The server's ID for it.
    initiated : `datetime.datetime`
        When it was started, in UTC.
    """

    key: str
    upload_id: str
    initiated: datetime


def bad_response(request: RequestInfo, what: str, hint: str = "", *, transient: bool = True) -> ProtocolError:
    """Return the error for a response that is not a valid S3 response."""
    made = request.failed(ProtocolError, what, hint, transient=transient)
    assert isinstance(made, ProtocolError)  # noqa: S101 - for the type checker
    return made


def require_field(request: RequestInfo, response: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a field that S3 always sends.

    Raises
    ------
    ProtocolError
        If it is missing, empty, or of another type.
    """
    value = response.get(name)
    if not isinstance(value, kind) or value == "" or (isinstance(value, int) and value < 0):
        raise bad_response(request, f"the server's response has no valid {name}, so it does not confirm the operation")
    return value


def require_proof(request: RequestInfo, response: Mapping[str, Any]) -> None:
    """Check that a response proves that the request was carried out."""
    if request.operation in _PROOFS:
        require_field(request, response, *_PROOFS[request.operation])


def etag_of(response: Mapping[str, Any]) -> str:
    """Return the ETag without its quotes; empty if there is none."""
    return strong_etag(str(response.get("ETag") or "")).strip('"')


def strong_etag(etag: str) -> str:
    """Return S3's own ETag for one that a proxy may have weakened, because only a strong one pins a version."""
    return etag.removeprefix("W/")


def object_info(request: RequestInfo, key: str, head: Mapping[str, Any]) -> ObjectInfo:
    """Read the response to HEAD."""
    size = require_field(request, head, "ContentLength", int)
    return ObjectInfo(
        key,
        size,
        etag_of(head),
        require_field(request, head, "LastModified", datetime),
        content_type=head.get("ContentType"),
        metadata=decode_metadata(head.get("Metadata") or {}),
        version_id=head.get("VersionId"),
        storage_class=head.get("StorageClass") or "STANDARD",
    )


def listed_object(request: RequestInfo, item: Mapping[str, Any]) -> ObjectInfo:
    """Read one object of a listing."""
    key = require_field(request, item, "Key", str)
    size = require_field(request, item, "Size", int)
    modified = require_field(request, item, "LastModified", datetime)
    return ObjectInfo(key, size, etag_of(item), modified, storage_class=item.get("StorageClass") or "STANDARD")


def listed_folder(request: RequestInfo, item: Mapping[str, Any]) -> Folder:
    """Read one folder of a listing."""
    return Folder(require_field(request, item, "Prefix", str))


def listed_upload(request: RequestInfo, item: Mapping[str, Any]) -> PendingUpload:
    """Read one multipart upload of a listing."""
    key = require_field(request, item, "Key", str)
    upload_id = require_field(request, item, "UploadId", str)
    return PendingUpload(key, upload_id, require_field(request, item, "Initiated", datetime))


def server_date(response: Mapping[str, Any]) -> datetime | None:
    """Return the server's time; `None` if it gives none."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return parse_time(headers.get("date", ""))


def server_time(response: Mapping[str, Any]) -> datetime:
    """Return the server's time, since ours may be off; ours if the server gives none."""
    return server_date(response) or datetime.now(UTC)


def parse_time(text: object) -> datetime | None:
    """Parse a time in the form that S3 uses, in headers or in XML.

    Twenty times as fast as botocore, which accepts any form. S3's times are
    all in UTC, whether they say so or not.

    Returns
    -------
    time : `datetime.datetime` or `None`
        `None` for text that is not a time, or not one that can be computed
        with: only code that needs it then fails.
    """
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(TypeError, ValueError, IndexError, OverflowError):
            time = parse(str(text))
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            return time if time.year in _YEARS else None
    return None


class RangeHeaders(NamedTuple):
    """What the response to a GET says about its body.

    Attributes
    ----------
    etag : `str`
        Of the object, with quotes.
    given : `ByteRange` or `None`
        The bytes that it contains; `None` if that is not stated in a valid
        way.
    length : `int` or `None`
        Bytes in the body; `None` if that is known only at its end.
    digest : `bool`
        Whether the ETag may be a digest of the bytes: not where the server
        encrypts with a key of its own.
    empty : `bool`
        Whether the server proves that the object is empty.
    """

    etag: str
    given: ByteRange | None
    length: int | None
    digest: bool = True
    empty: bool = False


def parse_range_headers(status: int, headers: Mapping[str, str]) -> RangeHeaders:
    """Read the status and the headers of the response to a GET."""
    content_length = headers.get("Content-Length", "")
    length = int(content_length) if re.fullmatch(r"[0-9]{1,18}", content_length) else None
    content_range = headers.get("Content-Range", "")
    given = None
    if status == 206 and (match := _CONTENT_RANGE.fullmatch(content_range)):  # noqa: PLR2004
        first, last, total = map(int, match.groups())
        # A body of another length is something else, such as several ranges (multipart/byteranges).
        if first <= last < total <= _MAX_SIZE and length in {None, last + 1 - first}:
            given = ByteRange(first, last + 1, total)
            length = last + 1 - first
    elif status == 200 and length is not None and length <= _MAX_SIZE:  # noqa: PLR2004 - Range was ignored
        given = ByteRange(0, length, length)
    encryption = headers.get("x-amz-server-side-encryption", "")
    own_key = "x-amz-server-side-encryption-customer-algorithm" in headers
    empty = status == 416 and _EMPTY_RANGE.fullmatch(content_range) is not None  # noqa: PLR2004
    digest = not encryption.startswith("aws:kms") and not own_key
    return RangeHeaders(strong_etag(headers.get("ETag", "")), given, length, digest, empty)
