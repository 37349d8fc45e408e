"""URLs: of services, of objects, presigned ones, and of local files.

An object's URL is not percent-encoded: everything after the bucket is the key,
whatever it contains. So a presigned URL could be mistaken for a plain one;
then its signature would appear in error messages, and our own credentials
would be sent along. Hence the rule: **a URL with a parameter that is named
like a signature or a credential is a secret**, however it was encoded,
escaped, or mangled. It is either a presigned URL that can be requested as it
is, or it is refused; it is never the URL of a plain object. The price: an
object whose key has such a parameter (``a?sig=b``) cannot be reached by its
URL, only by bucket and key.

No message, repr or chain of exceptions shows a signature, a query, or the text
before an "@".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from ._signatures import decoded, is_signed, read_signature
from .naming import check_bucket, check_key

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "FileUrl",
    "ObjectUrl",
    "PresignedUrl",
    "clean_endpoint",
    "object_url",
    "parse_presigned",
    "parse_profile",
    "parse_url",
    "split_url",
]

MAX_LENGTH: Final = 16_384
"""Maximum number of characters: more than servers and proxies accept in the first line of a request."""

_FORMS = "http(s)://host[:port]/bucket/key or s3://bucket/key"
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(?:[^/?#]*@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[\w.-]{1,255})(?::(?P<port>[0-9]{1,5})?)?"
    r"(?P<path>(?:/[^\s?#@\\\x00-\x1f\x7f-\x9f\ud800-\udfff]*)?)",
    re.IGNORECASE,
)
_PROFILE = r"[\w.+ -]+"
# What a secret key with "/" in it leaves before the first "/".
_ACCESS_KEY = r"[A-Z0-9]{16,128}:"
# These are compiled on first use, so that importing this module is cheap.
# A bucket's name before the host's own, in the form of each service.
_VIRTUAL_HOST = (
    r"(?P<bucket>.+)\.(?P<host>"
    r"s3[.-].*amazonaws\.com(?:\.cn)?|s3\..*(?:backblazeb2|wasabisys)\.com|s3\..*scw\.cloud"
    r"|storage\.googleapis\.com|oss-[^.]*\.aliyuncs\.com|cos\..*myqcloud\.com|obs\..*myhuaweicloud\.com"
    r"|tos-[^.]*\.(?:volces|bytepluses)\.com|[^.]+\.(?:digitaloceanspaces|linodeobjects|vultrobjects)\.com"
    r"|(?!eu\.|fedramp\.)[^.]+(?:\.eu|\.fedramp)?\.r2\.cloudflarestorage\.com)(?::\d+)?"
)
# A host without a bucket: the service itself, or one without a domain.
_BARE_SERVICE = r"s3[.-]|[^.]*$|[\d.]+$"


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """The parsed URL of an object.

    Attributes
    ----------
    endpoint : `str` or `None`
        The service, without credentials; `None` in an ``s3`` URL.
    bucket, key : `str`
        Bucket and key.
    profile : `str` or `None`
        The profile in ``s3://profile@bucket/key`` (a convention of
        lsst.resources), which has the credentials and, if there is no
        endpoint, the service.
    """

    endpoint: str | None
    bucket: str
    key: str
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class FileUrl:
    """The URL of a file on this machine.

    Attributes
    ----------
    path : `pathlib.Path`
        Its absolute path.
    """

    path: Path


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A URL that authorizes its holder. Its repr does not show it.

    Attributes
    ----------
    url : `str`
        The URL to request, exactly: the percent-encoding may be part of what
        was signed. Without the parts that are not for the server: credentials
        before the host, and a fragment.
    place : `tuple` [`str`, `str`, `str`]
        Endpoint, bucket and key, for messages. If the host contains the
        bucket, but it is not clear in which part, the bucket is the whole
        host.
    expires : `datetime.datetime` or `None`
        When it expires; `None` if it does not say so.
    """

    url: str = field(repr=False)
    place: tuple[str, str, str]
    expires: datetime | None


def parse_url(url: str) -> ObjectUrl | PresignedUrl | FileUrl:
    """Parse a URL of any kind.

    Parameters
    ----------
    url : `str`
        An object's, ``http(s)://host[:port]/bucket/key`` or
        ``s3://[profile@]bucket/key``, not percent-encoded; a presigned URL,
        exactly as it was issued; or a file's, ``file:///path``,
        percent-encoded.

    Returns
    -------
    parsed : `ObjectUrl`, `PresignedUrl` or `FileUrl`
        The parsed URL.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If it has none of these forms. The message shows no secret.
    """
    presigned = parse_presigned(url)
    if presigned is not None:
        return presigned
    return _parse_file(url) if url[:5].lower() == "file:" else _parse_object(url)


def object_url(endpoint: str, bucket: str, key: str) -> str:
    """Return the URL of an object, ``{endpoint}/{bucket}/{key}``, not percent-encoded."""
    return f"{endpoint}/{bucket}/{key}"


def split_url(url: str) -> tuple[str | None, str, str]:
    """Parse the URL of an object: the inverse of `object_url`.

    Parameters
    ----------
    url : `str`
        ``http(s)://host[:port]/bucket/key`` or ``s3://bucket/key``, not
        percent-encoded: everything after the bucket is the key, with any "%",
        "?", "#", "//".

    Returns
    -------
    endpoint : `str` or `None`
        The service, without credentials; `None` in an ``s3`` URL.
    bucket, key : `str`
        Bucket and key.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If it has another form, or a signature. The message shows no secret.

    Notes
    -----
    An endpoint with a path cannot be distinguished from its bucket: the first
    segment is taken as the bucket.
    """
    parsed = parse_url(url)
    if not isinstance(parsed, ObjectUrl) or parsed.profile is not None:
        msg = f"url={_shown(url)} must be {_FORMS}"
        raise ValueError(msg)
    return parsed.endpoint, parsed.bucket, parsed.key


def clean_endpoint(url: str | None) -> str | None:
    """Return the URL of an S3 service in the form that we use and show.

    Parameters
    ----------
    url : `str` or `None`
        An ``http`` or ``https`` URL.

    Returns
    -------
    endpoint : `str` or `None`
        The URL without white space around it, credentials, and "/" at its
        end. `None`, which means AWS, if it is blank.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is not ``http(s)://host[:port][/path]``. The message shows no secret.
    """
    if url is None:
        return None
    _check("endpoint", url)
    url = url.strip()
    if not url:
        return None
    endpoint = None if is_signed(url) else _endpoint(url)
    if endpoint is None:
        msg = f"endpoint={_shown(url)} must be http(s)://host[:port][/path]"
        raise ValueError(msg)
    return endpoint


def parse_profile(name: str, value: str) -> tuple[str | None, str | None, str | None]:
    """Read a profile of lsst.resources, ``http(s)://[id:secret@]host[:port]``, percent-encoded.

    Parameters
    ----------
    name : `str`
        The environment variable, for messages.
    value : `str`
        Its value.

    Returns
    -------
    endpoint, access_key_id, secret_access_key : `str` or `None`
        The service; and the credentials, if it has any.

    Raises
    ------
    ValueError
        If it has another form. The message shows no secret.
    """
    scheme, colon, rest = value.strip().partition("://")
    authority, slash, path = rest.partition("/")
    credentials, _, host = authority.rpartition("@")
    key_id, _, secret = (unquote(part) for part in credentials.partition(":"))
    endpoint = None if bool(key_id) != bool(secret) else _endpoint(f"{scheme}{colon}{host}{slash}{path}")
    if endpoint is None:
        msg = f'{name} must be http(s)://[id:secret@]host[:port], with "/" in the secret written as "%2F"'
        raise ValueError(msg)
    return endpoint, key_id or None, secret or None


def parse_presigned(url: str) -> PresignedUrl | None:
    """Parse a presigned URL.

    Those of S3 and its like (signature versions 4 and 2), Google Cloud
    Storage, Azure, CloudFront, Alibaba OSS, Tencent COS, Swift, and others
    that sign in the same ways.

    Returns
    -------
    presigned : `PresignedUrl` or `None`
        `None` if nothing in it looks like a signature.

    Raises
    ------
    TypeError
        If it is not a `str`.
    ValueError
        If something does, but the URL is not as it was issued, or is of an
        unknown kind. The message says what is wrong, and shows no secret.
    """
    _check("url", url)
    if not is_signed(url):
        return None
    expires, problem = read_signature(url)
    head, _, rest = url.partition("?")
    place = None if problem else _place(head)
    if place is None:
        msg = f"{_safe_start(url)} looks presigned, but {problem or 'it is not http(s)://host[:port]/bucket/key?...'}"
        raise ValueError(msg)
    scheme, _, address = head.partition("://")
    host, _, path = address.partition("/")
    return PresignedUrl(f"{_endpoint(f'{scheme}://{host}')}/{path}?{rest.partition('#')[0]}", place, expires)


def _place(head: str) -> tuple[str, str, str] | None:
    """Return endpoint, bucket and key from the part before the query; None if it has another form."""
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    endpoint = _endpoint(f"{scheme}://{host}")
    # An "@" in the path may end a password that has "/" and begins like a port.
    if endpoint is None or ("@" in path and ":" in host):
        return None
    scheme, _, host = endpoint.partition("://")
    virtual = re.fullmatch(_VIRTUAL_HOST, host, re.IGNORECASE | re.ASCII)
    if virtual is not None:
        return f"{scheme}://{virtual['host']}", check_bucket(virtual["bucket"]), check_key(unquote(path))
    bucket, slash, key = path.partition("/")
    if slash and _is_bucket(unquote(bucket)):
        return endpoint, unquote(bucket), check_key(unquote(key))
    name = re.sub(r":\d+$", "", host)
    if not _is_bucket(name) or re.match(_BARE_SERVICE, name, re.IGNORECASE | re.ASCII):
        return None
    return endpoint, name, check_key(unquote(path))


def _is_bucket(name: str) -> bool:
    try:
        check_bucket(name)
    except ValueError:
        return False
    return True


# Plain URLs


def _parse_object(url: str) -> ObjectUrl:
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    endpoint = profile = None
    # An "@" after the first "/" may end a secret key that contains "/".
    good = "@" in authority or "@" not in path or not re.match(_ACCESS_KEY, authority)
    if scheme.lower() == "s3":
        before, at, bucket = authority.rpartition("@")
        profile = before if at else None
        good = good and (not at or re.fullmatch(_PROFILE, before) is not None)
        key = path
    else:
        endpoint = _endpoint(f"{scheme}://{authority}")
        bucket, _, key = path.partition("/")
        good = good and endpoint is not None
    # And one in place of a bucket ends a password that contains "/".
    if not (good and bucket and key) or "@" in decoded(bucket):
        msg = f"url={_shown(url)} must be {_FORMS}"
        raise ValueError(msg)
    return ObjectUrl(endpoint, check_bucket(bucket), check_key(key), profile)


def _parse_file(url: str) -> FileUrl:
    rest = url[5:]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", rest[:1], rest[1:])
    path = unquote(f"/{path}", errors="surrogateescape")  # what the file system's names are
    if slash != "/" or host.lower() not in {"", "localhost"} or "\0" in path:
        msg = f"url={_shown(url)} must be file:///path, of a file on this machine"
        raise ValueError(msg)
    return FileUrl(Path(path))


def _endpoint(url: str) -> str | None:
    """Normalize the URL of a service; None if it is not one."""
    match = _ENDPOINT.fullmatch(url)
    if match is None or int(match["port"] or 0) > 0xFFFF:  # noqa: PLR2004  (TCP)
        return None
    host = match["host"]
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return None
    port = f":{match['port']}" if match["port"] else ""
    return f"{match['scheme'].lower()}://{host}{port}{match['path'].rstrip('/')}"


def _shown(url: str) -> str:
    """Return what an error may show of a URL: the text before an "@" may be a password, with any "/?#" in it."""
    text = decoded(url)
    if is_signed(text):
        return "(withheld: it seems to contain a signature)"
    # Nor the text in place of a port. In an s3 URL it is a tenant's bucket.
    return repr(re.sub(r"((?<!s3)://[^/:\[]*:)(?!\d*(?:/|$))[^/]*", r"\1...", text.rpartition("@")[2][:200]))


def _safe_start(url: str) -> str:
    """Return the part of a presigned URL that an error may show: nothing after the first possible separator."""
    start = re.match(r"https?://[\w.-]+(?::\d+)?(?:/[\w.~:/+-]*)?", url, re.IGNORECASE | re.ASCII)
    hidden = start is None or "@" in decoded(url) or is_signed(start[0])
    return "url=(not shown)" if start is None or hidden else f"url={start[0][:300]}..."


def _check(argument: str, url: object) -> None:
    if not isinstance(url, str):
        msg = f"{argument} must be a str, not {type(url).__name__}"
        raise TypeError(msg)
    if len(url) > MAX_LENGTH:
        msg = f"{argument} has {len(url)} characters: at most {MAX_LENGTH} are allowed"
        raise ValueError(msg)
