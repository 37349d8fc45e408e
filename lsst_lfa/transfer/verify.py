"""Comparing downloaded bytes with an object's ETag."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from lsst_lfa.errors import IntegrityError

from .plan import MiB, part_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["check_etag"]

_ETAG = re.compile(r'"?([0-9a-f]{32})(?:-(\d+))?"?')
_BLOCK = MiB
# What goes up from memory is in longer parts: see `plan.memory_part_size`.
_DOUBLINGS = 4
# What S3 clients use: ours, boto3's and s3fs's, minio's, the AWS console's.
_USUAL = tuple(size * MiB for size in (8, 5, 16, 50, 64, 17))


def check_etag(what: str, etag: str, size: int, part_size: int, read: Callable[[int, int], bytes | memoryview]) -> None:
    """Compare data with the ETag of the object that they came from.

    An ETag is the data's MD5; after a multipart upload it is the MD5 of the
    parts' MD5s and their number, so the parts' size has to be guessed: from
    ``part_size``, from what other clients use, and from the number.

    Parameters
    ----------
    what : `str`
        Names the download in the error.
    etag : `str`
        The ETag.
    size : `int`
        Bytes of data.
    part_size : `int`
        The most likely size of a part, in bytes.
    read : callable
        ``read(offset, count)`` gives up to ``count`` bytes. Call this function
        in a thread: it reads and hashes everything, perhaps more than once.

    Raises
    ------
    IntegrityError
        If they differ, or cannot be compared.
    """
    match = _ETAG.fullmatch(etag)
    if match is None:
        msg = f"{what}: cannot verify: the ETag {etag} is no MD5"
        raise IntegrityError(msg)
    digest, parts = match[1], int(match[2] or 0)
    if not parts:
        if _md5(read, 0, size).hex() == digest:
            return
    elif any(_multipart_md5(read, size, guess) == digest for guess in _guesses(size, parts, part_size)):
        return
    parted = f", or it was uploaded in {parts} parts of an unusual size" if parts else ""
    msg = f"{what}: the data are not those that were uploaded (ETag {etag}){parted}"
    raise IntegrityError(msg)


def _guesses(size: int, parts: int, part_size: int) -> Iterator[int]:
    """Part sizes that would have cut ``size`` bytes into so many parts."""
    smallest = -(-size // parts)
    doubled = (part_size << times for times in range(_DOUBLINGS + 1))
    for guess in dict.fromkeys((*doubled, *_USUAL, -(-smallest // MiB) * MiB, smallest)):
        if len(list(_parts(size, guess))) == parts:
            yield guess


def _parts(size: int, part_size: int) -> Iterator[tuple[int, int]]:
    start = 0
    for length in part_sizes(None, part_size):
        yield start, min(start + length, size)
        start += length
        if start >= size:
            return


def _md5(read: Callable[[int, int], bytes | memoryview], start: int, stop: int) -> bytes:
    md5 = hashlib.md5(usedforsecurity=False)
    while start < stop:
        block = read(start, min(_BLOCK, stop - start))
        if not len(block):
            break
        md5.update(block)
        start += len(block)
    return md5.digest()


def _multipart_md5(read: Callable[[int, int], bytes | memoryview], size: int, part_size: int) -> str:
    digests = b"".join(_md5(read, start, stop) for start, stop in _parts(size, part_size))
    return hashlib.md5(digests, usedforsecurity=False).hexdigest()
