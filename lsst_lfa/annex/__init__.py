"""The Large File Annex: publish a file, announce it, and lose nothing."""

from lsst_lfa._spool import Spool

from ._annex import LargeFileAnnex
from ._large_file import LargeFile

__all__ = ["LargeFile", "LargeFileAnnex", "Spool"]
