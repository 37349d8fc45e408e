"""`LargeFile`: a file that was published, and the fields of its event. Pure."""

from __future__ import annotations

import logging
import math
import mimetypes
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lsst_lfa._public import public

if TYPE_CHECKING:
    from pathlib import Path

    from lsst_lfa._spool import Record
    from lsst_lfa.errors import LfaError

__all__ = ["LargeFile", "check_version", "guess_mime_type", "large_file", "tai_now"]

log = logging.getLogger(__name__)

MAX_BYTE_SIZE: Final = 2**31 - 1
"""The most that the topic's ``byteSize`` can say."""

_TAI_MINUS_UTC: Final = 37
"""Seconds, since 2017."""
_MAX_LEAP: Final = 100
# What Python does not know, or knows otherwise on each machine.
_TYPES: Final = {
    ".fits": "application/fits",
    ".fit": "application/fits",
    ".fz": "application/fits",
    ".ecsv": "text/csv",
    ".h5": "application/x-hdf5",
    ".hdf5": "application/x-hdf5",
    ".parquet": "application/vnd.apache.parquet",
    ".pkl": "application/octet-stream",
    ".pickle": "application/octet-stream",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_COMPRESSED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


@public
@dataclass(frozen=True, kw_only=True, slots=True)
class LargeFile:
    """A file that was published.

    Attributes
    ----------
    bucket, key : `str`
        Where it is, or will be.
    url : `str`
        ``{endpoint}/{bucket}/{key}``: final, whether S3 has it yet or not.
    generator, version, mime_type, id
        As in the event.
    byte_size : `int`
        Bytes.
    check_sum : `str`
        MD5, in hex.
    stored : `bool`
        Whether S3 has acknowledged it; if not, it is in the spool.
    path : `pathlib.Path` or `None`
        Where it is in the spool, while it is there.
    error : `LfaError` or `None`
        Why S3 has not acknowledged it.
    """

    bucket: str
    key: str
    url: str
    generator: str
    version: float
    byte_size: int
    check_sum: str
    mime_type: str
    id: str
    stored: bool
    path: Path | None = None
    error: LfaError | None = None

    def event_fields(self) -> dict[str, Any]:
        """Return the seven fields of the event ``largeFileObjectAvailable``, with the topic's names and types.

        All of them, each time: ``set_write`` keeps the old value of a field
        that is not given. ``byteSize`` is a 32-bit integer: a larger file's
        size is given as 2147483647, with a warning.
        """
        if self.byte_size > MAX_BYTE_SIZE:
            log.warning(
                "%s has %d bytes: its event says %d, which is the most that it can say",
                self.url,
                self.byte_size,
                MAX_BYTE_SIZE,
            )
        return {
            "url": self.url,
            "generator": self.generator,
            "version": self.version,
            "byteSize": min(self.byte_size, MAX_BYTE_SIZE),
            "checkSum": self.check_sum,
            "mimeType": self.mime_type,
            "id": self.id,
        }


def large_file(
    record: Record, url: str, *, stored: bool, path: Path | None = None, error: LfaError | None = None
) -> LargeFile:
    """Make the file that a record describes."""
    return LargeFile(
        bucket=record.bucket,
        key=record.key,
        url=url,
        generator=record.generator,
        version=record.version,
        byte_size=record.byte_size,
        check_sum=record.check_sum,
        mime_type=record.mime_type,
        id=record.id,
        stored=stored,
        path=path,
        error=error,
    )


def check_version(version: float) -> float:
    """Return the version as the topic's 32-bit float will have it.

    Raises
    ------
    ValueError
        If it is not a finite number that a 32-bit float can hold.
    """
    try:
        rounded: float = struct.unpack("f", struct.pack("f", version))[0]
    except (struct.error, OverflowError):
        rounded = math.inf
    if not math.isfinite(rounded):
        msg = f"version is {version!r}; it must be a finite number that a 32-bit float can hold"
        raise ValueError(msg)
    return rounded


def guess_mime_type(key: str) -> str:
    """Return the MIME type that a key's suffix tells; empty if it tells none."""
    suffix = key[key.rfind(".") :].lower()
    if suffix in _TYPES:
        return _TYPES[suffix]
    # Python's own tables alone: `mimetypes.guess_type` reads the system's files.
    if suffix in mimetypes.encodings_map:
        return _COMPRESSED.get(mimetypes.encodings_map[suffix], "")
    return mimetypes.types_map.get(suffix, "") if "/" not in suffix else ""


def tai_now() -> str:
    """Return the time as TAI: ``YYYY-MM-DDThh:mm:ss.sss``."""
    offset = 0
    if hasattr(time, "CLOCK_TAI"):
        offset = round(time.clock_gettime(time.CLOCK_TAI) - time.time())
    # Where nobody told the kernel of the leap seconds, its TAI is UTC.
    milliseconds = round((time.time() + (offset if 0 < offset < _MAX_LEAP else _TAI_MINUS_UTC)) * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}"
