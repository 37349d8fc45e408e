"""How a transfer is carried out: sizes, concurrency, time limits, integrity."""

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
    """How transfers are carried out. Immutable, and checked when it is made.

    Parameters
    ----------
    part_size : `int`
        The most bytes in a part of a multipart upload; 5 MiB to 5 GiB. Parts
        are shorter when many are under way at a time (see ``max_memory``), and
        longer when the object would otherwise need more than 10,000.
    multipart_threshold : `int`
        Objects of up to this many bytes go up in one request, larger ones in
        parts. That much is held in memory before the choice can be made. At
        most 5 GiB, S3's limit for one request.
    memory_part_size : `int`
        The most bytes in a part of what is already in memory: bytes, or an
        `io.BytesIO`. Such a part takes up no memory of its own, and fewer
        requests cost less.
    copy_threshold : `int`
        Objects of up to this many bytes are copied in one request, larger
        ones in parts, in parallel. At most 5 GiB, S3's limit for one request.
    copy_part_size : `int`
        Bytes in a part of a copy; 5 MiB to 5 GiB.
    range_size : `int`
        The most bytes that one request of a parallel download asks for. They
        go straight to their place, so they take up no memory of their own.
        Ranges grow shorter towards the end.
    io_chunksize : `int`
        Bytes handed to the network at a time.
    max_concurrency : `int`
        The most requests that one transfer keeps under way. How many it
        uses is found while it runs, by what the line rewards, and remembered
        for the session's next transfers.
    max_memory : `int`
        Bytes that a stream may hold, or an upload of what is not in memory
        already. Never less than two of the shortest parts (5 MiB).
    integrity : {"sha256", "md5", "unsigned"}
        How bytes on their way up are protected. By default their SHA-256 is
        part of the signature; ``"md5"`` sends ``Content-MD5`` as well, for
        servers that do not verify the former (SeaweedFS). ``"unsigned"`` hashes
        nothing, which saves up to two thirds of the CPU time, and relies on
        TLS, as boto3 and minio do over https. Over http it leaves TCP's
        checksum alone, and logs a warning once per session.
    verify_etag : `bool`
        Whether downloads are compared with the object's ETag. It costs one
        MD5 over the data, in a thread.
    stall_timeout : `float`
        Seconds without any sign of life after which a request is given up.
    min_rate : `int`
        Bytes per second below which a request is given up, once
        ``stall_timeout`` has passed.
    max_attempts : `int`
        How often a request is tried. Progress restarts the count.
    retry_delay : `float`
        Seconds to wait before the second attempt; they double with each
        failure, up to 5 s, less up to one half at random.
    retry_timeout : `float`
        Seconds without progress after which a failing request is not tried
        again.
    total_timeout : `float` or `None`
        Seconds that a whole upload or download may take; `None` is no limit.
        A stream, whose reader sets the pace, is not limited by it.
    cleanup_timeout : `float`
        Seconds that each step of cleaning up may take.

    Raises
    ------
    ValueError
        If a value is outside its bounds.
    """

    part_size: int = 16 * MiB
    multipart_threshold: int = 16 * MiB
    memory_part_size: int = 32 * MiB
    copy_threshold: int = 5 * GiB
    copy_part_size: int = 512 * MiB
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
