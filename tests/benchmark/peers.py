"""How each peer transfers from memory and from files, as its own documentation says and by its own defaults.

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

from .opendal import opendal
from .ours import ours
from .raw import raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from .target import Target

__all__ = ["BASELINE", "FLOOR", "OURS", "PEERS", "Peer", "Transfers", "fixed", "is_ours", "open_peer", "parse_peer"]

OURS = "ours"
BASELINE = "boto3"
FLOOR = "raw"
_BLOCK = 256 * 1024

Source = io.BytesIO | Path


class Transfers(Protocol):
    """An open peer."""

    def upload(self, source: Source, key: str) -> Awaitable[object]:
        """Upload a whole file."""

    def download(self, key: str) -> Awaitable[Any]:
        """Return an object as a BytesIO or a bytes-like object."""

    def download_file(self, key: str, path: Path) -> Awaitable[object]:
        """Download an object to a file."""


class _Verbs(NamedTuple):
    """An open peer of three functions."""

    upload: Callable[[Source, str], Awaitable[object]]
    download: Callable[[str], Awaitable[Any]]
    download_file: Callable[[str, Path], Awaitable[object]]


def _in_executor(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Run a blocking function in the event loop's own executor."""

    def call(*arguments: object) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))

    return call


@asynccontextmanager
async def _boto3(target: Target) -> AsyncIterator[Transfers]:
    client = import_module("boto3").client("s3", endpoint_url=target.endpoint_url)

    def upload(source: Source, key: str) -> None:
        if isinstance(source, Path):
            client.upload_file(str(source), target.bucket, key)
        else:
            client.upload_fileobj(source, target.bucket, key)

    def download(key: str) -> io.BytesIO:
        file = io.BytesIO()
        client.download_fileobj(target.bucket, key, file)
        return file

    def download_file(key: str, path: Path) -> None:
        client.download_file(target.bucket, key, str(path))

    yield _Verbs(_in_executor(upload), _in_executor(download), _in_executor(download_file))
    client.close()


@asynccontextmanager
async def _aioboto3(target: Target) -> AsyncIterator[Transfers]:
    session = import_module("aioboto3").Session()
    async with session.client("s3", endpoint_url=target.endpoint_url) as client:

        async def upload(source: Source, key: str) -> None:
            if isinstance(source, Path):
                await client.upload_file(str(source), target.bucket, key)
            else:
                await client.upload_fileobj(source, target.bucket, key)

        async def download(key: str) -> io.BytesIO:
            file = io.BytesIO()
            await client.download_fileobj(target.bucket, key, file)
            return file

        async def download_file(key: str, path: Path) -> None:
            await client.download_file(target.bucket, key, str(path))

        yield _Verbs(upload, download, download_file)


@asynccontextmanager
async def _aiobotocore(target: Target) -> AsyncIterator[Transfers]:
    session = import_module("aiobotocore.session").get_session()
    async with session.create_client("s3", endpoint_url=target.endpoint_url) as client:

        async def upload(source: Source, key: str) -> None:
            with source.open("rb") if isinstance(source, Path) else source as body:
                await client.put_object(Bucket=target.bucket, Key=key, Body=body)

        async def download(key: str) -> Any:
            response = await client.get_object(Bucket=target.bucket, Key=key)
            return await response["Body"].read()

        async def download_file(key: str, path: Path) -> None:
            response = await client.get_object(Bucket=target.bucket, Key=key)
            with path.open("wb") as file:
                while block := await response["Body"].read(_BLOCK):
                    file.write(block)

        yield _Verbs(upload, download, download_file)


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

    # Its asynchronous interface has underscores.
    async def upload(source: Source, key: str) -> None:
        if isinstance(source, Path):
            await filesystem._put_file(str(source), f"{target.bucket}/{key}")
        else:
            await filesystem._pipe_file(f"{target.bucket}/{key}", source.getvalue())

    async def download(key: str) -> Any:
        return await filesystem._cat_file(f"{target.bucket}/{key}")

    async def download_file(key: str, path: Path) -> None:
        await filesystem._get_file(f"{target.bucket}/{key}", str(path))

    try:
        yield _Verbs(upload, download, download_file)
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

    def upload(source: Source, key: str) -> None:
        if isinstance(source, Path):
            client.fput_object(target.bucket, key, str(source))
        else:
            client.put_object(target.bucket, key, source, len(source.getbuffer()))

    def download(key: str) -> Any:
        response = client.get_object(target.bucket, key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def download_file(key: str, path: Path) -> None:
        client.fget_object(target.bucket, key, str(path))

    yield _Verbs(_in_executor(upload), _in_executor(download), _in_executor(download_file))


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

    async def upload(source: Source, key: str) -> None:
        await obstore.put_async(store, key, source)

    async def download(key: str) -> Any:
        return await (await obstore.get_async(store, key)).bytes_async()

    async def download_file(key: str, path: Path) -> None:
        response = await obstore.get_async(store, key)
        with path.open("wb") as file:
            async for chunk in response.stream():
                file.write(chunk)

    yield _Verbs(upload, download, download_file)


class Peer(NamedTuple):
    """How a peer is opened, and the distribution that it comes from."""

    open: Callable[..., AbstractAsyncContextManager[Transfers]]
    distribution: str
    own_environment: str | None = None
    """What pip installs in an environment of the peer's own, because it pins what this package has newer."""
    modes: tuple[str, ...] = ()
    """Settings that may follow its name: ``max_concurrency`` as a number, ``integrity`` as ``unsigned``."""


PEERS = {
    OURS: Peer(ours, "lsst-lfa", modes=("max_concurrency", "integrity")),
    BASELINE: Peer(_boto3, "boto3"),
    "aioboto3": Peer(_aioboto3, "aioboto3", "aioboto3==15.5.0"),
    "aiobotocore": Peer(_aiobotocore, "aiobotocore"),
    "s3fs": Peer(_s3fs, "s3fs"),
    "minio": Peer(_minio, "minio"),
    "obstore": Peer(_obstore, "obstore"),
    "opendal": Peer(opendal, "opendal", modes=("max_concurrency",)),
    FLOOR: Peer(raw, "botocore"),
}


def parse_peer(name: str) -> tuple[Peer, dict[str, Any]]:
    """Read a peer and its settings, e.g. ``ours-unsigned-8``.

    Raises
    ------
    ValueError
        If there is no such peer, or it has no such mode.
    """
    base, *words = name.split("-")
    refusal = ValueError(f"there is no peer {name!r}")
    settings: dict[str, Any] = {}
    for word in words:
        if word.isdecimal() and int(word):
            settings["max_concurrency"] = int(word)
        elif word == "unsigned":
            settings["integrity"] = word
        else:
            raise refusal
    if base not in PEERS or not settings.keys() <= set(PEERS[base].modes):
        raise refusal
    return PEERS[base], settings


def is_ours(name: str) -> bool:
    """Whether a row is one of this package's modes."""
    return name.split("-", maxsplit=1)[0] == OURS


def fixed(name: str) -> bool:
    """Whether a row is this package with its defaults, but so many requests at a time."""
    return is_ours(name) and parse_peer(name)[1].keys() == {"max_concurrency"}


def open_peer(name: str, target: Target, config: Mapping[str, Any]) -> AbstractAsyncContextManager[Transfers]:
    """Open a peer in this process, whose environment is `Target.environment`."""
    peer, settings = parse_peer(name)
    return peer.open(target, {**config, **settings}) if peer.modes else peer.open(target)
