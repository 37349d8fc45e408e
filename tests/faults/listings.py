"""The operations that list: objects, open uploads, their parts."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

from .messages import element, xml

if TYPE_CHECKING:
    from .messages import Request, Response
    from .store import Store, StoredObject


def list_objects(store: Store, request: Request) -> Response:
    """Carry out ListObjectsV2."""
    query = request.query
    after = base64.urlsafe_b64decode(query.get("continuation-token", "")).decode() or query.get("start-after", "")
    prefix, limit = query.get("prefix", ""), int(query.get("max-keys", "1000"))
    keys = sorted(key for bucket, key in store.objects if bucket == request.bucket)
    keys = [key for key in keys if key.startswith(prefix) and key > after]
    groups = dict(_up_to(key, prefix, query.get("delimiter", "")) for key in keys)
    keys = [group for group in groups if group > after]
    page = keys[:limit]
    contents = [
        element("CommonPrefixes", element("Prefix", _name(request, key)))
        if groups[key]
        else _describe(request, key, store.objects[request.bucket, key])
        for key in page
    ]
    token = base64.urlsafe_b64encode(page[-1].encode()).decode() if page and len(keys) > limit else ""
    return _listing(
        "ListBucketResult",
        request,
        element("Prefix", _name(request, prefix)),
        element("KeyCount", len(page)),
        element("MaxKeys", limit),
        element("IsTruncated", str(bool(token)).lower()),
        element("NextContinuationToken", token) if token else "",
        *contents,
    )


def _up_to(key: str, prefix: str, delimiter: str) -> tuple[str, bool]:
    """Return the key, or what is before the delimiter and it; and whether it is the latter."""
    head, found, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
    return (f"{prefix}{head}{found}", True) if found else (key, False)


def _describe(request: Request, key: str, stored: StoredObject) -> str:
    return element(
        "Contents",
        element("Key", _name(request, key)),
        element("LastModified", _date(stored.modified)),
        element("ETag", f"&quot;{stored.etag}&quot;"),
        element("Size", stored.size),
        element("StorageClass", "STANDARD"),
    )


def list_uploads(store: Store, request: Request) -> Response:
    """Carry out ListMultipartUploads."""
    query = request.query
    prefix, limit = query.get("prefix", ""), int(query.get("max-uploads", "1000"))
    after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
    uploads = sorted(
        (upload for upload in store.uploads.values() if upload.bucket == request.bucket),
        key=lambda upload: (upload.key, upload.upload_id),
    )
    uploads = [each for each in uploads if each.key.startswith(prefix) and (each.key, each.upload_id) > after]
    page = uploads[:limit]
    described = [
        element(
            "Upload",
            element("Key", _name(request, upload.key)),
            element("UploadId", upload.upload_id),
            element("Initiated", _date(upload.initiated)),
        )
        for upload in page
    ]
    truncated = len(uploads) > limit
    return _listing(
        "ListMultipartUploadsResult",
        request,
        element("IsTruncated", str(truncated).lower()),
        element("NextKeyMarker", _name(request, page[-1].key)) if truncated else "",
        element("NextUploadIdMarker", page[-1].upload_id) if truncated else "",
        *described,
    )


def list_parts(store: Store, request: Request) -> Response:
    """Carry out ListParts."""
    upload = store.upload(request.bucket, request.key, request.query["uploadId"])
    after, limit = int(request.query.get("part-number-marker", "0")), int(request.query.get("max-parts", "1000"))
    numbers = sorted(number for number in upload.parts if number > after)
    page = numbers[:limit]
    described = [
        element(
            "Part",
            element("PartNumber", number),
            element("ETag", f"&quot;{upload.parts[number].md5.hex()}&quot;"),
            element("Size", upload.parts[number].size),
            element("LastModified", _date(upload.initiated)),
        )
        for number in page
    ]
    truncated = len(numbers) > limit
    return _listing(
        "ListPartsResult",
        request,
        element("Key", escape(upload.key)),
        element("UploadId", upload.upload_id),
        element("IsTruncated", str(truncated).lower()),
        element("NextPartNumberMarker", page[-1]) if truncated else "",
        *described,
    )


def _name(request: Request, key: str) -> str:
    """Write a key in a listing as the client wants it."""
    return quote(key) if request.query.get("encoding-type") == "url" else escape(key)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _listing(root: str, request: Request, *content: str) -> Response:
    encoding = request.query.get("encoding-type")
    return xml(element(root, element("EncodingType", encoding) if encoding else "", *content))
