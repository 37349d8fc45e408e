"""`AsyncS3Bucket`: the verbs, each a few lines over the engines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from . import _urls, fits, naming
from ._client.boto3_resource import service_resource
from ._client.loop_client import SharedClient
from ._client.settings import Settings
from ._mock.server import MockS3Server
from ._transfer import operations
from ._transfer.attempts import transfer
from ._transfer.concurrency import in_thread
from ._transfer.config import TransferConfig
from ._transfer.download import S3RangeReader, download, stream, verify
from ._transfer.failures import RequestInfo
from ._transfer.files import make_folder, safe_join
from ._transfer.progress import Progress
from ._transfer.responses import ObjectInfo
from ._transfer.sinks import FileSink, MemorySink
from ._transfer.sources import open_source
from ._transfer.upload import upload
from .errors import KeyNotFoundError

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType

    from astropy.io.fits import HDUList
    from astropy.time import Time

    from ._transfer.attempts import BucketClient
    from ._transfer.progress import Callback
    from ._transfer.sources import Uploadable

__all__ = ["AsyncS3Bucket", "ObjectInfo", "S3Bucket"]


class _Session(Protocol):
    """What a bucket needs of an `S3Session`, which is a floor above."""

    config: TransferConfig
    _client: SharedClient


class S3Bucket:
    """What a bucket can do, whatever scheme makes its name and keys; see `AsyncS3Bucket`."""

    def __init__(
        self,
        name: str,
        domock: bool = False,  # noqa: FBT001, FBT002 - specified so
        *,
        create: bool = False,
        profile: str | None = None,
        session: _Session | None = None,
        config: TransferConfig | None = None,
    ) -> None:
        naming.check_bucket(name)
        if session is not None and (profile is not None or domock):
            msg = "a session has its own profile and endpoint: give either it, or profile or domock"
            raise ValueError(msg)
        self.name = name
        self.profile = profile
        self._mock = MockS3Server() if domock else None
        self._owns_client = session is None
        self._client = self._make_client() if session is None else session._client  # noqa: SLF001 - a room of ours
        self._config = config or (TransferConfig() if session is None else session.config)
        self._create = create

    def _make_client(self) -> SharedClient:
        if self._mock is None:
            return SharedClient(Settings.from_environment(self.profile))
        self._mock.start()
        try:
            self._mock.create_bucket(self.name)
        except BaseException:
            self._mock.stop()
            raise
        return SharedClient(Settings.for_mock(self._mock))

    def __repr__(self) -> str:
        return f"AsyncS3Bucket({self.name!r}, endpoint_url={self._client.settings.endpoint_url!r})"

    @cached_property
    def service_resource(self) -> Any:
        """boto3's synchronous ``ServiceResource`` on the same service; made on first access.

        Hazard: making it blocks for 0.1 to 0.2 s, and so does each request.
        """
        return service_resource(self._client.settings)

    @cached_property
    def bucket(self) -> Any:
        """boto3's synchronous ``Bucket``; see `service_resource`."""
        return self.service_resource.Bucket(self.name)

    # Upload

    async def upload(self, fileobj: Uploadable, key: str, callback: Callback | None = None) -> str:
        """Upload data, whole or not at all.

        Up to ``TransferConfig.multipart_threshold`` bytes go up in one
        request, more in parts, in parallel. A failure or a cancellation, at
        any moment, leaves no multipart upload behind.

        Parameters
        ----------
        fileobj : file, bytes-like, `pathlib.Path` or async iterable of bytes
            Binary file objects may be sync (read in threads) or async
            (aiofiles), and are read from their current position to their end.
            They are never closed; after a failure their position is restored,
            if they can seek. A BytesIO and bytes-like objects are not copied:
            do not change a bytes-like object meanwhile.
        key : `str`
            The object's key; an object that has it already is replaced.
        callback : callable, optional
            Called with the number of bytes sent since its last call: at least
            once on success, summing up to the size exactly; bytes sent again
            are not counted again. A function, which must not block, or a
            coroutine function. What it raises ends the transfer.

        Returns
        -------
        url : `str`
            ``{endpoint}/{bucket}/{key}``, unquoted.

        Raises
        ------
        TypeError
            If ``fileobj`` gives text. Nothing was sent then.
        ValueError
            If ``key`` is not one that every server takes: empty, over 1024
            bytes, with control characters or ``..`` segments. Nothing was sent.
        SourceChangedError
            If ``fileobj`` gave another number of bytes than it promised.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        source, progress = open_source(fileobj), Progress(callback)
        async with self._borrow("upload", key, self._config.total_timeout) as client:
            await upload(client, key, source, progress)
        return self.url(key)

    async def upload_fits(self, hdulist: HDUList, key: str, callback: Callback | None = None) -> str:
        """Upload an `astropy.io.fits.HDUList`, serialised in a thread; see `upload`.

        Do not change it meanwhile.
        """
        naming.check_key(key)
        return await self.upload(await fits.dump(hdulist), key, callback)

    # Download

    async def download(self, key: str, callback: Callback | None = None) -> io.BytesIO:
        """Download an object into memory.

        Parameters
        ----------
        key : `str`
            The object's key.
        callback : callable, optional
            Called with the number of bytes received since its last call; see
            `upload`.

        Returns
        -------
        fileobj : `io.BytesIO`
            The data, at position 0.

        Raises
        ------
        KeyNotFoundError
            If there is no such object; it is a `FileNotFoundError` too.
        ObjectChangedError
            If the object was replaced meanwhile.
        IntegrityError
            If ``TransferConfig.verify_etag`` is set and the data are not those
            that the object's ETag stands for.
        UnverifiableError
            If it is set, and the ETag is no digest of the data.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        progress, sink = Progress(callback), MemorySink()
        async with self._borrow("download", key, self._config.total_timeout) as client:
            try:
                reader = S3RangeReader(client, key)
                pinned = await download(reader, sink, progress)
                await verify(reader, pinned, sink)
            finally:
                sink.close()
        return sink.file

    async def download_file(
        self,
        key: str,
        path: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Download an object to a file: all of it or nothing, also after a crash.

        The data go to a temporary file in the same folder, which is put on
        the disk and then takes the destination's name. Its mode is as the
        umask says. A symbolic link at the destination is replaced, not followed.

        Parameters
        ----------
        key : `str`
            The object's key.
        path : path-like, optional
            The destination: a regular file, replaced, or nothing yet.
        callback : callable, optional
            See `download`.
        directory : path-like, optional
            Instead of ``path``: the folder in which the key is the path.
            Folders on the way are made; it is never left. An empty object
            whose key ends with "/" becomes a folder.

        Returns
        -------
        path : `pathlib.Path`
            The file.

        Raises
        ------
        OSError
            If the file cannot be written there.
        ValueError
            If the key has no path of its own in ``directory``: it has empty
            segments, as ``x//y``, or a symbolic link leads out.
        LfaError
            As `download`.
        """
        naming.check_key(key)
        if (path is None) == (directory is None):
            msg = "give either path or directory"
            raise TypeError(msg)
        progress = Progress(callback)
        # At the start: the working directory may be another one later.
        base: Path = await in_thread(Path(path or directory or "").absolute)
        if directory is not None and key.endswith("/"):
            return await self._download_marker(key, base, progress)
        target = base if directory is None else await in_thread(safe_join, base, key)
        sink = FileSink(target)
        async with self._borrow("download", key, self._config.total_timeout) as client:
            try:
                await sink.create()
                reader = S3RangeReader(client, key)
                pinned = await download(reader, sink, progress)
                await verify(reader, pinned, sink)
                await sink.commit()
            finally:
                await sink.discard()
        return target

    async def _download_marker(self, key: str, directory: Path, progress: Progress) -> Path:
        """Make the folder that an empty object stands for."""
        if await self.size(key):
            msg = f"key={key!r} ends as a folder's, but the object has data: give a path instead"
            raise ValueError(msg)
        folder: Path = await in_thread(make_folder, directory, key)
        await progress.finish()
        return folder

    async def download_fits(self, key: str, callback: Callback | None = None) -> HDUList:
        """Download an `astropy.io.fits.HDUList`, read in a thread and complete; see `download`."""
        return await fits.load(await self.download(key, callback))

    def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """Iterate over an object's bytes, in order.

        Reads ahead by at most ``max_concurrency`` ranges of ``part_size``
        bytes. Close it (`contextlib.aclosing`) if you leave it early.

        Yields
        ------
        chunk : `bytes`
            The next bytes, of any number.
        """
        naming.check_key(key)
        closings = self._client.closings
        return stream(lambda: self._borrow("stream", key, closings=closings), key, self._config)

    # Metadata

    async def head(self, key: str) -> ObjectInfo:
        """Return an object's size, ETag and time, without its data.

        Raises
        ------
        KeyNotFoundError
            If there is no such object.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        async with self._borrow("head", key) as client:
            return await operations.head(client, key)

    async def exists(self, key: str) -> bool:
        """Return whether there is an object with this key.

        Raises
        ------
        LfaError
            If that cannot be known: the bucket is missing, access is denied,
            there is no server.
        """
        try:
            await self.head(key)
        except KeyNotFoundError:
            return False
        return True

    async def size(self, key: str) -> int:
        """Return an object's size, in bytes; raises as `head` does."""
        return (await self.head(key)).size

    async def list(self, prefix: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """Iterate over the objects whose keys begin with ``prefix``, in the order of their keys."""
        token: str | None = ""
        while token is not None:
            async with self._borrow("list", None) as client:
                page, token = await operations.list_page(client, prefix, token)
            for item in page:
                yield item

    async def check(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a health check's own bound
        """Make sure that the bucket can be reached and read, within ``timeout`` seconds.

        Raises
        ------
        LfaError
            What is wrong, and what helps.
        """
        once = replace(self._config, max_attempts=1)
        async with self._borrow("check", None, timeout, config=once, create=False) as client:
            await client.call("list_objects_v2", MaxKeys=1)

    def url(self, key: str) -> str:
        """Return an object's URL, ``{endpoint}/{bucket}/{key}``, unquoted. It holds no credentials."""
        return _urls.object_url(self._endpoint_url, self.name, naming.check_key(key))

    @property
    def _endpoint_url(self) -> str:
        known = self._client.endpoint_url
        return known if known is not None else str(self.service_resource.meta.client.meta.endpoint_url)

    async def presigned_url(
        self, key: str, *, expires: float | timedelta = 3600, method: Literal["get", "put"] = "get"
    ) -> str:
        """Return a URL with which anybody can fetch, or store, an object for a while.

        Parameters
        ----------
        key : `str`
            The object's key.
        expires : `float` or `datetime.timedelta`
            How long it works, in seconds; at most 7 days.
        method : {"get", "put"}
            What it allows.
        """
        naming.check_key(key)
        seconds = round(expires.total_seconds() if isinstance(expires, timedelta) else expires)
        if not 0 < seconds <= 7 * 24 * 3600:
            msg = f"expires is {expires!r}; it must be above 0 and at most 7 days"
            raise ValueError(msg)
        async with self._borrow("presign", key) as client:
            return str(
                await client.client.generate_presigned_url(
                    f"{method}_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=seconds
                )
            )

    async def delete(self, key: str) -> None:
        """Delete an object; no error if there is none."""
        naming.check_key(key)
        async with self._borrow("delete", key) as client:
            await client.call("delete_object", key)

    async def create(self) -> None:
        """Make the bucket; no error if it is there and ours.

        Raises
        ------
        BucketTakenError
            If it belongs to somebody else.
        """
        async with self._borrow("create", None, create=False) as client:
            await operations.create_bucket(client)

    async def abort_stale_uploads(self, older_than: float | timedelta) -> int:
        """Abort multipart uploads that were begun long ago and never ended.

        A process that was killed leaves them; their parts take up space and
        are seen by no one.

        Parameters
        ----------
        older_than : `float` or `datetime.timedelta`
            Seconds since they were begun. Longer than any upload takes!

        Returns
        -------
        count : `int`
            Uploads aborted.
        """
        age = older_than if isinstance(older_than, timedelta) else timedelta(seconds=older_than)
        async with self._borrow("abort_stale_uploads", None) as client:
            return await operations.abort_uploads(client, age)

    # Lifecycle

    def stop_mock(self) -> None:
        """Stop the mock S3 server, if there is one that runs."""
        if self._mock is not None:
            self._mock.stop()

    async def aclose(self) -> None:
        """Close the client, and stop the mock server. Idempotent.

        Transfers under way end with `ClosedError`. Without a mock, the next
        await opens the client afresh. A session that was given stays open.
        """
        try:
            if self._owns_client:
                await self._client.aclose()
        finally:
            self.stop_mock()

    async def __aenter__(self) -> Self:
        async with self._borrow("open", None):
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _borrow(
        self,
        verb: str,
        key: str | None,
        limit: float | None = None,
        *,
        config: TransferConfig | None = None,
        create: bool = True,
        closings: int | None = None,
    ) -> AsyncIterator[BucketClient]:
        """Borrow the client for one verb; name the transfer in what goes wrong."""
        what = RequestInfo(verb, self.name, key, self._client.endpoint_url or "AWS")
        borrowed = self._client.borrow(what, config or self._config, closings=closings)
        async with transfer(what, limit), borrowed as client:
            if self._create and create:
                await operations.create_bucket(client)
                self._create = False
            yield client


class AsyncS3Bucket(S3Bucket):
    """Asynchronous interface to a bucket of an S3 service.

    Making one is synchronous, does no I/O (but see ``domock``) and needs no
    running event loop. The first await opens the client. Close it with
    `aclose` or use it with ``async with``; one that is dropped unclosed is
    silent, and leaks nothing past its event loop.

    Parameters
    ----------
    name : `str`
        The bucket; for a Ceph tenant's, ``tenant:bucket``.
    domock : `bool`, optional
        Start a mock S3 server that holds an empty bucket of this name, and
        use only that, whatever the environment says. The first one in a
        process takes a second, in which the event loop does not run.
    create : `bool`, optional
        Make the bucket on first use, if it does not exist.
    profile : `str`, optional
        A profile in AWS's configuration files.
    session : `S3Session`, optional
        Share this session's client. It is not closed with the bucket.
    config : `TransferConfig`, optional
        How transfers are carried out; by default the session's.

    Raises
    ------
    ValueError
        If the name cannot be that of a bucket, if ``S3_ENDPOINT_URL`` is no
        URL, or if ``session`` is given with ``profile`` or ``domock``.

    Notes
    -----
    The endpoint is ``S3_ENDPOINT_URL`` in the environment, read now; blank or
    unset means AWS's own. Failures raise an `LfaError`; see `lsst_lfa.errors`.
    Tasks may use one bucket at the same time; each event loop needs its own.
    """

    @staticmethod
    def make_bucket_name(salname: str, salindexname: str | None, s3instance: str, s3category: str = "LFA") -> str:
        """Make the name of a component's bucket; see `lsst_lfa.naming.make_bucket_name`."""
        return naming.make_bucket_name(salname, salindexname, s3instance, s3category)

    @staticmethod
    def make_key(salname: str, generator: str, date: Time | str) -> str:
        """Make the key of an item of data; see `lsst_lfa.naming.make_key`."""
        return naming.make_key(salname, generator, date)
