"""An asyncio S3 client for observatories."""

from __future__ import annotations

from . import errors
from ._bucket import AsyncS3Bucket
from ._bucket_for import bucket_for
from ._download_url import download_url
from ._mock.server import MockS3Server
from ._session import S3Session
from ._transfer.config import TransferConfig
from ._transfer.folders import FolderSummary
from ._transfer.reader import ByteStream, ObjectReader
from ._transfer.responses import Folder, ObjectInfo
from ._transfer.sources import Uploadable
from .errors import LfaError

__all__ = [
    "AsyncS3Bucket",
    "ByteStream",
    "Folder",
    "FolderSummary",
    "LfaError",
    "MockS3Server",
    "ObjectInfo",
    "ObjectReader",
    "S3Session",
    "TransferConfig",
    "Uploadable",
    "bucket_for",
    "download_url",
    "errors",
]

__version__ = "0.1.0"

# Where users find them, and what a repr, a traceback and a pickle should say.
for _public in (
    AsyncS3Bucket,
    ByteStream,
    Folder,
    FolderSummary,
    MockS3Server,
    ObjectInfo,
    ObjectReader,
    S3Session,
    TransferConfig,
    bucket_for,
    download_url,
):
    _public.__module__ = __name__
