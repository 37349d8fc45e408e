"""opendal as one of the peers. It never signs payloads, and makes one request at a time unless told otherwise."""

from __future__ import annotations

import io
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from .target import Target

__all__ = ["opendal"]

_CHUNK = 8 * 1024 * 1024


class _OpendalPeer:
    """An operator; ``options`` are those of each transfer."""

    def __init__(self, operator: Any, options: Mapping[str, int]) -> None:
        self._operator = operator
        self._options = options

    async def upload(self, source: io.BytesIO | Path, key: str) -> None:
        if isinstance(source, io.BytesIO):
            await self._operator.write(key, source.getvalue(), **self._options)
            return
        with source.open("rb") as file:
            async with await self._operator.open(key, "wb", **self._options) as remote:
                while block := file.read(_CHUNK):
                    await remote.write(block)

    async def download(self, key: str) -> bytes:
        data: bytes = await self._operator.read(key, **self._options)
        return data

    async def download_file(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            async with await self._operator.open(key, "rb", **self._options) as remote:
                while block := await remote.read(_CHUNK):
                    file.write(block)


@asynccontextmanager
async def opendal(target: Target, config: Mapping[str, Any]) -> AsyncIterator[_OpendalPeer]:
    """Open opendal, with ``max_concurrency`` if that is given."""
    operator = import_module("opendal").AsyncOperator(
        "s3",
        endpoint=target.endpoint_url,
        bucket=target.bucket,
        region="us-east-1",
        access_key_id=target.access_key_id,
        secret_access_key=target.secret_access_key,
    )
    many = config.get("max_concurrency")
    yield _OpendalPeer(operator, {"concurrent": many, "chunk": _CHUNK} if many else {})
