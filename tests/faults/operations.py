"""The S3 operations as functions from a store and a request to a response. No input or output, no faults."""

from __future__ import annotations

import base64
import binascii
import re
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from .listings import list_objects, list_parts, list_uploads
from .messages import Response, element, error_response, xml
from .store import Body, S3Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from .messages import Request
    from .store import Store, StoredObject

_KEPT_HEADERS = re.compile(r"cache-control|content-(disposition|encoding|language|type)|expires|x-amz-meta-.*")
MAX_DELETED = 1000
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def carry_out(store: Store, request: Request) -> Response:
    """Do what the request asks for, or refuse it, as S3 would."""
    try:
        _verify(store, request)
        return _OPERATIONS[request.operation](store, request)
    except S3Error as error:
        return error_response(error.status, error.code, error.headers)


def _verify(store: Store, request: Request) -> None:
    """Refuse what is beyond this server, what has no bucket, and a body that does not fit its digests."""
    signed = request.headers.get("x-amz-content-sha256", "")
    if request.operation not in _OPERATIONS:
        raise S3Error(501, "NotImplemented")
    if signed.startswith("STREAMING-"):
        raise S3Error(501, "NotImplemented")
    if request.bucket not in store.buckets and request.operation != "CreateBucket":
        raise S3Error(404, "NoSuchBucket")
    if request.body.sha256 is not None and request.body.sha256 != signed:
        raise S3Error(400, "XAmzContentSHA256Mismatch")
    if "content-md5" in request.headers:
        try:
            expected = base64.b64decode(request.headers["content-md5"], validate=True)
        except binascii.Error:
            raise S3Error(400, "InvalidDigest") from None
        if expected != request.body.md5:
            raise S3Error(400, "BadDigest")


def _create_bucket(store: Store, request: Request) -> Response:
    if request.bucket in store.buckets:
        raise S3Error(409, "BucketAlreadyOwnedByYou")
    store.buckets.add(request.bucket)
    return Response(headers={"Location": f"/{request.bucket}"})


def _head_bucket(_store: Store, _request: Request) -> Response:
    return Response()


def _get_bucket_location(_store: Store, _request: Request) -> Response:
    return xml(element("LocationConstraint"))


def _put_object(store: Store, request: Request) -> Response:
    _check_conditions(store.objects.get((request.bucket, request.key)), request)
    stored = store.put(request.bucket, request.key, request.body, _kept(request))
    return Response(headers={"ETag": f'"{stored.etag}"'})


def _get_object(store: Store, request: Request) -> Response:
    stored = store.get(request.bucket, request.key)
    _check_conditions(stored, request)
    wanted = _requested_range(request.headers.get("range", ""), stored.size)
    headers = {
        "Content-Type": "binary/octet-stream",
        **{name.title(): value for name, value in stored.headers.items()},
        "ETag": f'"{stored.etag}"',
        "Last-Modified": formatdate(stored.modified, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    if wanted is None:
        return Response(headers=headers, body=list(stored.slices(0, stored.size)))
    start, stop = wanted
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    return Response(206, headers, list(stored.slices(start, stop)))


def _copy_object(store: Store, request: Request) -> Response:
    source = _source(store, request)
    kept = source.headers if request.headers.get("x-amz-metadata-directive") != "REPLACE" else _kept(request)
    stored = store.put(request.bucket, request.key, Body(*(bytes(piece) for piece in source.pieces)), kept)
    return _copied("CopyObjectResult", stored.etag)


def _upload_part_copy(store: Store, request: Request) -> Response:
    upload = store.upload(request.bucket, request.key, request.query["uploadId"])
    source = _source(store, request)
    start, stop = _requested_range(request.headers["x-amz-copy-source-range"], source.size) or (0, source.size)
    body = Body(*(bytes(piece) for piece in source.slices(start, stop)))
    store.put_part(upload, int(request.query["partNumber"]), body)
    return _copied("CopyPartResult", body.md5.hex())


def _source(store: Store, request: Request) -> StoredObject:
    """Find what is copied; only as a server that does not know the condition: those that do are no hazard."""
    bucket, _, key = unquote(request.headers["x-amz-copy-source"]).removeprefix("/").partition("/")
    return store.get(bucket, key)


def _copied(root: str, etag: str) -> Response:
    return xml(element(root, element("ETag", f"&quot;{etag}&quot;"), element("LastModified", "2026-11-25T00:00:00Z")))


def _delete_objects(store: Store, request: Request) -> Response:
    keys = [each.text or "" for each in ET.fromstring(request.body.data).iterfind("{*}Object/{*}Key")]
    if len(keys) > MAX_DELETED:
        raise S3Error(400, "MalformedXML")
    for key in keys:
        store.objects.pop((request.bucket, key), None)
    return xml(element("DeleteResult", *(element("Deleted", element("Key", escape(key))) for key in keys)))


def _delete_object(store: Store, request: Request) -> Response:
    store.objects.pop((request.bucket, request.key), None)
    return Response(204)


def _create_upload(store: Store, request: Request) -> Response:
    upload = store.create_upload(request.bucket, request.key, _kept(request))
    return xml(
        element(
            "InitiateMultipartUploadResult",
            element("Bucket", escape(request.bucket)),
            element("Key", escape(request.key)),
            element("UploadId", upload.upload_id),
        )
    )


def _upload_part(store: Store, request: Request) -> Response:
    upload = store.upload(request.bucket, request.key, request.query["uploadId"])
    store.put_part(upload, int(request.query["partNumber"]), request.body)
    return Response(headers={"ETag": f'"{request.body.md5.hex()}"'})


def _complete_upload(store: Store, request: Request) -> Response:
    upload = store.upload(request.bucket, request.key, request.query["uploadId"])
    _check_conditions(store.objects.get((request.bucket, request.key)), request)
    stored = store.complete(upload, _wanted_parts(request.body.data))
    return xml(
        element(
            "CompleteMultipartUploadResult",
            element("Bucket", escape(request.bucket)),
            element("Key", escape(request.key)),
            element("ETag", f"&quot;{stored.etag}&quot;"),
        )
    )


def _wanted_parts(body: bytes) -> list[tuple[int, str]]:
    try:
        parts = ET.fromstring(body).findall("{*}Part")
        return [(int(part.findtext("{*}PartNumber") or ""), part.findtext("{*}ETag") or "") for part in parts]
    except (ET.ParseError, ValueError):
        raise S3Error(400, "MalformedXML") from None


def _abort_upload(store: Store, request: Request) -> Response:
    upload = store.upload(request.bucket, request.key, request.query["uploadId"])
    del store.uploads[upload.upload_id]
    return Response(204)


def _check_conditions(stored: StoredObject | None, request: Request) -> None:
    """Honour If-Match and If-None-Match."""
    etag = None if stored is None else stored.etag
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and not _matches(match, etag):
        raise S3Error(412, "PreconditionFailed")
    if none_match is not None and _matches(none_match, etag):
        raise S3Error(304, "NotModified") if request.method in ("GET", "HEAD") else S3Error(412, "PreconditionFailed")


def _matches(condition: str, etag: str | None) -> bool:
    return etag is not None and (condition == "*" or etag in [each.strip(' "') for each in condition.split(",")])


def _requested_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the offsets (start, stop) that a Range header asks for; None if it is none that we know."""
    parsed = _RANGE.fullmatch(header)
    first, last = parsed.groups() if parsed else ("", "")
    if not first and not last:
        return None
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise S3Error(416, "InvalidRange", {"Content-Range": f"bytes */{size}"})
    return start, stop


def _kept(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if _KEPT_HEADERS.fullmatch(name)}


_OPERATIONS: dict[str, Callable[[Store, Request], Response]] = {
    "CreateBucket": _create_bucket,
    "HeadBucket": _head_bucket,
    "GetBucketLocation": _get_bucket_location,
    "ListMultipartUploads": list_uploads,
    "ListObjectsV2": list_objects,
    "UploadPart": _upload_part,
    "PutObject": _put_object,
    "ListParts": list_parts,
    "GetObject": _get_object,
    "HeadObject": _get_object,
    "AbortMultipartUpload": _abort_upload,
    "DeleteObject": _delete_object,
    "DeleteObjects": _delete_objects,
    "CopyObject": _copy_object,
    "UploadPartCopy": _upload_part_copy,
    "CreateMultipartUpload": _create_upload,
    "CompleteMultipartUpload": _complete_upload,
}
