"""Files that are kept on disk until S3 has them: `Spool`, and the record of each file."""

from .entry import Entry
from .record import Record
from .spool import NotKeptError, Spool

__all__ = ["Entry", "NotKeptError", "Record", "Spool"]
