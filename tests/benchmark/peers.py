"""How each peer uploads a BytesIO, and downloads into memory, as its own documentation says and by its own defaults.

Peers are imported where they are opened: none need be installed that is not asked for, and none takes up memory where
another is measured.
"""

from __future__ import annotations

import asyncio
import io
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from .raw import raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from .target import Target

__all__ = ["BASELINE", "FLOOR", "OURS", "PEERS", "Transfers", "open_peer"]

OURS = "ours"
BASELINE = "boto3"
FLOOR = "raw"


class Transfers(Protocol):
    """An open peer."""

    def upload(self, file: io.BytesIO, key: str) -> Awaitable[object]:
        """Upload a whole file."""

    def download(self, key: str) -> Awaitable[Any]:
        """Return an object as a BytesIO or a bytes-like object."""


class _Verbs:
    """An open peer of two functions."""

    def __init__(
        self, upload: Callable[[io.BytesIO, str], Awaitable[object]], download: Callable[[str], Awaitable[Any]]
    ) -> None:
        self.upload = upload
        self.download = download


def _in_executor(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Run a blocking function in the event loop's own executor."""

    def call(*arguments: object) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))

    return call


@asynccontextmanager
async def _ours(target: Target, config: Mapping[str, Any] | None = None) -> AsyncIterator[Transfers]:
    lsst_lfa = import_module("lsst_lfa")
    async with lsst_lfa.AsyncS3Bucket(target.bucket, config=lsst_lfa.TransferConfig(**config or {})) as bucket:
        yield bucket


@asynccontextmanager
async def _boto3(target: Target) -> AsyncIterator[Transfers]:
    client = import_module("boto3").client("s3", endpoint_url=target.endpoint_url)

    def download(key: str) -> io.BytesIO:
        file = io.BytesIO()
        client.download_fileobj(target.bucket, key, file)
        return file

    def upload(file: io.BytesIO, key: str) -> None:
        client.upload_fileobj(file, target.bucket, key)

    yield _Verbs(_in_executor(upload), _in_executor(download))
    client.close()


@asynccontextmanager
async def _aioboto3(target: Target) -> AsyncIterator[Transfers]:
    session = import_module("aioboto3").Session()
    async with session.client("s3", endpoint_url=target.endpoint_url) as client:

        async def upload(file: io.BytesIO, key: str) -> None:
            await client.upload_fileobj(file, target.bucket, key)

        async def download(key: str) -> io.BytesIO:
            file = io.BytesIO()
            await client.download_fileobj(target.bucket, key, file)
            return file

        yield _Verbs(upload, download)


@asynccontextmanager
async def _aiobotocore(target: Target) -> AsyncIterator[Transfers]:
    session = import_module("aiobotocore.session").get_session()
    async with session.create_client("s3", endpoint_url=target.endpoint_url) as client:

        async def upload(file: io.BytesIO, key: str) -> None:
            await client.put_object(Bucket=target.bucket, Key=key, Body=file)

        async def download(key: str) -> Any:
            answer = await client.get_object(Bucket=target.bucket, Key=key)
            return await answer["Body"].read()

        yield _Verbs(upload, download)


@asynccontextmanager
async def _s3fs(target: Target) -> AsyncIterator[Transfers]:
    filesystem = import_module("s3fs").S3FileSystem(
        endpoint_url=target.endpoint_url,
        key=target.access_key_id,
        secret=target.secret_access_key,
        asynchronous=True,
        skip_instance_cache=True,
    )
    session = await filesystem.set_session()

    async def upload(file: io.BytesIO, key: str) -> None:
        await filesystem._pipe_file(f"{target.bucket}/{key}", file.getvalue())  # its asynchronous interface

    async def download(key: str) -> Any:
        return await filesystem._cat_file(f"{target.bucket}/{key}")

    try:
        yield _Verbs(upload, download)
    finally:
        await session.close()


@asynccontextmanager
async def _minio(target: Target) -> AsyncIterator[Transfers]:
    client = import_module("minio").Minio(
        urlsplit(target.endpoint_url).netloc,
        access_key=target.access_key_id,
        secret_key=target.secret_access_key,
        secure=target.secure,
    )

    def upload(file: io.BytesIO, key: str) -> None:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        client.put_object(target.bucket, key, file, size)

    def download(key: str) -> Any:
        response = client.get_object(target.bucket, key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    yield _Verbs(_in_executor(upload), _in_executor(download))


@asynccontextmanager
async def _obstore(target: Target) -> AsyncIterator[Transfers]:
    obstore = import_module("obstore")
    trust = {} if target.ca_file is None else {"root_certificate": Path(target.ca_file).read_bytes()}
    store = import_module("obstore.store").S3Store(
        target.bucket,
        endpoint=target.endpoint_url,
        virtual_hosted_style_request=False,
        client_options={"allow_http": not target.secure, **trust},
    )

    async def upload(file: io.BytesIO, key: str) -> None:
        await obstore.put_async(store, key, file)

    async def download(key: str) -> Any:
        return await (await obstore.get_async(store, key)).bytes_async()

    yield _Verbs(upload, download)


class Peer(NamedTuple):
    """How a peer is opened, and the distribution that it comes from."""

    open: Callable[..., AbstractAsyncContextManager[Transfers]]
    distribution: str
    own_environment: str | None = None
    """What pip installs in an environment of the peer's own, because it pins what this package has newer."""


PEERS = {
    OURS: Peer(_ours, "lsst-lfa"),
    BASELINE: Peer(_boto3, "boto3"),
    "aioboto3": Peer(_aioboto3, "aioboto3", "aioboto3==15.5.0"),
    "aiobotocore": Peer(_aiobotocore, "aiobotocore"),
    "s3fs": Peer(_s3fs, "s3fs"),
    "minio": Peer(_minio, "minio"),
    "obstore": Peer(_obstore, "obstore"),
    FLOOR: Peer(raw, "botocore"),
}


def open_peer(name: str, target: Target, config: Mapping[str, Any]) -> AbstractAsyncContextManager[Transfers]:
    """Open a peer in this process, whose environment is `Target.environment`."""
    return PEERS[name].open(target, config) if name == OURS else PEERS[name].open(target)
