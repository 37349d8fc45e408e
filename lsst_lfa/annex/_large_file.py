"""`LargeFile`: a published file, and the fields of its event. No I/O."""

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
"""The largest value of the topic's ``byteSize``."""

_TAI_MINUS_UTC: Final = 37
"""Seconds, since 2017."""
_MAX_LEAP: Final = 100
# Types that Python does not know, or that differ between machines.
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
    """A published file.

    Attributes
    ----------
    bucket, key : `str`
        Where it is, or will be.
    url : `str`
        ``{endpoint}/{bucket}/{key}``: final, even before S3 has the file.
    generator, version, mime_type, id
        As in the event.
    byte_size : `int`
        Bytes.
    check_sum : `str`
        MD5, in hex.
    stored : `bool`
        Whether S3 has acknowledged it; if not, it is in the spool.
    path : `pathlib.Path` or `None`
        Its path in the spool, while it is there.
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

        All fields are given every time, because ``set_write`` keeps the old
        value of a field that is omitted. ``byteSize`` is a 32-bit integer: a
        larger size is reported as 2147483647, with a warning.
        """
        if self.byte_size > MAX_BYTE_SIZE:
            log.warning(
                "%s has %d bytes: its event reports %d, the largest value that the field can hold",
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
    """Return the file that a record describes."""
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
    """Return the version, rounded to the topic's 32-bit float.

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
    """Return the MIME type of a key's suffix; empty if unknown."""
    suffix = key[key.rfind(".") :].lower()
    if suffix in _TYPES:
        return _TYPES[suffix]
    # Only Python's own tables: `mimetypes.guess_type` reads the system's files.
    if suffix in mimetypes.encodings_map:
        return _COMPRESSED.get(mimetypes.encodings_map[suffix], "")
    return mimetypes.types_map.get(suffix, "") if "/" not in suffix else ""


def tai_now() -> str:
    """Return the time as TAI: ``YYYY-MM-DDThh:mm:ss.sss``."""
    offset = 0
    if hasattr(time, "CLOCK_TAI"):
        offset = round(time.clock_gettime(time.CLOCK_TAI) - time.time())
    # If nobody has set the kernel's leap seconds, its TAI is UTC.
    milliseconds = round((time.time() + (offset if 0 < offset < _MAX_LEAP else _TAI_MINUS_UTC)) * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}"
