"""What an S3 server keeps: buckets, objects, open multipart uploads. No input or output, no faults."""

from __future__ import annotations

import hashlib
import itertools
import mmap
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MIN_PART_SIZE = 5 * 1024**2
"""Smallest part, but for the last one, in bytes."""

MAX_PART_NUMBER = 10_000


class S3Error(Exception):
    """A refusal, as S3 words it.

    Parameters
    ----------
    status : int
        HTTP status.
    code : str
        S3's error code, as ``NoSuchKey``.
    headers : mapping, optional
        Headers of the response.
    """

    def __init__(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def slices(pieces: Iterable[bytes | memoryview], start: int, stop: int) -> Iterator[memoryview]:
    """Iterate over bytes kept in pieces from one offset to another, without copying them."""
    offset = 0
    for piece in pieces:
        low, high = max(start - offset, 0), min(stop - offset, len(piece))
        if low < high:
            yield memoryview(piece)[low:high]
        offset += len(piece)


class Body:
    """Bytes as they arrived, in pieces, with their digests; never joined, for that is a copy.

    Digests are taken piece by piece: the tests watch the loop for long blocking, and the server runs in it. They also
    watch the memory of the process: what is kept here is out of `tracemalloc`'s sight, which tells of the client alone.

    Parameters
    ----------
    *pieces : bytes
        What has arrived already.
    signed : bool, optional
        Whether the SHA-256 is wanted besides the MD5.

    """

    def __init__(self, *pieces: bytes, signed: bool = False) -> None:
        self.pieces: list[memoryview] = []
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if signed else None
        for piece in pieces:
            self.add(piece)

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        if piece:
            kept = mmap.mmap(-1, len(piece), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            kept.write(piece)
            self.pieces.append(memoryview(kept))
        self.size += len(piece)
        self._md5.update(piece)
        if self._sha256 is not None:
            self._sha256.update(piece)

    @property
    def data(self) -> bytes:
        """All of it in one."""
        return b"".join(self.pieces)

    @property
    def md5(self) -> bytes:
        """MD5 digest."""
        return self._md5.digest()

    @property
    def sha256(self) -> str | None:
        """SHA-256 digest in hex, if it was wanted."""
        return None if self._sha256 is None else self._sha256.hexdigest()


@dataclass(frozen=True)
class StoredObject:
    """An object.

    Attributes
    ----------
    pieces : tuple of bytes or memoryview
        The content, in order.
    etag : str
        Without quotes.
    headers : dict
        Content-Type, metadata and the like, by lower-case name.
    modified : float
        Time of creation, seconds since 1970.
    """

    pieces: tuple[bytes | memoryview, ...]
    etag: str
    headers: dict[str, str] = field(default_factory=dict)
    modified: float = field(default_factory=time.time)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(map(len, self.pieces))

    @property
    def data(self) -> bytes:
        """The content in one."""
        return b"".join(self.pieces)

    def slices(self, start: int, stop: int) -> Iterator[memoryview]:
        """Iterate over the content from one offset to another, without copying it."""
        return slices(self.pieces, start, stop)


@dataclass(frozen=True)
class Upload:
    """An open multipart upload: its parts by number, its object's headers."""

    upload_id: str
    bucket: str
    key: str
    headers: dict[str, str] = field(default_factory=dict)
    parts: dict[int, Body] = field(default_factory=dict)
    initiated: float = field(default_factory=time.time)


class Store:
    """All that the server remembers.

    Parameters
    ----------
    buckets : iterable of str
        Names of the buckets that are there from the beginning.
    min_part_size : int
        Parts smaller than this, but for the last, are refused when the upload is completed, in bytes.
    """

    def __init__(self, buckets: Iterable[str] = (), min_part_size: int = MIN_PART_SIZE) -> None:
        self.buckets = set(buckets)
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.uploads: dict[str, Upload] = {}
        self._min_part_size = min_part_size
        self._numbers = itertools.count(1)

    def put(self, bucket: str, key: str, body: Body, headers: Mapping[str, str] | None = None) -> StoredObject:
        """Store an object, in place of the one before."""
        stored = StoredObject(tuple(body.pieces), body.md5.hex(), dict(headers or {}))
        self.objects[bucket, key] = stored
        return stored

    def get(self, bucket: str, key: str) -> StoredObject:
        """Find an object; S3Error if there is none."""
        if (bucket, key) not in self.objects:
            raise S3Error(404, "NoSuchKey")
        return self.objects[bucket, key]

    def create_upload(self, bucket: str, key: str, headers: Mapping[str, str] | None = None) -> Upload:
        """Open a multipart upload."""
        # The tilde is as in the identifiers of Ceph: something to quote, or not to.
        upload = Upload(f"2~upload{next(self._numbers):06d}", bucket, key, dict(headers or {}))
        self.uploads[upload.upload_id] = upload
        return upload

    def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Find an open multipart upload; S3Error if there is none."""
        upload = self.uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise S3Error(404, "NoSuchUpload")
        return upload

    def put_part(self, upload: Upload, number: int, body: Body) -> None:
        """Store a part, in place of the one before."""
        if not 1 <= number <= MAX_PART_NUMBER:
            raise S3Error(400, "InvalidArgument")
        upload.parts[number] = body

    def complete(self, upload: Upload, wanted: list[tuple[int, str]]) -> StoredObject:
        """Make an object of the wanted parts, given as numbers and ETags, and close the upload."""
        parts = self._check_parts(upload, wanted)
        digest = hashlib.md5(b"".join(part.md5 for part in parts), usedforsecurity=False).hexdigest()
        pieces = tuple(itertools.chain.from_iterable(part.pieces for part in parts))
        stored = StoredObject(pieces, f"{digest}-{len(parts)}", upload.headers)
        self.objects[upload.bucket, upload.key] = stored
        del self.uploads[upload.upload_id]
        return stored

    def _check_parts(self, upload: Upload, wanted: list[tuple[int, str]]) -> list[Body]:
        if not wanted:
            raise S3Error(400, "MalformedXML")
        numbers = [number for number, _ in wanted]
        if any(one >= other for one, other in itertools.pairwise(numbers)):
            raise S3Error(400, "InvalidPartOrder")
        for number, etag in wanted:
            if number not in upload.parts or upload.parts[number].md5.hex() != etag.strip('"'):
                raise S3Error(400, "InvalidPart")
        parts = [upload.parts[number] for number in numbers]
        if any(part.size < self._min_part_size for part in parts[:-1]):
            raise S3Error(400, "EntityTooSmall")
        return parts
