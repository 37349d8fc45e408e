"""An asyncio S3 client for observatories."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from . import annex, sites
    from .annex import LargeFile, LargeFileAnnex, Spool

__all__ = [
    "AsyncS3Bucket",
    "ByteStream",
    "Folder",
    "FolderSummary",
    "LargeFile",
    "LargeFileAnnex",
    "LfaError",
    "MockS3Server",
    "ObjectInfo",
    "ObjectReader",
    "S3Session",
    "Spool",
    "TransferConfig",
    "Uploadable",
    "annex",
    "bucket_for",
    "download_url",
    "errors",
    "sites",
]

__version__ = "0.1.0"

# Imported when they are first asked for: whoever moves files only does not pay for the annex.
_LATER = dict.fromkeys(("LargeFile", "LargeFileAnnex", "Spool"), "annex") | {"annex": "annex", "sites": "sites"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = importlib.import_module(f".{_LATER[name]}", __name__)
    found = module if name == _LATER[name] else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
