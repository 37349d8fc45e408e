"""Requests as S3 understands them, responses and their XML."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from .store import Body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .wire import Head

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

_SIGNED = re.compile(r"[0-9a-f]{64}")

# The first route whose method, depth (0 service, 1 bucket, 2 object) and query fit is the request's.
_ROUTES = [
    ("PUT", 1, set(), "CreateBucket"),
    ("HEAD", 1, set(), "HeadBucket"),
    ("GET", 1, {"location"}, "GetBucketLocation"),
    ("GET", 1, {"uploads"}, "ListMultipartUploads"),
    ("GET", 1, {"list-type"}, "ListObjectsV2"),
    ("PUT", 2, {"partNumber", "uploadId"}, "UploadPart"),
    ("PUT", 2, set(), "PutObject"),
    ("POST", 1, {"delete"}, "DeleteObjects"),
    ("GET", 2, {"uploadId"}, "ListParts"),
    ("GET", 2, set(), "GetObject"),
    ("HEAD", 2, set(), "HeadObject"),
    ("DELETE", 2, {"uploadId"}, "AbortMultipartUpload"),
    ("DELETE", 2, set(), "DeleteObject"),
    ("POST", 2, {"uploads"}, "CreateMultipartUpload"),
    ("POST", 2, {"uploadId"}, "CompleteMultipartUpload"),
]

_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}

OPERATIONS = frozenset((*(operation for *_, operation in _ROUTES), *_COPIES.values()))
"""Names of the operations that the server knows."""


@dataclass
class Request:
    """A request, its body once that has been read."""

    method: str
    target: str
    headers: dict[str, str]
    bucket: str
    key: str
    query: dict[str, str]
    content_length: int
    body: Body

    @classmethod
    def parse(cls, head: Head) -> Request:
        """Understand a request's head; ValueError if it is none."""
        method, target, _ = head.start.split(" ")
        path, _, query = target.partition("?")
        bucket, _, key = path.removeprefix("/").partition("/")
        return cls(
            method=method,
            target=target,
            headers=dict(head.headers),
            bucket=unquote(bucket),
            key=unquote(key),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            content_length=head.content_length,
            body=Body(signed=_SIGNED.fullmatch(head.headers.get("x-amz-content-sha256", "")) is not None),
        )

    @property
    def operation(self) -> str:
        """S3's name of the operation; "Unknown" if this server has none such."""
        depth = bool(self.bucket) + bool(self.key)
        # A name without a value, as ?tagging, asks for something else than the object or the bucket.
        is_plain = all(self.query.values())
        for method, level, needed, operation in _ROUTES:
            if (self.method, depth) == (method, level) and (needed <= self.query.keys() if needed else is_plain):
                return _COPIES.get(operation, operation) if "x-amz-copy-source" in self.headers else operation
        return "Unknown"


@dataclass
class Response:
    """A response; its body is a sequence of pieces, which are sent as they are."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Sequence[bytes | memoryview] = ()

    @property
    def content_length(self) -> int:
        """Length of the body in bytes."""
        return sum(map(len, self.body))


def error_response(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """Make a response with S3's XML of an error, whatever the status."""
    text = element("Error", element("Code", escape(code)), element("Message", f"{escape(code)}, says the test."))
    return xml(text, status, headers, namespace="")


def element(name: str, *content: object) -> str:
    """Write an XML element; its text must have been escaped."""
    return f"<{name}>{''.join(map(str, content))}</{name}>"


def xml(
    root: str, status: int = 200, headers: Mapping[str, str] | None = None, *, namespace: str = NAMESPACE
) -> Response:
    """Make a response of an XML element; S3 puts all but its errors into a namespace."""
    name, _, rest = root.partition(">")
    attribute = f' xmlns="{namespace}"' if namespace else ""
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n{name}{attribute}>{rest}'
    return Response(status, {"Content-Type": "application/xml", **(headers or {})}, [document.encode()])
