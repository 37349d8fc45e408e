"""URLs of every kind are parsed; and no message shows their secrets."""

from __future__ import annotations

import copy
import itertools
import pickle
import pprint
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lsst_lfa._signatures import is_signed
from lsst_lfa._urls import (
    MAX_LENGTH,
    FileUrl,
    ObjectUrl,
    PresignedUrl,
    clean_endpoint,
    object_url,
    parse_presigned,
    parse_url,
    split_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# All but the control characters and lone surrogates, which no key may have.
KEYS = (
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200)
    .map(lambda text: text.replace("..", "x"))
    .filter(lambda text: {".", ".."}.isdisjoint(text.split("/")))
)
BUCKETS = st.from_regex(r"([a-z0-9]{1,9}:)?[A-Za-z0-9_-]{1,50}", fullmatch=True)
ENDPOINTS = st.sampled_from(["http://127.0.0.1:9000", "https://s3.example.org", "http://[::1]:80", "http://s3_test"])
EXPIRES = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
EPOCH = f"{EXPIRES.timestamp():.0f}"
SECRET = "SECRET"
V4 = "X-Amz-Date=20260301T120000Z&X-Amz-Expires=30&X-Amz-Signature=SECRET"
V2 = f"AWSAccessKeyId=id&Signature=SECRET&Expires={EPOCH}"
KEY = "https://s3.example.org/bucket/key"


def everything(error: BaseException) -> str:
    """Return all that an exception, and those behind it, show."""
    shown = [*traceback.format_exception(error), repr(error), repr(error.args)]
    for each in (error.__cause__, error.__context__):
        shown += [] if each is None else [everything(each), repr(vars(each)), repr(getattr(each, "object", ""))]
    return "\n".join(shown)


def refusal(url: Any) -> str:
    """Return what is said of a URL that is refused; all that is shown must be without its secret."""
    with pytest.raises(ValueError, match=r"url|bucket=|key=") as caught:
        parse_url(url)
    assert SECRET not in everything(caught.value)
    return str(caught.value)


# Plain URLs


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (None, None),
        ("", None),
        (" \t\n", None),
        ("http://h", "http://h"),
        (" https://h:9000/ \n", "https://h:9000"),
        ("http://h//", "http://h"),
        ("HTTP://Host:80/a/b/", "http://Host:80/a/b"),
        ("http://user:secret@h:1", "http://h:1"),
        ("http://user@h", "http://h"),
        ("http://u:p@s@h/x", "http://h/x"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("http://h:", "http://h"),
        ("http://s3_test:9000", "http://s3_test:9000"),
    ],
)
def test_endpoint_is_cleaned(url: str | None, endpoint: str | None) -> None:
    assert clean_endpoint(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "h:9000",
        "ftp://u:SECRET@h",
        "http://",
        "http://u:SECRET@",
        "http://:9000",
        "http://h:99999",
        "http://h:x",
        "http://h h",
        "http://h\ud800",
        "http://h/\x00",
        "http://h/\ud800",
        "http://h/\\",
        "http://h%20",
        "http://[::1",
        "http://[:::]",
        "http://[1.2.3.4]",
        "http://[12345::]",
        f"http://{'h' * 256}",
        f"http://h/{'x' * MAX_LENGTH}",
        "http://h?u:SECRET@x",
        "http://h/#a",
        "http://u:SEC/RET@h",
        "http://u:1/SECRET@h",
        "s3://bucket",
        "http://u:SECRET@h:port",
        "http://u:SECRET%40h:port",
        "http://u:SECRET",
        "http://h/b?X-Amz-Signature=SECRET",
        "http://h/b;sig=SECRET",
        "http://h/b%3Bsig%3DSECRET",
    ],
)
def test_bad_endpoints_are_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as caught:
        clean_endpoint(url)
    assert "SEC" not in everything(caught.value)
    assert len(str(caught.value)) < 400


def test_endpoint_must_be_text() -> None:
    with pytest.raises(TypeError, match="endpoint must be a str, not bytes") as caught:
        clean_endpoint(b"http://u:SECRET@h")  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@given(ENDPOINTS, BUCKETS, KEYS)
@example("http://h:1", "t:b", "a?b=c.fits")
@example("http://h:1", "b", "R&D;x=1#50%/a@b//?")
@example("https://h", "b", "k?X-Amz=1&y")
def test_split_url_is_the_inverse_of_object_url(endpoint: str, bucket: str, key: str) -> None:
    url = object_url(endpoint, bucket, key)
    assert url == f"{endpoint}/{bucket}/{key}"
    assume(not is_signed(key))
    assert split_url(url) == (endpoint, bucket, key)
    assert split_url(f"s3://{bucket}/{key}") == (None, bucket, key)
    assert parse_url(url) == ObjectUrl(endpoint, bucket, key)
    assert parse_url(f"s3://lfa@{bucket}/{key}") == ObjectUrl(None, bucket, key, "lfa")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h:1/b/a:%2F+ ?#é//c/", ("http://h:1", "b", "a:%2F+ ?#é//c/")),
        ("http://h/b//a", ("http://h", "b", "/a")),
        ("http://h/b/a ", ("http://h", "b", "a ")),
        ("http://u:p@h/b/a@b", ("http://h", "b", "a@b")),
        ("http://AKIAIOSFODNN7EXAMPLE:p@h/b/a@b", ("http://h", "b", "a@b")),
        ("s3://tenant:b/a://c", (None, "tenant:b", "a://c")),
        ("s3://:b/a@b:c", (None, ":b", "a@b:c")),
        ("S3://b/k", (None, "b", "k")),
    ],
)
def test_keys_are_taken_as_they_are(url: str, parts: tuple[str | None, str, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("s3://lfa@rubin:bucket/a/k", ObjectUrl(None, "rubin:bucket", "a/k", "lfa")),
        ("s3://my profile+1@b/k@x", ObjectUrl(None, "b", "k@x", "my profile+1")),
        ("file:///a%20b%3F%23?c#d", FileUrl(Path("/a b?#?c#d"))),
        ("FILE://localhost/a", FileUrl(Path("/a"))),
        ("file:/a", FileUrl(Path("/a"))),
    ],
)
def test_other_urls(url: str, parsed: ObjectUrl | FileUrl) -> None:
    assert parse_url(url) == parsed
    with pytest.raises(ValueError, match="url="):
        split_url(url)


@given(st.binary(min_size=1).map(lambda name: b"/" + name.replace(b"\0", b"x")))
def test_a_file_s_url_gives_its_path_whatever_its_bytes_are(name: bytes) -> None:
    url = f"file://{quote(name)}"
    assume(not is_signed(url))
    parsed = parse_url(url)
    assert isinstance(parsed, FileUrl)
    assert bytes(parsed.path) == bytes(Path(name.decode(errors="surrogateescape")))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "b/k",
        "gs://b/k",
        "http://h",
        "http://h/b",
        "http://h/b/",
        "http:///b/k",
        "http://[::/b/k",
        "http://h:99999999999/b/k",
        "s3://b",
        "s3:///k",
        "s3://@b/k",
        "s3://p@/k",
        "ftp://u:SECRET@h/b/k",
        "http://u:SEC/RET@h/b/k",
        "http://u:1/SECRET@h/b/k",
        "http://u:SECRET/b/k",
        "http://u:SECRET%40h/b/k",
        "s3://u:SECRET@b/k",
        "s3://u%3ASECRET%40b/k",
        "s3://u&#58;SECRET&#64;b/k",
        "s3://AKIAIOSFODNN7EXAMPLE:a/SECRET@b/k",
        "http://AKIAIOSFODNN7EXAMPLE:1/a/SECRET@h/b/k",
        "http://h/b/../k",
        "http://h/b b/k",
        "http://h/b/k\n",
        "http://h/b/k\0",
        "http://h/b/k\ud800",
        " http://h/b/k",
        "file://host/a",
        "file://a",
        "file:a",
        "file:",
        "file:///a%00b",
        "file://u:SECRET@host/a",
        f"http://h/b/{'x' * 1025}",
        f"http://h/b/{'x' * MAX_LENGTH}",
    ],
)
def test_urls_of_nothing_are_refused_without_showing_secrets(url: str) -> None:
    message = refusal(url)
    assert "SEC" not in message
    with pytest.raises(ValueError, match=r"url|bucket=|key="):
        split_url(url)


@pytest.mark.parametrize("url", [None, b"s3://bucket/SECRET", 7, Path("SECRET")])
@pytest.mark.parametrize("parse", [parse_url, parse_presigned, split_url])
def test_url_must_be_text(parse: Any, url: object) -> None:
    with pytest.raises(TypeError, match="url must be a str, not ") as caught:
        parse(url)
    assert SECRET not in everything(caught.value)


# Presigned URLs

PLACES = {
    KEY: ("https://s3.example.org", "bucket", "key"),
    "http://127.0.0.1:8000/lsst%3Abucket/a%20b%3A%2B%2541+%C3%BC": (
        "http://127.0.0.1:8000",
        "lsst:bucket",
        "a b:+%41+ü",
    ),
    "https://s3.eu-west-1.amazonaws.com/bucket/a/key": ("https://s3.eu-west-1.amazonaws.com", "bucket", "a/key"),
    "https://my.bucket.s3.eu-west-1.amazonaws.com/a/key": ("https://s3.eu-west-1.amazonaws.com", "my.bucket", "a/key"),
    "https://bucket.s3.amazonaws.com/key": ("https://s3.amazonaws.com", "bucket", "key"),
    "https://bucket.s3.cn-north-1.amazonaws.com.cn/key": ("https://s3.cn-north-1.amazonaws.com.cn", "bucket", "key"),
    "https://b.s3.dualstack.us-west-2.amazonaws.com:443/k": ("https://s3.dualstack.us-west-2.amazonaws.com", "b", "k"),
    "https://storage.googleapis.com/bucket/a/key": ("https://storage.googleapis.com", "bucket", "a/key"),
    "https://bucket.storage.googleapis.com/a/key": ("https://storage.googleapis.com", "bucket", "a/key"),
    "https://b.oss-cn-hangzhou.aliyuncs.com/a/key": ("https://oss-cn-hangzhou.aliyuncs.com", "b", "a/key"),
    "https://b-125.cos.ap-beijing.myqcloud.com/a/key": ("https://cos.ap-beijing.myqcloud.com", "b-125", "a/key"),
    "https://b.nyc3.digitaloceanspaces.com/a/key": ("https://nyc3.digitaloceanspaces.com", "b", "a/key"),
    "https://b.s3.us-west-004.backblazeb2.com/a/key": ("https://s3.us-west-004.backblazeb2.com", "b", "a/key"),
    "https://b.account.r2.cloudflarestorage.com/a/key": ("https://account.r2.cloudflarestorage.com", "b", "a/key"),
    "https://account.eu.r2.cloudflarestorage.com/b/key": ("https://account.eu.r2.cloudflarestorage.com", "b", "key"),
    "https://account.r2.cloudflarestorage.com/b/key": ("https://account.r2.cloudflarestorage.com", "b", "key"),
    "https://account.blob.core.windows.net/container/a/key": (
        "https://account.blob.core.windows.net",
        "container",
        "a/key",
    ),
    "https://account.blob.core.windows.net/$web/a": (
        "https://account.blob.core.windows.net",
        "account.blob.core.windows.net",
        "$web/a",
    ),
    "https://d111111abcdef8.cloudfront.net/image.jpg": (
        "https://d111111abcdef8.cloudfront.net",
        "d111111abcdef8.cloudfront.net",
        "image.jpg",
    ),
}


@pytest.mark.parametrize("query", [V4, f"versionId=1&response-content-type=a%2Fb&{V4}", V2])
@pytest.mark.parametrize("head", PLACES)
def test_presigned_urls_are_kept_to_the_letter(head: str, query: str) -> None:
    presigned = parse_url(f"{head}?{query}")
    assert presigned == parse_presigned(f"{head}?{query}")
    assert presigned == PresignedUrl(f"{head}?{query}", PLACES[head], EXPIRES)


def test_a_presigned_url_need_not_say_when_it_expires() -> None:
    url = "https://account.blob.core.windows.net/container/key?sv=2022-11-02&si=policy&sig=SECRET"
    presigned = parse_presigned(url)
    assert presigned is not None
    assert (presigned.url, presigned.expires) == (url, None)


def test_what_is_not_for_the_server_is_left_out() -> None:
    presigned = parse_presigned(f"HTTPS://user:password@host.org:99/bucket/key?{V4}#fragment")
    assert presigned is not None
    assert presigned.url == f"https://host.org:99/bucket/key?{V4}"


def test_a_presigned_url_is_not_printed_by_accident() -> None:
    presigned = parse_presigned(f"{KEY}?{V4}")
    shown = [repr(presigned), str(presigned), f"{presigned}", f"{[presigned]}", "%s" % presigned]  # noqa: UP031
    shown += [pprint.pformat(presigned), "{}".format(presigned)]  # noqa: UP032
    for careless in (lambda: iter(presigned), lambda: vars(presigned), lambda: f"{presigned:>9}"):  # type: ignore[call-overload]
        with pytest.raises(TypeError) as caught:
            careless()
        shown.append(everything(caught.value))
    with pytest.raises((AttributeError, TypeError)) as changed:
        presigned.url = ""  # type: ignore[union-attr, misc]
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)) as unpicklable:
        pickle.dumps((presigned, lambda: None))
    shown += [everything(changed.value), everything(unpicklable.value)]
    assert not [text for text in shown if SECRET in text]
    assert "'bucket', 'key'" in shown[0]
    assert pickle.loads(pickle.dumps(presigned)) == copy.deepcopy(presigned) == presigned


@pytest.mark.parametrize(
    "url",
    [
        f"s3.example.org/bucket/key?{V4}",
        f"ftp://s3.example.org/bucket/key?{V4}",
        f"s3://bucket/key?{V4}",
        f"file:///bucket/key?{V4}",
        f"https://s3.example.org/key?{V4}",
        f"https://s3.example.org/?{V4}",
        f"https://s3.example.org?{V4}",
        f"http://127.0.0.1:9000/key?{V4}",
        f"http://localhost/key?{V4}",
        f"http://[::1]/key?{V4}",
        f"http://[::ffff:1.2.3.4]/key?{V4}",
        f"http://[::1/bucket/key?{V4}",
        f"https://h:99999/bucket/key?{V4}",
        f"https://s3.example.org/bucket/a b?{V4}",
        f"https://s3.example.org/bucket/ü?{V4}",
        f"https://s3.example.org/bucket/a%0Ab?{V4}",
        f"https://s3.example.org/bucket/../key?{V4}",
        f"https://s3.example.org/bucket/%2e%2e/key?{V4}",
        f"https://s3.example.org/bucket/a%0AX-Amz-Signature=SECRET?{V4}",
        f"https://user:SECRET@s3.example.org/key?{V4}",
        f"https://user:1/SECRET@s3.example.org/bucket/key?{V4}",
        f"https://user:1/SEC/SECRET@s3.example.org/bucket/key?{V4}",
        f"https://user:SECRET@h/bucket/key?{V4}".replace("&", "&amp;"),
        f"https://user:SECRET%40h/bucket/key?{V4}",
        f"https://user:SECRET?@h/bucket/key?{V4}",
        f"https://user:SECRET#@h/bucket/key?{V4}",
        f"{KEY}?{V4}&padding={'x' * MAX_LENGTH}",
        "https://objectstorage.eu-a-1.oraclecloud.com/p/SECRETSECRETSECRET/n/name/b/bucket/o/key",
        "https://objectstorage.eu-a-1.oraclecloud.com/p%2FSECRETSECRETSECRET/n/name/b/bucket/o/key",
    ],
)
def test_presigned_urls_of_no_object_are_refused_without_showing_secrets(url: str) -> None:
    refusal(url)


def test_a_refusal_names_place_and_cure() -> None:
    assert refusal(f"{KEY}?{V4}".replace("&", "&amp;")) == (
        f'url={KEY}... looks presigned, but it has "&amp;" where "&" belongs, like text from HTML or XML: replace each'
    )


SERVICES = (
    V4,
    f"X-Amz-Credential=SECRET&{V4}&X-Amz-Security-Token=SECRET&X-Amz-SignedHeaders=host",
    V2,
    V4.replace("Amz", "Goog"),
    V2.replace("AWSAccessKeyId", "GoogleAccessId"),
    f"x-oss-signature-version=OSS4&x-oss-credential=SECRET&x-oss-expires={EPOCH}&x-oss-signature=SECRET",
    V2.replace("AWS", "OSS"),
    V2.replace("AWSAccessKeyId", "Key-Pair-Id"),
    "Policy=SECRET&Signature=SECRET&Key-Pair-Id=id",
    "sp=r&st=2026-03-01T11:00:00Z&se=2026-03-01T12:00:30Z&sv=2022-11-02&sr=b&sig=SECRET",
    f"q-sign-algorithm=sha1&q-ak=SECRET&q-sign-time=1;{EPOCH}&q-key-time=1;{EPOCH}&q-signature=SECRET",
    "token=SECRET",
    "Authorization=SECRET",
)
MANGLINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda url: url,
    "HTML": lambda url: url.replace("&", "&amp;"),
    "HTML number": lambda url: url.replace("&", "&#38;"),
    "JSON": lambda url: url.replace("&", "\\u0026").replace("=", "\\u003d"),
    "shell": lambda url: url.replace("?", "\\?").replace("&", "\\&").replace("=", "\\="),
    "%3F": lambda url: url.replace("?", "%3F"),
    "%3f": lambda url: url.replace("?", "%3f"),
    "%26": lambda url: url.replace("&", "%26"),
    "%3D": lambda url: url.replace("=", "%3D"),
    "encoded": lambda url: quote(url, safe=":/"),
    "encoded wholly": lambda url: quote(url, safe=""),
    "lower case": str.lower,
    "upper case": str.upper,
    "capital scheme": lambda url: url.replace("https", "HTTPS"),
    ";": lambda url: url.replace("&", ";"),
    "#": lambda url: url.replace("?", "#"),
    "no ?": lambda url: url.replace("?", "&"),
    "two ?": lambda url: url.replace("&", "?"),
    "fragment": lambda url: f"{url}#fragment",
    "fragment first": lambda url: url.replace("?", "#a?"),
    "space around": lambda url: f" {url}\r\n",
    "wrapped": lambda url: url.replace("ignature", "igna\nture").replace("&", "\n&"),
    "underscores": lambda url: url.replace("-", "_"),
    "hyphens": lambda url: url.replace("-", "\u2011"),
    "wide": lambda url: url.replace("=", "\uff1d").replace("&", "\uff06").replace("?", "\uff1f"),
    "invisible": lambda url: url.replace("g", "g\u200b"),
    "quoted printable": lambda url: url.replace("=", "=3D"),
    "in angle brackets": lambda url: f"<{url}>",
    "twice": lambda url: f"{url}&{url.partition('?')[2]}",
    "in another": lambda url: f"https://h.example.org/b/k?url={quote(url, safe='')}",
    "s3": lambda url: url.replace("https://s3.example.org", "s3:/"),
    "with credentials": lambda url: url.replace("://", "://user:SECRET@"),
    "extra query": lambda url: url.replace("?", "?a=b&"),
    "cut off": lambda url: url[:-3],
}


@pytest.mark.parametrize("first", MANGLINGS)
def test_a_signed_url_never_passes_for_a_plain_one(first: str) -> None:
    for query, second in itertools.product(SERVICES, MANGLINGS):
        url = MANGLINGS[second](MANGLINGS[first](f"{KEY}?{query}"))
        try:
            parsed = parse_url(url)
        except ValueError as error:
            shown = everything(error)
        else:
            assert isinstance(parsed, PresignedUrl), url
            assert "user:" not in parsed.url
            shown = f"{parsed!r} {parsed}"
        assert "SECR" not in shown.upper(), url


@pytest.mark.parametrize("query", SERVICES)
def test_no_signed_url_is_an_endpoint(query: str) -> None:
    for mangle in MANGLINGS.values():
        with pytest.raises(ValueError, match="endpoint") as caught:
            clean_endpoint(mangle(f"{KEY}?{query}"))
        assert "SECR" not in everything(caught.value).upper()


# Any text

HOSTS = ("http://", "https://", "s3://", "file://", "user:p@", "h", ":80", ":", "@", "[::1]", "[", "]", "9" * 20)
PATHS = ("/", "//", "..", "b", "key", "%", "%2525", "%ff", "\\", " ", "\n", "\0", "\ud800", "é", "#", "%3F", "&#x3f;")
QUERIES = ("?", "&", "&amp;", ";", "=", V4, V2, "sig=x", "sv=2022-11-02", "&Policy=x", "&Key-Pair-Id=x", "Signature=x")
PIECES = st.sampled_from((*HOSTS, *PATHS, *QUERIES))


@given(st.lists(PIECES | st.text(st.characters(), max_size=5), max_size=12).map("".join))
def test_any_text_gives_a_result_or_a_value_error(text: str) -> None:
    for parse in (parse_url, parse_presigned, split_url, clean_endpoint):
        try:
            result = parse(text)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017  (no UnicodeError, no JSONDecodeError)
        else:
            assert not isinstance(result, ObjectUrl) or not is_signed(text)


@pytest.mark.parametrize(
    "piece",
    ["x", "%25", "?", "&#", "&amp;", "s3.", "xamz", "sig", "%26sig=", "?%", ";", "\ufdfa", "[", "@", "#", "&a="],
)
@pytest.mark.parametrize("start", ["", "https://", "https://h/b/k?sig=", "https://h/b/k&X-Amz-Signature=x"])
def test_long_text_takes_linear_time(start: str, piece: str) -> None:
    begin = time.process_time()
    for length in (MAX_LENGTH, 1_000_000):
        text = (start + piece * length)[:length]
        with pytest.raises(ValueError, match=r"url|key|bucket"):
            parse_url(text)
    assert time.process_time() - begin < 0.5
