"""What a refusal of a presigned URL means, and what is sent for one."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import download_url, errors
from lsst_lfa._download_url import explain_refusal
from tests.faults import Fault, FaultyS3Server, Status

if TYPE_CHECKING:
    from lsst_lfa import AsyncS3Bucket

EXPIRES = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
V4 = "X-Amz-Date=20260301T120000Z&X-Amz-Expires=30&X-Amz-Signature=SECRET"
V2 = f"AWSAccessKeyId=id&Signature=SECRET&Expires={EXPIRES.timestamp():.0f}"


@pytest.mark.parametrize(
    "url",
    [
        f"s3.example.org/bucket/key?{V4}",
        f"ftp://s3.example.org/bucket/key?{V4}",
        f"https://s3.example.org/key?{V4}",
        f"https://s3.example.org/?{V4}",
        f"https://s3.example.org/bucket/a b?{V4}",
        f"https://s3.example.org/bucket/ü?{V4}",
        f"https://s3.example.org/bucket/a%0Ab?{V4}",
        f"https://s3.example.org/bucket/key?{V4}\n",
        "https://s3.example.org/bucket/key?X-Amz-Signature=SECRET",
        f"https://s3.example.org/bucket/key?{V4}".replace("=20260301T", "=2026-03-01T"),
        f"https://s3.example.org/bucket/key?{V4}".replace("Expires=30", f"Expires=3{'0' * 30}"),
        "https://s3.example.org/bucket/key?AWSAccessKeyId=id&Signature=SECRET",
        f"https://s3.example.org/bucket/key?{V2}x",
        f"https://user:SECRET@s3.example.org/key?{V4}",
        f"https://user:1/SECRET@s3.example.org/bucket/key?{V4}",
    ],
)
async def test_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match=r"url|key") as caught:
        await download_url(url)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", [None, b"s3://bucket/key", 7])
async def test_no_text(url: Any) -> None:
    with pytest.raises(TypeError, match="url must be a str"):
        await download_url(url)


def refusal(
    kind: type[errors.AccessDeniedError], said: str = "", late: float | None = None
) -> errors.AccessDeniedError:
    """Make the error of a server whose clock is so many seconds past the end."""
    date = {} if late is None else {"date": format_datetime(EXPIRES + timedelta(seconds=late), usegmt=True)}
    response = {"Error": {"Message": said}, "ResponseMetadata": {"HTTPHeaders": date}}
    return kind("message", response, "GetObject")


DENIED = errors.AccessDeniedError
EXPIRED = errors.ExpiredUrlError
REFUSALS = [
    (refusal(DENIED, late=0), EXPIRED),
    (refusal(DENIED, late=9e6), EXPIRED),
    (refusal(DENIED, late=-1), DENIED),
    (refusal(DENIED, "Request has expired", late=-1), EXPIRED),
    (refusal(errors.ClockSkewError, late=0), EXPIRED),
    (refusal(errors.ClockSkewError, late=-1), errors.ClockSkewError),
    (refusal(errors.ExpiredCredentialsError, late=-1), EXPIRED),
    (refusal(errors.WrongSecretError, late=1), errors.WrongSecretError),
    (refusal(errors.UnknownKeyIdError, late=1), errors.UnknownKeyIdError),
]


@pytest.mark.parametrize(("error", "kind"), REFUSALS)
def test_refusal(error: errors.ServiceError, kind: type[errors.ServiceError]) -> None:
    rule = explain_refusal(error, EXPIRES)
    assert rule.error is kind
    assert ("ask for a new one" in rule.hint) == (kind in {EXPIRED, errors.UnknownKeyIdError})
    late = "GMT" in str(error.response) and "12:00:29" not in str(error.response)
    assert ("at 2026-03-01T12:00:30Z" in rule.hint) == (kind is EXPIRED and late)


@pytest.mark.parametrize(("said", "kind"), [("", DENIED), ("Request has expired", EXPIRED)])
def test_refusal_of_a_url_that_does_not_say_when_it_expires(said: str, kind: type[errors.ServiceError]) -> None:
    assert explain_refusal(refusal(DENIED, said, late=9e6), None).error is kind


def test_the_server_need_not_name_the_zone() -> None:
    error = refusal(DENIED, late=0)
    headers = error.response["ResponseMetadata"]["HTTPHeaders"]
    headers["date"] = headers["date"].replace("GMT", "-0000")
    assert explain_refusal(error, EXPIRES).error is EXPIRED


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_our_clock_where_the_server_tells_no_time(date: str | None) -> None:
    error = refusal(DENIED)
    if date is not None:
        error.response["ResponseMetadata"]["HTTPHeaders"]["date"] = date
    now = datetime.now(UTC)
    assert explain_refusal(error, now - timedelta(minutes=1)).error is EXPIRED
    assert explain_refusal(error, now + timedelta(minutes=1)).error is DENIED


async def test_round_trip(bucket: AsyncS3Bucket) -> None:
    data = random.Random(0).randbytes(256 * 100_000)
    counts: list[int] = []
    key = "a b:+%41/ü"
    await bucket.upload(data, key)
    result = await download_url(await bucket.presigned_url(key), counts.append)
    assert result.tell() == 0
    assert result.getvalue() == data
    assert sum(counts) == len(data)


async def test_sent_to_the_letter_and_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "CANARY")
    data = bytes(40_000_000)
    async with FaultyS3Server(buckets=["bucket"]) as server:
        server.put("bucket", "a:b+%", data)
        # Quoted in another way than botocore does it.
        target = f"/bucket/a:b%2b%25?{V4}"
        server.script(Fault("GetObject", Status(500), nth=2))
        result = await download_url(f"{server.endpoint_url}{target}")
        assert result.getvalue() == data
        assert {seen.target for seen in server.seen} == {target}
        assert len(server.seen) > 1
        for seen in server.seen:
            assert not [name for name in seen.headers if name.startswith("x-amz") or name == "authorization"]
            assert "CANARY" not in str(seen.headers)


async def test_expired_meanwhile() -> None:
    async with FaultyS3Server(buckets=["bucket"]) as server:
        server.put("bucket", "key", bytes(40_000_000))
        server.script(Fault("GetObject", Status(403, "AccessDenied"), nth=3))
        with pytest.raises(
            errors.ExpiredUrlError, match="has expired at 2026-03-01T12:00:30Z: ask for a new one"
        ) as caught:
            await download_url(f"{server.endpoint_url}/bucket/key?{V4}")
        assert isinstance(caught.value, PermissionError)
        assert str(caught.value).startswith(f"download of s3://bucket/key at {server.endpoint_url} failed: 403")
        ranges = [seen.headers["range"] for seen in server.seen]
        assert len(ranges) == len(set(ranges)), "nothing is asked for again"
