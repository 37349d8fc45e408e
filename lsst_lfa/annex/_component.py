"""A component, and how it describes the files that it publishes. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsst_lfa import naming
from lsst_lfa._spool import Record
from lsst_lfa.salobj import AsyncS3Bucket

from ._large_file import check_version, guess_mime_type, tai_now

if TYPE_CHECKING:
    from astropy.time import Time

    from lsst_lfa._spool.record import IfExists

__all__ = ["Component"]


@dataclass(frozen=True)
class Component:
    """A SAL component.

    Attributes
    ----------
    salname : `str`
        Its name.
    salindex : `int`, `str` or `None`
        Its index; 0 or `None` for a component without one.
    """

    salname: str
    salindex: int | str | None

    def __post_init__(self) -> None:
        if not self.salname:
            msg = "salname must not be empty"
            raise ValueError(msg)

    def __str__(self) -> str:
        return f"{self.salname}:{self.salindex}" if self.salindex else self.salname

    def key(
        self, generator: str, *, date: Time | str | None, other: object, stem: str | None, suffix: str, key: str | None
    ) -> str:
        """Return the given key, or the one that is built from the other arguments.

        Raises
        ------
        ValueError, TypeError
            If it is invalid.
        """
        if key is None:
            when = tai_now() if date is None else date
            key = AsyncS3Bucket.make_key(self.salname, self.salindex, generator, when, other, stem, suffix)
        return naming.check_key(key)

    def describe(
        self,
        bucket: str,
        key: str,
        *,
        event_generator: str | None,
        file_id: str,
        mime_type: str | None,
        version: float,
        if_exists: IfExists,
    ) -> Record:
        """Describe a file; its place in the order is not known yet.

        Raises
        ------
        ValueError, TypeError
            If the event cannot hold one of the values.
        """
        if if_exists not in {"keep", "overwrite", "error"}:
            msg = f'if_exists is {if_exists!r}; it must be "keep", "overwrite" or "error"'
            raise ValueError(msg)
        texts = {
            "generator": str(self) if event_generator is None else event_generator,
            "id": file_id,
            "mime_type": guess_mime_type(key) if mime_type is None else mime_type,
        }
        for name, text in texts.items():
            if not isinstance(text, str):
                msg = f"{name} must be a str, not {type(text).__name__}"
                raise TypeError(msg)
        return Record(
            bucket=bucket,
            key=key,
            component=str(self),
            sequence=0,
            version=check_version(version),
            if_exists=if_exists,
            published=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **texts,  # type: ignore[arg-type]
        )
