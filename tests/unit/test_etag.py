"""ETags, and what is compared with them."""

from __future__ import annotations

import hashlib

import pytest

from lsst_lfa import errors
from lsst_lfa._transfer.etag import check_etag

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
    with pytest.raises(errors.UnverifiableError, match="not an MD5"):
        check_etag("k", "opaque", 10, 4, read)


def test_an_encrypted_object_cannot_be_compared() -> None:
    with pytest.raises(errors.UnverifiableError, match="encrypted"):
        check_etag("k", "", 10, 4, read)


@pytest.mark.parametrize("parts", [2, 901, 1_000, 5_000])
def test_any_number_of_equal_parts_is_recognised(parts: int) -> None:
    data = bytes(range(250)) * (4 * parts)
    step = len(data) // parts
    digests = b"".join(hashlib.md5(data[start : start + step]).digest() for start in range(0, len(data), step))
    etag = f'"{hashlib.md5(digests).hexdigest()}-{parts}"'
    check_etag("k", etag, len(data), step, lambda start, count: data[start : start + count])


@pytest.mark.parametrize("etag", ["", '""', "x" * 40, f"{'0' * 32}-0", f"{'0' * 32}-99999", f"{'0' * 32}-٣"])
def test_whatever_the_etag_is_the_error_is_ours(etag: str) -> None:
    with pytest.raises(errors.LfaError):
        check_etag("k", etag, 10, 4, read)
