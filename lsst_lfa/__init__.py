"""An asyncio S3 client for observatories."""

from __future__ import annotations

from . import errors
from ._mock.server import MockS3Server
from .bucket import AsyncS3Bucket, ObjectInfo
from .config import TransferConfig
from .errors import LfaError
from .links import download_url
from .session import S3Session

__all__ = [
    "AsyncS3Bucket",
    "LfaError",
    "MockS3Server",
    "ObjectInfo",
    "S3Session",
    "TransferConfig",
    "download_url",
    "errors",
]

__version__ = "0.1.0"
