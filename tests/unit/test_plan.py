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
    memory_part_size,
    part_sizes,
    ranges,
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
