"""Pure decisions: the sizes of parts and of ranges."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsst_lfa._transfer.plan import (
    MAX_OBJECT_SIZE,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIN_PART_SIZE,
    MiB,
    TiB,
    bounded_part_size,
    even_part_size,
    next_range,
    part_sizes,
)


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
    assert next(sizes, None) is None


@pytest.mark.parametrize("part_size", [MIN_PART_SIZE, 8 * MiB])
def test_a_size_that_fills_10000_parts_to_the_last_byte_has_10000_parts(part_size: int) -> None:
    sizes = list(part_sizes(MAX_PARTS * part_size, part_size))
    assert sizes == [part_size] * MAX_PARTS


def test_more_than_5_tib_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="5 TiB"):
        part_sizes(MAX_OBJECT_SIZE + 1, 8 * MiB)


@given(
    size=st.integers(1, 100 * 1024 * MiB),
    width=st.integers(1, 64),
    least=st.integers(1, 8 * MiB),
    most=st.integers(8 * MiB, 256 * MiB),
)
def test_parts_in_memory_give_every_request_as_many(size: int, width: int, least: int, most: int) -> None:
    part_size = even_part_size(size, width, least, most)
    assert least <= part_size <= most
    parts = -(-size // part_size)
    assert part_size in (least, -(-size // parts)), "so that the number of parts tells their size"
    assert part_size == least or parts <= width * max(2, -(-size // (width * most)) + 1)


@pytest.mark.parametrize(
    ("size", "width", "part_size"),
    [
        (20, 3, 7),  # as many as there are requests
        (60, 3, 10),  # two each, where there is enough for it
        (600, 3, 29),  # none longer than the most
        (20, 16, 5),  # none shorter than the least
    ],
)
def test_parts_in_memory(size: int, width: int, part_size: int) -> None:
    assert even_part_size(size, width, 5, 32) == part_size


@pytest.mark.parametrize(("width", "part_size"), [(1, 16), (3, 16), (10, 8), (30, 5)])
def test_parts_on_their_way_fit_in_the_memory_allowed_with_the_next_one(width: int, part_size: int) -> None:
    assert bounded_part_size(width, 5 * MiB, 16 * MiB, 96 * MiB) == part_size * MiB


@given(size=st.integers(1, 10_000), width=st.integers(1, 8), least=st.integers(1, 10), most=st.integers(10, 100))
def test_ranges_cover_everything_and_grow_shorter(size: int, width: int, least: int, most: int) -> None:
    lengths: list[int] = []
    while left := size - sum(lengths):
        lengths.append(next_range(left, width, least, most))
    assert lengths == sorted(lengths, reverse=True)
    assert all(0 < length <= most for length in lengths)
    assert all(length >= least for length in lengths[:-1])
