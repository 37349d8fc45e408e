"""ETags, and what is compared with them."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa import errors
from lsst_lfa._transfer.etag import _layouts, check_etag
from lsst_lfa._transfer.plan import MIN_PART_SIZE, GiB, MiB, bounded_part_size, even_part_size, part_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def layout(sizes: Iterable[int], size: int) -> list[tuple[int, int]]:
    """Cut as an upload does."""
    cuts, start = [], 0
    for length in sizes:
        if start >= size:
            break
        cuts.append((start, min(start + length, size)))
        start += length
    return cuts


@given(
    size=st.integers(1, 20 * GiB),
    part_size=st.integers(MIN_PART_SIZE, 64 * MiB),
    most=st.sampled_from([1, 5 * MiB, 32 * MiB, 100 * MiB, GiB]),
    together=st.integers(1, 32),
    kind=st.sampled_from(["file", "memory", "unknown"]),
)
def test_our_own_cuts_are_among_those_that_are_tried(
    size: int, part_size: int, most: int, together: int, kind: str
) -> None:
    bounded = bounded_part_size(together, MIN_PART_SIZE, part_size, 96 * MiB)
    if kind == "memory":
        sizes = part_sizes(size, even_part_size(size, together, MIN_PART_SIZE, max(part_size, most)))
    elif kind == "file":
        sizes = part_sizes(size, even_part_size(size, together, MIN_PART_SIZE, bounded))
    else:
        sizes = part_sizes(None, bounded)
    cut = layout(sizes, size)
    assert cut in list(_layouts(size, len(cut), part_size))


@pytest.mark.parametrize("part_size", [5 * MiB, 8 * MiB, 15 * MiB, 16 * MiB, 50 * MiB, 64 * MiB, 100 * MiB])
@pytest.mark.parametrize("size", [5 * MiB + 1, 64 * MiB, 250_000_001, GiB, 30 * GiB])
def test_other_clients_usual_cuts_are_among_those_that_are_tried(size: int, part_size: int) -> None:
    cut = layout(itertools.repeat(part_size), size)
    assert cut in list(_layouts(size, len(cut), 16 * MiB))
