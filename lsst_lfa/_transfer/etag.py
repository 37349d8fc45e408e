"""ETags: what they should be, and how downloaded bytes compare with them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from lsst_lfa.errors import IntegrityError, UnverifiableError

from .hashing import hash_views
from .plan import MAX_PARTS, MiB, part_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Read = Callable[[int, int], bytes | memoryview]

__all__ = ["check_etag", "md5_etag", "multipart_etag", "parts_in"]

_ETAG = re.compile(r'"?([0-9a-f]{32})(?:-([1-9]\d{0,4}))?"?', re.ASCII)
_BLOCK = MiB
# What is in memory goes up in longer parts: see `plan.memory_part_size`.
_DOUBLINGS = 10
# What S3 clients use: ours, boto3's and s3fs's, minio's, the AWS console's, rclone's, ...
_USUAL = tuple(size * MiB for size in (8, 5, 16, 50, 64, 17, 10, 15, 20, 25, 32, 100, 128, 256, 512, 1024))


async def md5_etag(views: Sequence[memoryview]) -> str:
    """ETag of an object that was uploaded in one request, where ETags are digests."""
    md5 = hashlib.md5(usedforsecurity=False)
    await hash_views(views, md5)
    return md5.hexdigest()


def multipart_etag(etags: Sequence[str]) -> str | None:
    """ETag of a multipart object: the MD5 of its parts' MD5s, and their number.

    `None` if the ETags of the parts are not MD5s.
    """
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def parts_in(etag: str) -> int | None:
    """Return the number of parts in an ETag: 0 for one request, `None` if it is not in S3's form."""
    match = _ETAG.fullmatch(etag)
    return None if match is None else int(match[2] or 0)


def check_etag(what: str, etag: str, size: int, part_size: int, read: Read) -> None:
    """Compare data with the ETag of their object.

    An ETag is the data's MD5; after a multipart upload it is the MD5 of the
    parts' MD5s and their number, so the parts' size has to be guessed: from
    ``part_size``, from what other clients use, and from the number.

    Parameters
    ----------
    what : `str`
        Names the download in the error.
    etag : `str`
        The ETag; empty if the server said that it is not a digest.
    size : `int`
        Bytes of data.
    part_size : `int`
        The most likely size of a part, in bytes.
    read : callable
        ``read(offset, count)`` returns up to ``count`` bytes. Call this
        function in a thread: it reads and hashes everything, perhaps more than
        once.

    Raises
    ------
    IntegrityError
        If they differ.
    UnverifiableError
        If they cannot be compared.
    """
    match = _ETAG.fullmatch(etag)
    if match is None:
        msg = (
            f"{what} cannot be verified: the object's ETag ({etag or 'of an encrypted object'}) is not an MD5. "
            "Set TransferConfig(verify_etag=False)."
        )
        raise UnverifiableError(msg)
    digest, parts = match[1], int(match[2] or 0)
    if not parts:
        if _md5(read, 0, size).hex() == digest:
            return
    elif any(_multipart_md5(read, layout) == digest for layout in _layouts(size, parts, part_size)):
        return
    parted = f", or it was uploaded in {parts} parts of an unusual size" if parts else ""
    msg = f"{what}: the data do not match the object's ETag ( {etag}){parted}"
    raise IntegrityError(msg)


Layout = list[tuple[int, int]]


def _layouts(size: int, parts: int, part_size: int) -> Iterator[Layout]:
    """Ways in which ``size`` bytes may have been divided into so many parts."""
    smallest = -(-size // parts)
    doubled = (part_size << times for times in range(_DOUBLINGS + 1))
    tried: list[Layout] = []
    # Ours are of any number of MiB up to the one that was set, where memory was short; or as equal as can be.
    ours = range(part_size // MiB * MiB, 5 * MiB - 1, -MiB)
    for guess in dict.fromkeys((*doubled, smallest, *_USUAL, -(-smallest // MiB) * MiB, *ours)):
        for growing in (False, True):
            layout = _cut(size, guess, growing=growing)
            if len(layout) == parts and layout not in tried:
                tried.append(layout)
                yield layout


def _cut(size: int, part_size: int, *, growing: bool) -> Layout:
    """Divided as in an upload: into equal parts, or into growing ones if the size was not known."""
    if not growing:
        return [
            (start, min(start + part_size, size)) for start in range(0, min(size, MAX_PARTS * part_size), part_size)
        ]
    layout: Layout = []
    start = 0
    for length in part_sizes(None, part_size):
        layout.append((start, min(start + length, size)))
        start += length
        if start >= size:
            break
    return layout


def _md5(read: Read, start: int, stop: int) -> bytes:
    md5 = hashlib.md5(usedforsecurity=False)
    while start < stop:
        block = read(start, min(_BLOCK, stop - start))
        if not len(block):
            break
        md5.update(block)
        start += len(block)
    return md5.digest()


def _multipart_md5(read: Read, layout: Layout) -> str:
    digests = b"".join(_md5(read, start, stop) for start, stop in layout)
    return hashlib.md5(digests, usedforsecurity=False).hexdigest()
