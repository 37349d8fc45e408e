"""How services sign URLs: finds a signature in any spelling, and reads it if it is valid.

The names of the parameters and their meaning are from the services' own
documentation: query strings signed by AWS (versions 2 and 4), Google Cloud
Storage and CDN, Azure (shared access signatures), CloudFront, Alibaba OSS,
Tencent COS, Huawei OBS, Volcengine TOS, and of Swift's temporary URLs.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Signature", "decoded", "is_signed", "read_signature"]

# The escapes of JavaScript, JSON and HTML.
_ESCAPE = (
    r"[\\%]u([0-9a-f]{4})|\\x([0-9a-f]{2})|&#x0*([0-9a-f]{2,5});?|&#0*([0-9]{2,6});?"
    r"|&(amp|equals|quest|num|semi|percnt|lowbar|hyphen|dash|commat);"
)
_ENTITIES = dict(
    zip(
        ("amp", "equals", "quest", "num", "semi", "percnt", "lowbar", "hyphen", "dash", "commat"),
        "&=?#;%_--@",
        strict=True,
    )
)
_MAX_DEPTH = 10
# Names in the text that `_skeleton` leaves. Whole names anywhere, even where the "?" was lost ...
_SERVICE_PARAMETER = (
    r"x(?:amz|goog|oss|tos|obs)(?:signature|credential|securitytoken|date|expires|algorithm|signedheaders"
    r"|signatureversion|accesskeyid)="
    r"|(?:aws|oss)accesskeyid=|googleaccessid=|keypairid=|qsignature=|qsignalgorithm=|tempurlsig="
)
# ... and others where a parameter begins.
_PARAMETER = (
    r"[?&;#](?:[a-z0-9]*(?:signature|sig|token|secret|secretkey|password|passwd|credentials?|authorization"
    r"|accesskey|accesskeyid|accessid|apikey|hmac|jwt)=|(?:sign|auth|policy|expires)=|sv=20[0-9]{6}"
    # Of WebDAV and XRootD; of content delivery networks (Alibaba, Akamai, UpYun); and what users call a password.
    r"|(?:authz|bearer|authkey|hdn(?:ea|ts|tl)|gda|upt|pwd|passphrase|sessionid)=)"
)
# Oracle's pre-authenticated requests, which have their secret in the path.
_PATH = r"/p/[a-z0-9]{16,}/n/[a-z0-9]+/b/[a-z0-9.]+/o/"
_SIGNATURE = f"{_SERVICE_PARAMETER}|{_PARAMETER}|{_PATH}"
_CREDENTIAL = r"-(?:credential|token)$"


class Signature(NamedTuple):
    """The contents of a URL's signature.

    Attributes
    ----------
    expires : `datetime.datetime` or `None`
        When it expires; `None` if it does not say so.
    problem : `str`
        Why it cannot be used as it is, and the remedy; empty if it can.
    """

    expires: datetime | None
    problem: str


def is_signed(url: str) -> bool:
    """Whether a text has a parameter named like a signature or a credential, in any spelling."""
    return re.search(_SIGNATURE, _skeleton(url)) is not None


def decoded(url: str) -> str:
    """Undo all percent-encoding and escaping, of any depth, and the other forms of the same characters.

    Text that is encoded more than ten times over is treated as signed.
    """
    for _ in range(_MAX_DEPTH):
        once = unicodedata.normalize("NFKC", re.sub(_ESCAPE, _unescape, unquote(url), flags=re.IGNORECASE))
        if once == url:
            return url
        url = once
    return "?sig="


def read_signature(url: str) -> Signature:
    """Read the signature of a URL for which `is_signed` holds."""
    head, _, rest = url.partition("?")
    pairs = parse_qsl(rest.partition("#")[0])
    names = Counter(name for name, _ in pairs)
    kind = next((kind for kind in _KINDS if kind.names <= names.keys()), None)
    problem = _first_found(_NEVER, url)
    if problem or kind is None:
        return Signature(None, problem or _first_found(_MANGLED, url) or _missing(names))
    expires = kind.expiry(dict(pairs))
    if is_signed(head):
        problem = "its path also has a signature"
    elif any(names[name] > 1 for name in kind.names):
        problem = "it has the same parameter twice"
    elif any(
        "%" in value for name, value in pairs if name in kind.names or re.search(_CREDENTIAL, name, re.IGNORECASE)
    ):
        problem = "its parameters are percent-encoded twice: decode them once"
    elif expires is None and kind.always_expires:
        problem = "it does not say when it expires"
    return Signature(expires, problem)


def _skeleton(url: str) -> str:
    """Keep only letters, digits and separators, so that all spellings of a parameter are the same."""
    return re.sub(r"[^a-z0-9=?&;#/.:@]+", "", decoded(url).casefold())


def _unescape(match: re.Match[str]) -> str:
    unicode, byte, hexadecimal, decimal, entity = match.groups()
    if entity is not None:
        return _ENTITIES[entity.lower()]
    return chr(int(decimal) if decimal is not None else int(unicode or byte or hexadecimal, 16))


def _lasting(date: str, seconds: str, values: Mapping[str, str]) -> datetime | None:
    made = _date(values[date]) if re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", values[date]) else None
    try:
        return made and made + timedelta(seconds=_int(values[seconds]))
    except (OverflowError, ValueError):
        return None


def _epoch(name: str, values: Mapping[str, str]) -> datetime | None:
    try:
        return datetime.fromtimestamp(_int(values[name].rpartition(";")[2]), UTC)  # COS: begin;end
    except (OverflowError, ValueError, OSError):
        return None


def _policy(values: Mapping[str, str]) -> datetime | None:
    try:
        policy = base64.b64decode(values["Policy"].translate(str.maketrans("-_~", "+=/")).encode()).decode()
    except ValueError:
        return None
    end = re.search(r'"DateLessThan"\s*:\s*\{\s*"AWS:EpochTime"\s*:\s*([0-9]+)', policy)
    return None if end is None else _epoch("end", {"end": end[1]})


def _date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        return None


def _int(text: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        raise ValueError
    return int(text)


class _Kind(NamedTuple):
    """A way to sign: the parameters that it needs, and how to find out when they expire."""

    names: frozenset[str]
    expiry: Callable[[Mapping[str, str]], datetime | None]
    always_expires: bool = True


def _kind(*names: str) -> _Kind:
    """Return a kind whose last parameter is its expiry time, in seconds since 1970."""
    return _Kind(frozenset(names), partial(_epoch, names[-1]))


def _kind_with_date(signature: str, date: str, seconds: str) -> _Kind:
    return _Kind(frozenset({signature, date, seconds}), partial(_lasting, date, seconds))


_KINDS = (
    _kind_with_date("X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires"),
    _kind_with_date("X-Goog-Signature", "X-Goog-Date", "X-Goog-Expires"),
    _kind_with_date("X-Tos-Signature", "X-Tos-Date", "X-Tos-Expires"),
    _kind_with_date("x-oss-signature", "x-oss-date", "x-oss-expires"),
    _kind("x-oss-signature", "x-oss-access-key-id", "x-oss-expires"),
    _kind("AWSAccessKeyId", "Signature", "Expires"),
    _kind("GoogleAccessId", "Signature", "Expires"),
    _kind("OSSAccessKeyId", "Signature", "Expires"),
    _kind("AccessKeyId", "Signature", "Expires"),  # Huawei OBS
    _kind("KeyName", "Signature", "Expires"),  # Google Cloud CDN
    _kind("Key-Pair-Id", "Signature", "Expires"),  # CloudFront
    _Kind(frozenset({"Key-Pair-Id", "Signature", "Policy"}), _policy, always_expires=False),
    _Kind(frozenset({"sig", "sv"}), lambda values: _date(values.get("se", "")), always_expires=False),  # Azure
    _kind("q-signature", "q-ak", "q-sign-time"),  # Tencent COS
    _kind("temp_url_sig", "temp_url_expires"),  # Swift, and Ceph in its place
)

# What no presigned URL contains, and the remedy. The first match counts.
_NEVER = (
    (r"^\s|\s$", "it has white space around it: strip it"),
    (r"(?i)^https?%(?:25)*3a", 'all of it is percent-encoded, including "://": decode it'),
    (r"(?i)&(?:amp|#0*38|#x0*26);", 'it has "&amp;" where "&" belongs, like text from HTML or XML: replace each'),
    (r"\\", "it has backslashes: remove the escapes of the shell or of JSON"),
    (r"^[^?]*#", 'it has "#" before "?": in a key, write it as "%23"'),
    (r"\s", "it has white space in it: join wrapped lines, and percent-encode spaces that belong to the key"),
    (r"[^!-~]", "it has characters that must be percent-encoded"),
)
# The same if parameters are missing.
_MANGLED = (
    (r"(?i)^[^?]*%(?:25)*3f", 'it has "%3F" where "?" belongs: percent-decode its parameters once'),
    (r"#", 'it has "#" before its end'),
    (r"^[^?]*$", 'it has no "?" before its parameters'),
    (r"(?i)%(?:25)*26[^&=%]*(?:=|%(?:25)*3d)", 'it has "%26" where "&" belongs: percent-decode its parameters once'),
    (r"(?i)[?&][^?&=%]*%(?:25)*3d", 'it has "%3D" where "=" belongs: percent-decode its parameters once'),
    (r"\?.*\?", 'it has a second "?" where "&" belongs'),
    (r";[^&;=]*=", 'it has ";" where "&" belongs: replace each between parameters'),
)


def _first_found(rules: tuple[tuple[str, str], ...], url: str) -> str:
    return next((wrong for pattern, wrong in rules if re.search(pattern, url)), "")


def _missing(names: Mapping[str, int]) -> str:
    """Return what is missing, for the kind that matches best."""
    folded = {name.casefold() for name in names}
    for kind in _KINDS:
        if {name.casefold() for name in kind.names} <= folded:
            return f"its parameters' names must be written {', '.join(sorted(kind.names))}"
    best = max(_KINDS, key=lambda kind: _resemblance(kind, names))
    if _resemblance(best, names) == 0:
        return "its signature is of an unknown kind; if it belongs to an object's key, use bucket and key, not the URL"
    missing = ", ".join(sorted(best.names - names.keys()))
    return f"it lacks {missing}: it was cut short (in a shell, put it in quotes) or altered"


def _resemblance(kind: _Kind, names: Mapping[str, int]) -> int:
    prefix = commonprefix(sorted(kind.names)) or "?"  # noqa: RUF071  (not of paths)
    return len(kind.names & names.keys()) + sum(name.startswith(prefix) for name in names)
