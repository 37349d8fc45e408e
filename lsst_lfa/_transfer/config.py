"""Transfer settings: sizes, concurrency, time limits, integrity."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from lsst_lfa._public import public

from .plan import MAX_PART_SIZE, MIN_PART_SIZE, GiB, MiB

__all__ = ["TransferConfig"]

Integrity = Literal["sha256", "md5", "unsigned"]


@public
@dataclass(frozen=True, kw_only=True, slots=True)
class TransferConfig:
    """Transfer settings. Immutable; validated on construction.

    Parameters
    ----------
    part_size : `int`
        Maximum size of a part in a multipart upload, 5 MiB to 5 GiB. Parts are
        smaller when many are sent in parallel (see ``max_memory``), and larger
        when the object would otherwise need more than 10,000 of them.
    multipart_threshold : `int`
        Objects up to this size are uploaded in one request, larger ones in
        parts. What is sent in one request, or is of unknown size, is held in
        memory up to this size. At most 5 GiB, S3's limit for one request.
    memory_part_size : `int`
        Maximum size of a part for data that are already in memory (bytes or an
        `io.BytesIO`). Such parts need no extra memory, and fewer, larger parts
        cost less.
    copy_threshold : `int`
        Objects up to this size are copied in one request, larger ones in
        parallel parts. At most 5 GiB, S3's limit for one request.
    copy_part_size : `int`
        Size of a part of a copy, 5 MiB to 5 GiB.
    range_size : `int`
        Maximum number of bytes that one request of a parallel download asks
        for. Data are written straight to their destination, so a long range
        needs no extra memory. Ranges get shorter towards the end.
    io_chunksize : `int`
        Bytes handed to the network at once.
    max_concurrency : `int`
        Maximum number of parallel requests of one transfer. The actual number
        is found while it runs, by measuring what raises the throughput, and is
        remembered for the session's next transfers.
    max_memory : `int`
        Maximum number of bytes that a stream, or an upload of data that are
        not already in memory, may buffer. Never less than 10 MiB: two parts of
        the minimum size.
    integrity : {"sha256", "md5", "unsigned"}
        How uploads are protected. By default their SHA-256 is part of
        the signature; ``"md5"`` sends ``Content-MD5`` as well, for servers
        that do not verify the SHA-256 (SeaweedFS). ``"unsigned"`` hashes
        nothing and relies on TLS, as boto3 and minio do over https: an upload
        takes a third to a half less CPU time over https, and about half as
        much over http. But over http only TCP's checksum then protects the
        data, and a warning is logged once per session.
    verify_etag : `bool`
        Whether to verify downloads against the object's ETag. Costs one MD5
        pass over the data, in a thread.
    stall_timeout : `float`
        Seconds without any activity after which a request is abandoned.
    min_rate : `int`
        Minimum rate, in bytes per second; a slower request is abandoned once
        ``stall_timeout`` has passed.
    max_attempts : `int`
        Maximum number of attempts per request. Progress resets the count.
    retry_delay : `float`
        Seconds to wait before the second attempt. The delay doubles after each
        failure, up to 5 s. Every delay is shortened at random, by up to half.
    retry_timeout : `float`
        Seconds without progress after which a failing request is not retried.
    total_timeout : `float` or `None`
        Maximum seconds for a whole upload or download; `None` means no limit.
        Streams are exempt, because the reader sets their pace.
    cleanup_timeout : `float`
        Maximum seconds for each step of cleaning up.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    part_size: int = 16 * MiB
    multipart_threshold: int = 16 * MiB
    memory_part_size: int = 32 * MiB
    copy_threshold: int = 5 * GiB
    copy_part_size: int = 128 * MiB
    range_size: int = 64 * MiB
    io_chunksize: int = MiB // 4
    max_concurrency: int = 32
    max_memory: int = 96 * MiB
    integrity: Integrity = "sha256"
    verify_etag: bool = False
    stall_timeout: float = 10.0
    min_rate: int = 32 * 1024
    max_attempts: int = 8
    retry_delay: float = 0.25
    retry_timeout: float = 20.0
    total_timeout: float | None = None
    cleanup_timeout: float = 2.0

    def __post_init__(self) -> None:
        for name in ("part_size", "copy_part_size"):
            self._require(MIN_PART_SIZE <= getattr(self, name) <= MAX_PART_SIZE, name, "5 MiB to 5 GiB")
        for name in ("multipart_threshold", "copy_threshold"):
            self._require(0 <= getattr(self, name) <= MAX_PART_SIZE, name, "0 to 5 GiB")
        self._require(1 <= self.memory_part_size <= MAX_PART_SIZE, "memory_part_size", "1 byte to 5 GiB")
        for name in ("range_size", "io_chunksize", "max_concurrency", "max_memory", "min_rate", "max_attempts"):
            self._require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("stall_timeout", "retry_delay", "retry_timeout", "cleanup_timeout"):
            self._require(0 < getattr(self, name) < math.inf, name, "a finite number of seconds above 0")
        self._require(self.total_timeout is None or self.total_timeout > 0, "total_timeout", "None or seconds above 0")
        self._require(self.integrity in get_args(Integrity), "integrity", '"sha256", "md5" or "unsigned"')

    def _require(self, holds: bool, name: str, rule: str) -> None:  # noqa: FBT001
        if not holds:
            msg = f"TransferConfig.{name} is {getattr(self, name)!r}; it must be {rule}"
            raise ValueError(msg)

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={value!r}" for field in fields(self) if (value := getattr(self, field.name)) != field.default
        )
        return f"TransferConfig({', '.join(changed)})"
