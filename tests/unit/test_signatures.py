"""Signatures in any spelling are found, and what they contain is read."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from lsst_lfa._signatures import decoded, is_signed, read_signature

EXPIRES = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
EPOCH = f"{EXPIRES.timestamp():.0f}"
V4 = "X-Amz-Date=20260301T120000Z&X-Amz-Expires=30&X-Amz-Signature=SECRET"
V2 = f"AWSAccessKeyId=id&Signature=SECRET&Expires={EPOCH}"
KEY = "https://s3.example.org/bucket/key"


def policy(statement: object) -> str:
    text = base64.b64encode(json.dumps(statement).encode()).decode()
    return f"Policy={text.translate(str.maketrans('+=/', '-_~'))}&Signature=SECRET&Key-Pair-Id=id"


SIGNED = {
    "AWS 4": V4,
    "AWS 4, with more": f"X-Amz-Credential=AKIA%2F20260301%2Fus-east-1&versionId=1&{V4}&X-Amz-SignedHeaders=host;range",
    "AWS 2": V2,
    "Google 4": V4.replace("Amz", "Goog"),
    "Google 2": V2.replace("AWSAccessKeyId", "GoogleAccessId"),
    "Google CDN": V2.replace("AWSAccessKeyId", "KeyName"),
    "OSS 4": V4.lower().replace("amz", "oss").replace("t12", "T12").replace("00z", "00Z"),
    "OSS 2": f"x-oss-signature-version=OSS2&x-oss-expires={EPOCH}&x-oss-access-key-id=id&x-oss-signature=SECRET",
    "OSS 1": V2.replace("AWS", "OSS"),
    "OBS": V2.replace("AWS", ""),
    "TOS": V4.replace("Amz", "Tos"),
    "CloudFront": V2.replace("AWSAccessKeyId", "Key-Pair-Id"),
    "CloudFront policy": policy({"Statement": [{"Condition": {"DateLessThan": {"AWS:EpochTime": int(EPOCH)}}}]}),
    "Azure": "sv=2022-11-02&se=2026-03-01T12%3A00%3A30Z&sr=b&sp=r&sig=SECRET%2B%3D",
    "COS": f"q-sign-algorithm=sha1&q-ak=id&q-sign-time=1%3B{EPOCH}&q-key-time=1;{EPOCH}&q-signature=SECRET",
    "Swift": f"temp_url_sig=SECRET&temp_url_expires={EPOCH}",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_each_service_s_signature_is_read(query: str) -> None:
    assert is_signed(f"{KEY}?{query}")
    assert read_signature(f"{KEY}?{query}") == (EXPIRES, "")


@pytest.mark.parametrize(
    "query",
    [
        "sv=2022-11-02&si=stored-policy&sig=SECRET",
        "sv=2022-11-02&se=tomorrow&sig=SECRET",
        "Policy=!&Signature=SECRET&Key-Pair-Id=id",
        "Policy=%C3%BC&Signature=SECRET&Key-Pair-Id=id",
        policy({"Statement": []}),
        policy({"DateLessThan": {"AWS:EpochTime": 10**14}}),
    ],
)
def test_a_signature_may_not_say_when_it_expires(query: str) -> None:
    assert read_signature(f"{KEY}?{query}") == (None, "")


@pytest.mark.parametrize(
    ("query", "expires"),
    [
        ("sv=2022-11-02&se=2026-03-01&sig=SECRET", datetime(2026, 3, 1, tzinfo=UTC)),
        ("sv=2022-11-02&se=2026-03-01T12:00Z&sig=SECRET", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("sv=2022-11-02&se=2026-03-01T12:00:30.0000000Z&sig=SECRET", EXPIRES),
        ("sv=2022-11-02&se=2026-03-01T14:00:30%2B02:00&sig=SECRET", EXPIRES),
        ("sv=2022-11-02&se=0001-01-01T00:00%2B02:00&sig=SECRET", None),
    ],
)
def test_azure_writes_dates_in_several_ways(query: str, expires: datetime | None) -> None:
    signature = read_signature(f"{KEY}?{query}")
    assert signature == (expires, "")
    assert signature.expires is None or signature.expires.tzinfo is UTC


@pytest.mark.parametrize(
    "query",
    [
        V4.replace("=20260301T", "=2026-03-01T"),
        V4.replace("=20260301T", "=20261301T"),
        V4.replace("=20260301T", "=99991231T").replace("=30", "=999999"),
        V4.replace("Expires=30", f"Expires=3{'0' * 30}"),
        V4.replace("Expires=30", f"Expires={'9' * 5000}"),
        V4.replace("Expires=30", "Expires=-30"),
        V4.replace("Expires=30", "Expires=%D9%A3"),
        f"{V2}x",
        V2.replace(EPOCH, "1_000"),
        V2.replace(EPOCH, "9" * 15),
        V2.replace(EPOCH, "9" * 5000),
    ],
)
def test_unreadable_dates_are_a_problem(query: str) -> None:
    assert read_signature(f"{KEY}?{query}") == (None, "it does not say when it expires")


PROBLEMS = {
    f"{KEY}?{V4}\n": "white space around it",
    f" {KEY}?{V4}": "white space around it",
    f"{KEY}?{V4}".replace("Signature", "Signa\nture"): "white space in it",
    f"{KEY} 1?{V4}": "white space in it",
    f"{KEY}ü?{V4}": "must be percent-encoded",
    f"\ufeff{KEY}?{V4}": "must be percent-encoded",
    f"{KEY}?{V4}".replace("&", "&amp;"): '"&amp;" where "&" belongs',
    f"{KEY}?{V4}&amp;X-Amz-Security-Token=SECRET": '"&amp;" where "&" belongs',
    f"{KEY}?{V4}".replace("&", "&#038;"): '"&amp;" where "&" belongs',
    f"{KEY}?{V4}".replace("&", "\\u0026"): "backslashes",
    f"{KEY}\\?{V4}".replace("=", "\\="): "backslashes",
    f"{KEY}%3F{V4}": '"%3F" where "?" belongs',
    f"{KEY}%253f{V4}": '"%3F" where "?" belongs',
    f"{KEY}&{V4}": 'no "?"',
    f"{KEY}{V4}": 'no "?"',
    f"{KEY}#1?{V4}": '"#" before "?"',
    f"{KEY}?{V4}".replace("&", "#"): '"#" before its end',
    f"{KEY}?{V4}".replace("&", "%26"): '"%26" where "&" belongs',
    f"{KEY}?{V4}".replace("=", "%3D"): '"%3D" where "=" belongs',
    f"{KEY}?{V4}".replace("&", "?"): 'second "?"',
    f"{KEY}?{V4}".replace("&", ";"): '";" where "&" belongs',
    f"{KEY}?{V4.lower()}": "must be written X-Amz-Date, X-Amz-Expires, X-Amz-Signature",
    f"{KEY}?{V2.upper()}": "must be written AWSAccessKeyId, Expires, Signature",
    f"{KEY}?{V4}&X-Amz-Signature=SECRET2": "the same parameter twice",
    f"{KEY}?X-Amz-Credential=A%252FB&{V4}": "percent-encoded twice",
    f"{KEY}?sv=2022-11-02&sig=SECRET%252B": "percent-encoded twice",
    f"{KEY}%3Fsig=SECRET?{V4}": "its path also has a signature",
    f"https%3A%2F%2Fs3.example.org/bucket/key?{V4}": "all of it is percent-encoded",
    f"{KEY}?X-Amz-Algorithm=AWS4-HMAC-SHA256": "it lacks X-Amz-Date, X-Amz-Expires, X-Amz-Signature: it was cut short",
    f"{KEY}?X-Amz-Date=20260301T120000Z&X-Amz-Expires=30": "it lacks X-Amz-Signature: it was cut short",
    f"{KEY}?X-Amz-Date=20260301T120000Z&X-Amz-Expires=30&X-Amz-Signature=": "it lacks X-Amz-Signature",
    f"{KEY}?sv=2022-11-02&sr=b": "it lacks sig: it was cut short",
    f"{KEY}?Signature=SECRET": "it lacks AWSAccessKeyId, Expires: it was cut short",
    f"{KEY}?access_token=SECRET": "of an unknown kind",
}


@pytest.mark.parametrize(("url", "problem"), PROBLEMS.items(), ids=PROBLEMS.values())
def test_what_is_wrong_is_said_without_the_secret(url: str, problem: str) -> None:
    assert is_signed(url)
    said = read_signature(url).problem
    assert problem in said
    assert "SECRET" not in said
    assert "access_token" not in said


@pytest.mark.parametrize(
    "text",
    [
        "?sig=x",
        "?a=b&SIG=x",
        ";token=x",
        "#access_token=x",
        "?sig%3dx",
        "%3fsig=x",
        "%25253Fsig%25253Dx",
        "&quest;sig&equals;x",
        "&#x3F;sig&#61;x",
        "\\u003fsig\\x3dx",
        "%u003Fsig%u003Dx",
        "\\?sig\\=x",
        "\uff1fsig\uff1dx",
        "%EF%BC%9Fsig%EF%BC%9Dx",
        "\\uff1fsig&#65309;x",
        "\uff053Fsig=x",
        "keyX-Amz%E2%80%8B-Signature=x",
        "a?s\u200big=x",
        "a?sig=3Dx",
        "keyX-Amz-Signature=x",
        "keyX‑Amz‑Signature=x",  # noqa: RUF001  (hyphens of a word processor)
        "key x_amz_signature = x",
        "X-Amz-\nSecurity-Token=x",
        "a?client_secret=x",
        "a?Policy=x",
        "a?Expires=1",
        "a?sv=2022-11-02",
        "a?Authorization=x",
        "a?authz=Bearer%20x",
        "a?auth_key=1764-0-0-x",
        "a?hdnts=exp=1~hmac=x",
        "a?__gda__=1_x",
        "a?_upt=x",
        "a?pwd=x",
        "https://objectstorage.eu-a-1.oraclecloud.com/p/Ab-cDeFgHiJkLmNoPqRs_tUv/n/name/b/bucket/o/key",
        "https%3A%2F%2Fh/p/Ab-cDeFgHiJkLmNoPqRs_tUv%2Fn%2Fname%2Fb%2Fbucket%2Fo%2Fkey",
        "%" + "25" * 9 + "3Fsig=x",
        "%" + "25" * 99 + "3Fsig=x",
        "&" + "amp;" * 30 + "x",  # nothing honest is escaped so often
    ],
)
def test_a_signature_is_found_in_any_spelling(text: str) -> None:
    assert is_signed(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://s3.example.org/bucket/a?b=c.fits",
        "https://s3.example.org/bucket/why?X=1&y;z#%41",
        "s3://bucket/2020/04/01/Test:1-image-2020-04-01T12:00:00.000.fits",
        "https://s3.example.org/rubin:bucket/R&D/50%/a=b",
        "https://s3.example.org/signature/sig=1/token=2/key",
        "https://s3.example.org/bucket/X-Amz-Signature.html",
        "https://s3.example.org/bucket/p/short/n/name/b/bucket/o/key",
        "https://s3.example.org/bucket/flux-oss-count=3&config=4",
        "https://s3.example.org/bucket/a?version=3&asv=2022",
        "https://s3.example.org/bucket/100%" + "25" * 8,
    ],
)
def test_other_text_is_not_signed(text: str) -> None:
    assert not is_signed(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a%2525%41&amp;b", "a%A&b"),
        ("100%", "100%"),
        ("%zz&#;&amp", "%zz&#;&amp"),
        ("\\u0026\\x3D", "&="),
    ],
)
def test_decoded(text: str, plain: str) -> None:
    assert decoded(text) == plain
