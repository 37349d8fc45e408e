"""The baseline: one HTTP connection, blocking, in a thread; nothing is checked or retried."""

from __future__ import annotations

import asyncio
import http.client
import io
import queue
import shutil
import ssl
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .target import Target

__all__ = ["RawPeer", "raw"]

_BLOCK = 256 * 1024


class RawPeer:
    """Sends from memory and receives into fresh memory, with presigned URLs: no payload is hashed."""

    def __init__(self, target: Target, signer: Any) -> None:
        self._target = target
        self._signer = signer
        self._trust = ssl.create_default_context(cafile=target.ca_file) if target.secure else None
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()

    async def upload(self, source: io.BytesIO | Path, key: str) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._put, source, key)

    async def download(self, key: str) -> io.BytesIO:
        return await asyncio.get_running_loop().run_in_executor(None, self._get, key)

    async def download_file(self, key: str, path: Path) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._get_file, key, path)

    def close(self) -> None:
        """Close the connections."""
        while not self._idle.empty():
            self._idle.get().close()

    def _connect(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            host = urlsplit(self._target.endpoint_url).netloc
            if self._trust is None:
                return http.client.HTTPConnection(host)
            return http.client.HTTPSConnection(host, context=self._trust)

    def _request(
        self, method: str, key: str, body: bytes | BinaryIO | None = None, size: int = 0
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url = self._signer(f"{method.lower()}_object", Params={"Bucket": self._target.bucket, "Key": key})
        connection = self._connect()
        length = {"Content-Length": str(size)} if body else {}
        connection.request(method, url.removeprefix(self._target.endpoint_url), body, length)
        response = connection.getresponse()
        if response.status != http.client.OK:
            message = f"{method} {key}: {response.status} {response.read()!r}"
            raise OSError(message)
        return connection, response

    def _put(self, source: io.BytesIO | Path, key: str) -> None:
        if isinstance(source, Path):
            with source.open("rb") as file:
                connection, response = self._request("PUT", key, file, source.stat().st_size)
        else:
            data = source.getvalue()
            connection, response = self._request("PUT", key, data, len(data))
        response.read()
        self._idle.put(connection)

    def _get(self, key: str) -> io.BytesIO:
        connection, response = self._request("GET", key)
        # Memory that the system has not handed out yet: nothing zeroes it beforehand.
        file = io.BytesIO(bytes(response.length or 0))
        with file.getbuffer() as view:
            done = 0
            while count := response.readinto(view[done:]):
                done += count
        response.close()
        self._idle.put(connection)
        return file

    def _get_file(self, key: str, path: Path) -> None:
        connection, response = self._request("GET", key)
        with path.open("wb") as file:
            shutil.copyfileobj(response, file, _BLOCK)
        response.close()
        self._idle.put(connection)


@asynccontextmanager
async def raw(target: Target) -> AsyncIterator[RawPeer]:
    """Open the raw peer."""
    core = import_module("botocore.session").get_session()
    config = import_module("botocore.config").Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = core.create_client("s3", endpoint_url=target.endpoint_url, config=config)
    peer = RawPeer(target, partial(client.generate_presigned_url, ExpiresIn=3600))
    try:
        yield peer
    finally:
        peer.close()
        client.close()
