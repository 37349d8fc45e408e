"""The sidecar of a file in the spool: what the file is, and what has happened to it. No I/O.

Lines of JSON. The first line describes the file, and each line after it is one
change. A sidecar is only ever appended to, so that its kernel lock stays with
it. A line that a crash has torn is a change that did not happen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from lsst_lfa.naming import check_key

__all__ = ["Announce", "IfExists", "Record", "change_line", "parse_sidecar"]

FORMAT: Final = 1
"""Version of the sidecar's format."""

Announce = Literal["safe", "stored", "never"]
IfExists = Literal["keep", "overwrite", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Everything that is needed to send a file and to announce it.

    Attributes
    ----------
    bucket, key : `str`
        Its destination.
    asked : `str`
        The requested key, if it is different.
    component : `str`
        The component whose event announces it.
    sequence : `int`
        Order of publishing: nanoseconds, but never backwards.
    generator, version, id, mime_type, check_sum, byte_size
        As in the event; the last two are known when the file is complete.
    announce : {"safe", "stored", "never"}
        When it is announced.
    if_exists : {"keep", "overwrite", "error"}
        What to do if the key exists.
    published : `str`
        In UTC, for human readers.
    part : `str`
        Name of the temporary file, in the same folder, if it has one.
    safe, stored, announced : `bool`
        Whether all of it is on disk, S3 has it, and the event was sent.
    """

    bucket: str
    key: str
    component: str
    sequence: int
    asked: str = ""
    generator: str = ""
    version: float = 1.0
    id: str = ""
    mime_type: str = ""
    announce: Announce = "safe"
    if_exists: IfExists = "keep"
    published: str = ""
    part: str = ""
    byte_size: int = -1
    check_sum: str = ""
    safe: bool = False
    stored: bool = False
    announced: bool = False

    @property
    def complete(self) -> bool:
        """Whether the whole file was read and flushed to disk, at least under a temporary name."""
        return self.byte_size >= 0

    @property
    def to_announce(self) -> bool:
        """Whether an event is still due."""
        return self.announce != "never" and not self.announced

    def first_line(self) -> bytes:
        """Return the first line of the sidecar."""
        return _line({"lfa": FORMAT, **asdict(self)})


_DEFAULTS: Final[dict[str, Any]] = asdict(Record(bucket="", key="", component="", sequence=0))
_CHOICES: Final = {"announce": {"safe", "stored", "never"}, "if_exists": {"keep", "overwrite", "error"}}


def change_line(**changes: object) -> bytes:
    """Return the line that records a change."""
    return _line(changes)


def parse_sidecar(data: bytes) -> Record:
    """Read a sidecar.

    Raises
    ------
    ValueError
        If its first line is torn, or is not one of ours.
    """
    first, *rest = data.split(b"\n")
    said = _object(first)
    if said is None or said.get("lfa") != FORMAT:
        msg = "its first line does not describe a file"
        raise ValueError(msg)
    for line in rest:
        said |= _object(line) or {}
    record = Record(**_checked({"bucket": None, "key": None, "component": None, "sequence": None, **said}))
    check_key(record.key)
    return record


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line) if line else None
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _checked(said: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that we know; a newer version may write others."""
    known = {name: said[name] for name in _DEFAULTS if name in said}
    for name, value in known.items():
        kind = type(_DEFAULTS[name])
        right = type(value) is kind or (kind is float and type(value) is int)
        if not right or value not in _CHOICES.get(name, {value}):
            msg = f"{name} is {value!r}"
            raise ValueError(msg)
    return known
