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

# Parts of a source of unknown length double so often that the 10,000th reaches past 5 TiB, even from the smallest
# size.
_PARTS_PER_DOUBLING = 900


class ByteRange(NamedTuple):
    """Bytes ``start`` to ``stop - 1`` of an object of ``total`` bytes."""

    start: int
    stop: int
    total: int


def part_sizes(size: int | None, part_size: int) -> Iterator[int]:
    """Sizes to read for part 1, 2, ..., in bytes; at most what S3 accepts.

    The last part has the bytes that are left. With a known ``size`` all parts
    are equally long; with an unknown one (`None`) they grow from time to time.

    Raises
    ------
    ValueError
        If ``size`` is more than S3 can hold.
    """
    if size is not None:
        require_possible(size)
        even = -(-size // MAX_PARTS)
        part_size = max(part_size, -(-even // MiB) * MiB)
    return _grow(part_size, known=size is not None)


def even_part_size(size: int, width: int, least: int, most: int) -> int:
    """Part size, in bytes, that keeps ``width`` requests busy until the end.

    Each gets the same number of parts: as few as ``most`` allows, because each
    request costs milliseconds of the event loop, but two if there are enough
    data, so that some parts are hashed while others are sent. The last part is
    as long as the others, so that their number tells the size.
    """
    share = -(-size // width)
    rounds = max(min(2, share // (2 * least)), -(-share // most), 1)
    parts = -(-size // max(least, -(-share // rounds)))
    return max(least, -(-size // max(parts, 1)))


def bounded_part_size(width: int, least: int, most: int, memory: int) -> int:
    """Part size of which ``width`` and one more fit in the memory, in bytes; whole MiB, so that it can be guessed."""
    return max(least, min(most, memory // (width + 1) // MiB * MiB))


def _grow(part_size: int, *, known: bool) -> Iterator[int]:
    for index in range(MAX_PARTS):
        growth = 0 if known else index // _PARTS_PER_DOUBLING
        yield min(part_size << growth, MAX_PART_SIZE)


def require_possible(size: int) -> None:
    """Raise ValueError if an object cannot have so many bytes."""
    if size > MAX_OBJECT_SIZE:
        raise ValueError(too_large(size))


def too_large(size: int | None = None) -> str:
    """Return the message for a source that is larger than an object can be."""
    what = "the source" if size is None else f"{size} bytes"
    return f"{what} would not fit in one S3 object (at most 5 TiB in 10,000 parts)"


def next_range(left: int, width: int, least: int, most: int) -> int:
    """Return the number of bytes to request next, of those that are left.

    A fair share for each of ``width`` requests: so ranges grow shorter towards
    the end, and all requests end at about the same time.
    """
    return min(left, max(least, min(most, -(-left // width))))
