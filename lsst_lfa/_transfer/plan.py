"""Pure decisions over integers: S3's limits, part sizes, byte ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MiB = 1024 * 1024
GiB = 1024 * MiB
TiB = 1024 * GiB

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MAX_PARTS = 10_000
MIN_PART_SIZE = 5 * MiB
MAX_PART_SIZE = 5 * GiB
MAX_OBJECT_SIZE = 5 * TiB

# Parts of a source of unknown length double so often that the 10,000th
# reaches past 5 TiB, even from the smallest part size.
_PARTS_PER_DOUBLING = 900


class ByteRange(NamedTuple):
    """Bytes ``start`` to ``stop - 1`` of an object of ``total`` bytes."""

    start: int
    stop: int
    total: int


def part_sizes(size: int | None, part_size: int) -> Iterator[int]:
    """Sizes to read for part 1, 2, ..., in bytes; no more than S3 takes.

    The last part is as long as what is left. With a known ``size`` all parts
    are equally long; with an unknown one (`None`) they grow now and then.

    Raises
    ------
    ValueError
        If ``size`` is more than S3 can hold.
    """
    if size is not None:
        if size > MAX_OBJECT_SIZE:
            raise ValueError(too_large(size))
        even = -(-size // MAX_PARTS)
        part_size = max(part_size, -(-even // MiB) * MiB)
    return _grow(part_size, known=size is not None)


def memory_part_size(size: int, part_size: int, most: int, together: int) -> int:
    """Part size, in bytes, for ``size`` bytes that are in memory already.

    A part of them takes up no memory of its own, and each request costs
    milliseconds of the event loop: so ``part_size`` is doubled, up to
    ``most``, as long as there are two parts at least for each of ``together``
    connections: while some are hashed, others are on their way.
    """
    while 2 * part_size <= most and 4 * together * part_size <= size:
        part_size *= 2
    return part_size


def _grow(part_size: int, *, known: bool) -> Iterator[int]:
    for index in range(MAX_PARTS):
        growth = 0 if known else index // _PARTS_PER_DOUBLING
        yield min(part_size << growth, MAX_PART_SIZE)


def too_large(size: int | None = None) -> str:
    """Say that a source is larger than an object can be."""
    what = "the source" if size is None else f"{size} bytes"
    return f"{what} would not fit in one S3 object (at most 5 TiB in 10,000 parts)"


def ranges(first: int, size: int, most: int, together: int) -> Iterator[tuple[int, int]]:
    """Cut bytes ``first`` to ``size`` into few ranges of about the same length.

    So many that ``together`` of them can be under way, and more where one
    would be longer than ``most``; but none need be shorter than ``first``,
    but for the last.
    """
    left = size - first
    if left > 0:
        count = max(together, -(-left // most))
        step = max(-(-left // count), min(first, most), 1)
        for start in range(first, size, step):
            yield start, min(start + step, size)
