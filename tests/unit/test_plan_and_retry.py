"""Decisions without I/O: parts, ranges, back-off, error readings, configuration."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import ssl
from dataclasses import FrozenInstanceError, replace
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa import TransferConfig, errors
from lsst_lfa.transfer.diagnosis import Request, diagnose, is_transient
from lsst_lfa.transfer.plan import (
    MAX_OBJECT_SIZE,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIN_PART_SIZE,
    MiB,
    TiB,
    memory_part_size,
    parse_content_range,
    part_sizes,
    ranges,
)
from lsst_lfa.transfer.retry import Pace, Retries, back_off
from lsst_lfa.transfer.verify import check_etag

REQUEST = Request("put_object", "b", "k", "http://host")


@given(size=st.integers(0, MAX_OBJECT_SIZE), part_size=st.integers(MIN_PART_SIZE, 64 * MiB))
def test_parts_of_a_known_size_are_equal_and_at_most_10000(size: int, part_size: int) -> None:
    first = next(part_sizes(size, part_size))
    assert part_size <= first <= MAX_PART_SIZE
    assert first * MAX_PARTS >= size
    assert first == part_size or first % MiB == 0


@pytest.mark.parametrize("part_size", [MIN_PART_SIZE, 8 * MiB, 64 * MiB])
def test_parts_of_an_unknown_size_grow_to_hold_5_tib(part_size: int) -> None:
    sizes = part_sizes(None, part_size)
    first = list(itertools.islice(sizes, MAX_PARTS))
    assert first[0] == part_size
    assert all(MIN_PART_SIZE <= size <= MAX_PART_SIZE for size in first)
    assert sum(first) >= 5 * TiB
    with pytest.raises(ValueError, match="5 TiB"):
        next(sizes)


def test_more_than_5_tib_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="5 TiB"):
        part_sizes(MAX_OBJECT_SIZE + 1, 8 * MiB)


@given(
    size=st.integers(0, 100 * 1024 * MiB),
    part_size=st.integers(MIN_PART_SIZE, 64 * MiB),
    most=st.integers(0, 256 * MiB),
    together=st.integers(1, 8),
)
def test_parts_in_memory_are_long_but_two_for_each_connection(
    size: int, part_size: int, most: int, together: int
) -> None:
    longer = memory_part_size(size, part_size, most, together)
    assert longer == part_size or longer <= most
    assert longer == part_size or size >= 2 * together * longer
    assert 2 * longer > most or size < 2 * together * 2 * longer


@given(first=st.integers(0, 100), size=st.integers(0, 1000), most=st.integers(1, 100), together=st.integers(1, 8))
def test_ranges_cover_everything_once(first: int, size: int, most: int, together: int) -> None:
    found = list(ranges(first, size, most, together))
    assert list(itertools.chain.from_iterable(range(*each) for each in found)) == list(range(first, size))
    assert all(stop - start <= most for start, stop in found)


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (10, []),
        (30, [10, 10]),  # none shorter than the first
        (90, [20, 20, 20, 20]),  # all under way together
        (410, [50] * 8),  # none longer than the most
        (411, [45] * 8 + [41]),
    ],
)
def test_ranges_are_few_and_about_the_same(size: int, lengths: list[int]) -> None:
    assert [stop - start for start, stop in ranges(10, size, 50, 4)] == lengths


@pytest.mark.parametrize("value", [None, "", "bytes 0-9/*", "bytes 5-4/10", "bytes 0-10/10", "items 0-1/2"])
def test_an_unsound_content_range_is_none(value: str | None) -> None:
    assert parse_content_range(value) is None
    assert parse_content_range("bytes 2-4/9") == (2, 5, 9)


@given(failures=st.integers(1, 50), spread=st.floats(0, 1))
def test_back_off_doubles_up_to_five_seconds(failures: int, spread: float) -> None:
    assert 0.125 <= back_off(0.25, failures, spread) <= 5
    assert back_off(0.25, 1, 0) == 0.25
    assert back_off(0.25, 3, 0) == 1.0
    assert back_off(0.25, 3, 1) == 0.5


@pytest.mark.parametrize(
    "options",
    [
        {"part_size": 5 * MiB - 1},
        {"part_size": 6 * 1024 * MiB},
        {"memory_part_size": 6 * 1024 * MiB},
        {"memory_part_size": 0},
        {"multipart_threshold": 65 * MiB},
        {"multipart_threshold": -1},
        {"range_size": 0},
        {"chunk_size": 0},
        {"max_concurrency": 0},
        {"attempts": 0},
        {"request_timeout": 0},
        {"retry_for": float("inf")},
        {"deadline": -1},
        {"integrity": "crc"},
    ],
)
def test_a_bad_configuration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TransferConfig(**options)


def test_a_configuration_shows_what_was_changed() -> None:
    assert repr(TransferConfig(part_size=8 * MiB)) == "TransferConfig(part_size=8388608)"


def answer(status: int, code: str) -> ClientError:
    response = {"Error": {"Code": code, "Message": None}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("status", "code", "kind", "transient"),
    [
        (404, "NoSuchKey", errors.KeyNotFoundError, False),
        (404, "NoSuchBucket", errors.BucketNotFoundError, False),
        (404, "NoSuchUpload", errors.UploadNotFoundError, False),
        (409, "BucketAlreadyExists", errors.BucketTakenError, False),
        (403, "AccessDenied", errors.AccessDeniedError, False),
        (403, "403", errors.AccessDeniedError, False),
        (403, "InvalidAccessKeyId", errors.UnknownKeyIdError, False),
        (403, "SignatureDoesNotMatch", errors.WrongSecretError, False),
        (400, "ExpiredToken", errors.ExpiredCredentialsError, False),
        (403, "RequestTimeTooSkewed", errors.ClockSkewError, False),
        (412, "PreconditionFailed", errors.ObjectChangedError, False),
        (413, "413", errors.TooLargeError, False),
        (400, "EntityTooLarge", errors.TooLargeError, False),
        (500, "InternalError", errors.UnavailableError, True),
        (503, "SlowDown", errors.UnavailableError, True),
        (429, "429", errors.UnavailableError, True),
        (408, "408", errors.UnavailableError, True),
        (400, "RequestTimeout", errors.UnavailableError, True),
        (400, "BadDigest", errors.DigestRefusedError, True),
        (400, "InvalidArgument", errors.ServiceError, False),
        (501, "NotImplemented", errors.ServiceError, False),
    ],
)
def test_each_answer_has_its_error(status: int, code: str, kind: type[errors.LfaError], *, transient: bool) -> None:
    error = diagnose(answer(status, code), REQUEST)
    assert type(error) is kind
    assert is_transient(error) is transient
    assert isinstance(error, ClientError)
    for word in ("put_object", "s3://b/k", "http://host", code):
        assert word in str(error)


@pytest.mark.parametrize(
    ("raised", "kind", "transient"),
    [
        (NoCredentialsError(), errors.MissingCredentialsError, False),
        (EndpointConnectionError(endpoint_url="http://host", error="refused"), errors.UnreachableError, True),
        (HTTPClientError(error=ssl.SSLCertVerificationError("self-signed")), errors.CertificateError, False),
        (aiohttp.ClientPayloadError("cut"), errors.UnreachableError, True),
        (TimeoutError(), errors.TransferTimeoutError, True),
        (HTTPClientError(error=errors.RedirectRefusedError("307")), errors.RedirectRefusedError, False),
    ],
)
def test_each_failure_has_its_error(raised: Exception, kind: type[errors.LfaError], *, transient: bool) -> None:
    error = diagnose(raised, REQUEST)
    assert type(error) is kind
    assert is_transient(error) is transient


def test_what_is_not_the_networks_making_is_left_alone() -> None:
    assert diagnose(OSError(28, "No space left on device"), REQUEST) is None


def test_errors_are_kin_to_the_built_in_ones_and_can_be_pickled() -> None:
    error = diagnose(answer(404, "NoSuchKey"), REQUEST)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.KeyNotFoundError
    assert isinstance(copy, FileNotFoundError)
    assert str(copy) == str(error)
    assert copy.response == copy.response
    assert issubclass(errors.TransferTimeoutError, TimeoutError)
    assert issubclass(errors.AccessDeniedError, PermissionError)
    assert issubclass(errors.UnreachableError, ConnectionError)
    assert all(issubclass(getattr(errors, name), errors.LfaError) for name in errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)


async def test_a_server_that_says_when_to_come_back_is_heard() -> None:
    busy = answer(503, "SlowDown")
    busy.response["ResponseMetadata"]["HTTPHeaders"] = {"retry-after": "7"}
    failure = diagnose(busy, REQUEST)
    assert failure is not None
    config = TransferConfig(retry_delay=0.1)
    async with Pace(config) as pace:
        assert Retries(config).delay_after(failure, pace) == 7
        assert Retries(replace(config, retry_for=5)).delay_after(failure, pace) is None


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TransferConfig().part_size = 1  # type: ignore[misc]


DATA = b"0123456789"


def read(start: int, count: int) -> bytes:
    return DATA[start : start + count]


def parts_etag() -> str:
    digests = b"".join(hashlib.md5(read(start, 4)).digest() for start in (0, 4, 8))
    return f"{hashlib.md5(digests).hexdigest()}-3"


@pytest.mark.parametrize("etag", [f'"{hashlib.md5(DATA).hexdigest()}"', parts_etag()], ids=["whole", "parts"])
def test_an_etag_is_compared(etag: str) -> None:
    check_etag("k", etag, 10, 4, read)
    with pytest.raises(errors.IntegrityError, match="k: the data"):
        check_etag("k", etag, 10, 4, lambda start, count: b"012345678x"[start : start + count])


def test_an_etag_that_is_no_md5_cannot_be_compared() -> None:
    with pytest.raises(errors.IntegrityError, match="no MD5"):
        check_etag("k", "opaque", 10, 4, read)
