"""An asyncio S3 client for observatories."""

from __future__ import annotations

from . import errors, sites
from ._bucket import AsyncS3Bucket
from ._download_url import download_url
from ._mock.server import MockS3Server
from ._session import S3Session
from ._transfer.config import TransferConfig
from ._transfer.responses import ObjectInfo
from ._transfer.sources import Uploadable
from .annex import LargeFile, LargeFileAnnex, Spool
from .errors import LfaError

__all__ = [
    "AsyncS3Bucket",
    "LargeFile",
    "LargeFileAnnex",
    "LfaError",
    "MockS3Server",
    "ObjectInfo",
    "S3Session",
    "Spool",
    "TransferConfig",
    "Uploadable",
    "download_url",
    "errors",
    "sites",
]

__version__ = "0.1.0"

# Where users find them, and what a repr, a traceback and a pickle should say.
for _public in (
    AsyncS3Bucket,
    LargeFile,
    LargeFileAnnex,
    MockS3Server,
    ObjectInfo,
    S3Session,
    Spool,
    TransferConfig,
    download_url,
):
    _public.__module__ = __name__
