"""What responses say, and what a server may get wrong in them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from lsst_lfa._transfer.responses import parse_range_headers, parse_time, server_time


def parse(status: int, **headers: str) -> tuple[object, int | None, bool]:
    found = parse_range_headers(status, CIMultiDict((name.replace("_", "-"), text) for name, text in headers.items()))
    return found.given, found.length, found.empty


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes 0-9/*",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "items 0-1/2",
        f"bytes 0-9/{10**18}",
        f"bytes 0-9/{10**30}",
        "bytes \u0660-\u0661/\u0662",
        "bytes 0-9/10 ",
    ],
)
def test_an_unsound_content_range_is_none(value: str) -> None:
    assert parse(206, content_length="10", content_range=value) == (None, 10, False)


def test_a_range_tells_the_length_where_nothing_else_does() -> None:
    assert parse(206, content_range="bytes 2-4/9") == ((2, 5, 9), 3, False)


def test_a_range_that_was_ignored_is_the_whole() -> None:
    assert parse(200, content_length="10") == ((0, 10, 10), 10, False)


@pytest.mark.parametrize("status", [200, 204, 206])
def test_no_length_is_no_length(status: int) -> None:
    assert parse(status) == (None, None, False)
    assert parse(status, content_length="-1") == (None, None, False)


@pytest.mark.parametrize(
    ("status", "content_range", "empty"),
    [(416, "bytes */0", True), (416, "bytes */1000", False), (416, "", False), (206, "bytes */0", False)],
)
def test_only_a_416_that_says_so_proves_that_an_object_is_empty(
    status: int, content_range: str, *, empty: bool
) -> None:
    assert parse(status, content_range=content_range)[2] is empty


@pytest.mark.parametrize(
    ("headers", "digest"),
    [
        ({}, True),
        ({"x-amz-server-side-encryption": "AES256"}, True),
        ({"x-amz-server-side-encryption": "aws:kms"}, False),
        ({"x-amz-server-side-encryption": "aws:kms:dsse"}, False),
        ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
    ],
)
def test_the_etag_of_what_is_encrypted_with_another_key_is_no_digest(headers: dict[str, str], *, digest: bool) -> None:
    assert parse_range_headers(206, CIMultiDict(headers)).digest is digest


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Foo 2026 99:99:99 GMT", "\u0663", "0" * 5000])
def test_a_date_that_cannot_be_read_is_taken_from_our_own_clock(date: str) -> None:
    before = datetime.now(UTC)
    found = server_time({"ResponseMetadata": {"HTTPHeaders": {"date": date}}})
    assert before <= found <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("Thu, 26 Nov 2026 00:00:00 GMT", "2026-11-26T00:00:00+00:00"),
        ("Thu, 26 Nov 2026 00:00:00 -0000", "2026-11-26T00:00:00+00:00"),
        ("Thu, 26 Nov 2026 01:00:00 +0100", "2026-11-26T00:00:00+00:00"),
        ("2026-11-26T00:00:00.000Z", "2026-11-26T00:00:00+00:00"),
        ("2026-11-26T00:00:00", "2026-11-26T00:00:00+00:00"),
        ("0001-01-01T00:00:00+23:00", None),
        ("Fri, 31 Dec 9999 23:59:59 -2300", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("Thu, 26 Nov 2026 00:00:00 +9999", None),
        ("9" * 5000, None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_in_utc_or_none_at_all(text: str | None, time: str | None) -> None:
    found = parse_time(text)
    assert (found and found.isoformat()) == time
    assert found is None or found.tzinfo is UTC
