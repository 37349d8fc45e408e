"""An asyncio S3 client for observatories.

Importing the package costs nothing: its contents are loaded when a name is
first accessed, which takes 0.3 s. So import names at the top of a module: in a
coroutine, the first import would block the event loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import annex, errors, sites
    from ._bucket import AsyncS3Bucket
    from ._bucket_for import bucket_for
    from ._download_url import download_url
    from ._mock.server import MockS3Server
    from ._session import S3Session
    from ._transfer.config import TransferConfig
    from ._transfer.folders import FolderSummary
    from ._transfer.reader import ByteStream, ObjectReader
    from ._transfer.responses import Folder, ObjectInfo, PendingUpload
    from ._transfer.sources import Uploadable
    from .annex import LargeFile, LargeFileAnnex, Spool
    from .errors import LfaError

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
    "PendingUpload",
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

_MODULES = frozenset({"annex", "errors", "naming", "salobj", "sites"})
# Where the names are defined. Accessing one loads all of these modules, so that the cost is paid once, at one time.
_HOMES = {
    "AsyncS3Bucket": "_bucket",
    "ByteStream": "_transfer.reader",
    "Folder": "_transfer.responses",
    "FolderSummary": "_transfer.folders",
    "LfaError": "errors",
    "MockS3Server": "_mock.server",
    "ObjectInfo": "_transfer.responses",
    "ObjectReader": "_transfer.reader",
    "PendingUpload": "_transfer.responses",
    "S3Session": "_session",
    "TransferConfig": "_transfer.config",
    "Uploadable": "_transfer.sources",
    "bucket_for": "_bucket_for",
    "download_url": "_download_url",
}
# Programs that only transfer files do not pay for the annex.
_LATER = dict.fromkeys(("LargeFile", "LargeFileAnnex", "Spool"), "annex")

if not TYPE_CHECKING:  # else any name would pass for one that exists

    def __getattr__(name: str) -> Any:
        if name in _MODULES:  # the package's own modules import these: nothing else may be loaded at the same time
            return importlib.import_module(f".{name}", __name__)
        if name not in _HOMES and name not in _LATER:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        homes = {home: importlib.import_module(f".{home}", __name__) for home in _HOMES.values()}
        module = homes[_HOMES[name]] if name in _HOMES else importlib.import_module(f".{_LATER[name]}", __name__)
        # Only this one: a test may have replaced another.
        globals()[name] = found = getattr(module, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
