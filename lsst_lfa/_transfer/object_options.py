"""What is stored with an object's data: its type, its metadata, and S3's other options. No I/O."""

from __future__ import annotations

import base64
import mimetypes
import re
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CopyOptions",
    "DEFAULT_TYPE",
    "UploadOptions",
    "copy_options",
    "decode_metadata",
    "encode_metadata",
    "guess_type",
    "upload_options",
]

DEFAULT_TYPE: Final = "binary/octet-stream"
"""S3's default type."""

_MIME_TYPES: Final = mimetypes.MimeTypes()
# FITS: RFC 4047 (a tile-compressed file is a FITS file as well); YAML: RFC 9512; Parquet: IANA's registry.
for _end in (".fits", ".fit", ".fts", ".fz"):
    _MIME_TYPES.add_type("application/fits", _end)
for _end in (".yaml", ".yml"):
    _MIME_TYPES.add_type("application/yaml", _end)
_MIME_TYPES.add_type("text/csv", ".ecsv")
_MIME_TYPES.add_type("application/vnd.apache.parquet", ".parquet")
# A compressed file stays compressed on download: its type is that of the compression.
_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "xz": "application/x-xz",
    "br": "application/x-brotli",
}

# boto3's ExtraArgs, except those that our own arguments set, those of SSE-C, which a download could not pass, and
# those of checksums: see `TransferConfig.integrity`.
_EXTRA_ARGS: Final = frozenset(
    {
        "ACL",
        "BucketKeyEnabled",
        "CacheControl",
        "ContentDisposition",
        "ContentEncoding",
        "ContentLanguage",
        "ContentType",
        "ExpectedBucketOwner",
        "Expires",
        "GrantFullControl",
        "GrantRead",
        "GrantReadACP",
        "GrantWriteACP",
        "Metadata",
        "ObjectLockLegalHoldStatus",
        "ObjectLockMode",
        "ObjectLockRetainUntilDate",
        "RequestPayer",
        "SSEKMSEncryptionContext",
        "SSEKMSKeyId",
        "ServerSideEncryption",
        "StorageClass",
        "Tagging",
        "WebsiteRedirectLocation",
    }
)
_KEPT: Final = frozenset(
    {
        "CacheControl",
        "ContentDisposition",
        "ContentEncoding",
        "ContentLanguage",
        "ContentType",
        "Expires",
        "Metadata",
        "WebsiteRedirectLocation",
    }
)
# A time can be written in many ways.
_TOLD: Final = _KEPT - {"Expires"}
_OF_EVERY_REQUEST: Final = frozenset({"ExpectedBucketOwner", "RequestPayer"})
_NAME = re.compile(r"[A-Za-z0-9.-]+")
# Text that a header can hold as it is: nothing to quote, and no white space at its ends, which servers strip.
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# A client (aiohttp) accepts 8,190 bytes of a header.
_LONGEST: Final = 8_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WORD = r"=\?[\w-]+\?(?:b\?[a-z0-9+/]*=*|q\?[^?\s]+)\?="
_ENCODED_WORDS = re.compile(rf"{_WORD}(?:\s+{_WORD})*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadOptions:
    """What an upload stores with the data, and whether it may replace an object.

    Attributes
    ----------
    params : `dict`
        For the request that creates the object: PutObject,
        CreateMultipartUpload.
    if_none_match : `bool`
        Whether an object with this key must not be replaced.
    """

    params: dict[str, Any] = field(default_factory=dict)
    if_none_match: bool = False

    @property
    def common(self) -> dict[str, Any]:
        """The parameters of every request, including those of parts."""
        return {name: value for name, value in self.params.items() if name in _OF_EVERY_REQUEST}

    def are_stored(self, head: Mapping[str, Any]) -> bool | None:
        """Whether this matches the response to HEAD; `None` if HEAD does not return some of it (ACL, tags)."""
        ours = self.params.keys() - _OF_EVERY_REQUEST
        if any(_decoded(self.params[name]) != _decoded(head.get(name)) for name in ours & _TOLD):
            return False
        return True if ours <= _TOLD else None


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What a copy stores with the data.

    Attributes
    ----------
    given : `dict`
        The values that replace the source's; the rest is kept.
    """

    given: dict[str, Any]

    def params_for_copy(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of CopyObject, which keeps either all or none of the source's values."""
        directives = {"TaggingDirective": "REPLACE"} if "Tagging" in self.given else {}
        if not self.given.keys() & _KEPT:
            return self.given | directives
        return self.params_for_new(source) | directives | {"MetadataDirective": "REPLACE"}

    def params_for_new(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a new object, given the response to a HEAD of the ``source``."""
        kept = {name: source[name] for name in _KEPT if source.get(name)}
        if "Metadata" in kept:
            # As text, since some servers send values that no header may have.
            kept["Metadata"] = {name: _encode(_decode(value)) for name, value in kept["Metadata"].items()}
        return kept | self.given


def upload_options(
    key: str,
    content_type: str | None,
    metadata: Mapping[str, str] | None,
    extra_args: Mapping[str, Any] | None,
    *,
    if_none_match: bool,
) -> UploadOptions:
    """Check the arguments of an upload; see `AsyncS3Bucket.upload`.

    Raises
    ------
    TypeError
        If a name or value of the metadata is not a `str`.
    ValueError
        If an extra argument is not known, or is given twice; or if the metadata
        have a name that does not pass unchanged through every proxy.
    """
    params = {"ContentType": guess_type(key), **_given(content_type, metadata, extra_args)}
    return UploadOptions(params=params, if_none_match=if_none_match)


def copy_options(
    content_type: str | None, metadata: Mapping[str, str] | None, extra_args: Mapping[str, Any] | None
) -> CopyOptions:
    """Check the arguments of a copy; see `AsyncS3Bucket.copy`. Raises as `upload_options`."""
    return CopyOptions(_given(content_type, metadata, extra_args))


def _given(
    content_type: str | None, metadata: Mapping[str, str] | None, extra_args: Mapping[str, Any] | None
) -> dict[str, Any]:
    params = dict(extra_args or {})
    if unknown := sorted(params.keys() - _EXTRA_ARGS):
        msg = f"extra_args has {', '.join(unknown)}; it may have {', '.join(sorted(_EXTRA_ARGS))}"
        raise ValueError(msg)
    for name, given in (("ContentType", content_type), ("Metadata", metadata)):
        if given is not None:
            if name in params:
                msg = f"{name} is given twice: as an argument and in extra_args"
                raise ValueError(msg)
            params[name] = given
    for name, value in params.items():
        if isinstance(value, str) and _CONTROL.search(value):
            msg = f"{name} has control characters: {value!r}"
            raise ValueError(msg)
    if params.get("ContentType") == "":
        raise ValueError("the content type is empty: omit it to have it guessed")
    if "Metadata" in params:
        params["Metadata"] = encode_metadata(params["Metadata"])
    return params


def guess_type(key: str) -> str:
    """Guess an object's MIME type from its key's suffix."""
    guessed, encoding = _MIME_TYPES.guess_type(key.rpartition("/")[2])
    if encoding is not None:
        return _COMPRESSED.get(encoding, DEFAULT_TYPE)
    return guessed or DEFAULT_TYPE


def encode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata in the form of headers: values that are not plain ASCII are encoded by RFC 2047, as in S3."""
    encoded: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            msg = f"metadata must be str to str, not {type(name).__name__} to {type(value).__name__} ({name!r})"
            raise TypeError(msg)
        if not _NAME.fullmatch(name):
            msg = f'metadata has the name {name!r}; letters, digits, "-" and "." pass every proxy, "_" does not'
            raise ValueError(msg)
        if name.lower() in encoded:
            msg = f"metadata has the name {name!r} twice: names of headers have no case"
            raise ValueError(msg)
        encoded[name.lower()] = _encode(value)
        if len(name) + len(encoded[name.lower()]) > _LONGEST:
            msg = f"metadata {name!r} has {len(value)} characters: no client could read a header that long"
            raise ValueError(msg)
    return encoded


def _encode(value: str) -> str:
    # Nor an empty one, which SeaweedFS does not keep.
    if _PLAIN.fullmatch(value) and "=?" not in value:
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def decode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as they were passed to `encode_metadata`, with names in lower case."""
    return {name.lower(): _decode(value) for name, value in metadata.items()}


def _decoded(value: Any) -> Any:
    return decode_metadata(value) if isinstance(value, dict) else value


def _decode(value: str) -> str:
    if not _ENCODED_WORDS.fullmatch(value):
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value  # stored by another client, and not what it looks like
