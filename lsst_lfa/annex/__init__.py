"""The Large File Annex: publishes and announces files, and loses none."""

from lsst_lfa._spool import Spool

from ._annex import LargeFileAnnex
from ._large_file import LargeFile

__all__ = ["LargeFile", "LargeFileAnnex", "Spool"]
