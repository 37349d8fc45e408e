"""How a transfer is carried out: sizes, concurrency, time limits, integrity."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from .transfer.plan import MAX_PART_SIZE, MIN_PART_SIZE, MiB

__all__ = ["TransferConfig"]

Integrity = Literal["sha256", "md5"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferConfig:
    """How transfers are carried out. Immutable; checked when it is made.

    Parameters
    ----------
    part_size : `int`
        Bytes in a part of a multipart upload; 5 MiB to 5 GiB. It grows by
        itself where the object would not fit in 10,000 parts.
    multipart_threshold : `int`
        Objects of up to so many bytes go up in one request, larger ones in
        parts. At most ``max_concurrency * part_size``, since so much is held
        in memory before the choice can be made.
    memory_part_size : `int`
        Bytes in a part, at most, of what is in memory when it is uploaded:
        bytes, or a `io.BytesIO`. Such a part takes up no memory of its own,
        and fewer requests cost less: so ``part_size`` is doubled up to this,
        as long as two parts are left for each request under way.
    range_size : `int`
        Bytes that one request of a parallel download asks for at most. They
        go straight to their place, so they take up no memory of their own;
        but a stream, and the first request, asks for ``part_size`` at most.
    chunk_size : `int`
        Bytes handed to the network at a time.
    max_concurrency : `int`
        Requests that one transfer keeps under way. An upload holds at most
        ``max_concurrency + 1`` parts in memory.
    integrity : {"sha256", "md5"}
        How bytes on their way up are protected. Their SHA-256 is part of the
        signature in any case; ``"md5"`` sends ``Content-MD5`` as well, for
        servers that do not verify the first (SeaweedFS).
    verify : `bool`
        Whether downloads are compared with the object's ETag. It costs one
        MD5 over the data, in a thread.
    connect_timeout : `float`
        Seconds to wait for a connection.
    request_timeout : `float`
        Seconds without a sign of life after which a request is given up.
    min_rate : `int`
        Bytes per second below which a request is given up, once
        ``request_timeout`` has passed.
    attempts : `int`
        How often a request is tried. Progress starts the count anew.
    retry_delay : `float`
        Seconds to wait before the second attempt; they double with each
        failure, up to 5 s, and up to half of them is left to chance.
    retry_for : `float`
        Seconds without progress after which a failing request is not tried
        again.
    deadline : `float` or `None`
        Seconds that the whole transfer may take; `None` is no limit.
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
    range_size: int = 64 * MiB
    chunk_size: int = MiB // 4
    max_concurrency: int = 3
    integrity: Integrity = "sha256"
    verify: bool = False
    connect_timeout: float = 3.0
    request_timeout: float = 10.0
    min_rate: int = 32 * 1024
    attempts: int = 8
    retry_delay: float = 0.25
    retry_for: float = 20.0
    deadline: float | None = None
    cleanup_timeout: float = 2.0

    def __post_init__(self) -> None:
        self._require(MIN_PART_SIZE <= self.part_size <= MAX_PART_SIZE, "part_size", "5 MiB to 5 GiB")
        self._require(
            0 <= self.multipart_threshold <= self.max_concurrency * self.part_size,
            "multipart_threshold",
            "0 to max_concurrency * part_size",
        )
        self._require(1 <= self.memory_part_size <= MAX_PART_SIZE, "memory_part_size", "1 byte to 5 GiB")
        for name in ("range_size", "chunk_size", "max_concurrency", "min_rate", "attempts"):
            self._require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("connect_timeout", "request_timeout", "retry_delay", "retry_for", "cleanup_timeout"):
            self._require(0 < getattr(self, name) < math.inf, name, "a finite number of seconds above 0")
        self._require(self.deadline is None or self.deadline > 0, "deadline", "None, or seconds above 0")
        self._require(self.integrity in ("sha256", "md5"), "integrity", '"sha256" or "md5"')

    def _require(self, holds: bool, name: str, rule: str) -> None:  # noqa: FBT001
        if not holds:
            msg = f"TransferConfig.{name} is {getattr(self, name)!r}; it must be {rule}"
            raise ValueError(msg)

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={value!r}" for field in fields(self) if (value := getattr(self, field.name)) != field.default
        )
        return f"TransferConfig({', '.join(changed)})"
