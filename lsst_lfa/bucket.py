"""`AsyncS3Bucket`: the verbs, each a few lines over the engines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from botocore.exceptions import BotoCoreError

from . import _fits, naming, objects
from .errors import KeyNotFoundError, LfaError, TransferTimeoutError
from .mock import MockS3Server
from .objects import ObjectInfo
from .resource import service_resource
from .session import S3Session
from .transfer.diagnosis import Request, diagnose
from .transfer.download import Version, download, stream
from .transfer.progress import Progress
from .transfer.requests import Requests
from .transfer.sinks import FileSink, MemorySink, inside
from .transfer.sources import open_source
from .transfer.tasks import in_thread
from .transfer.upload import upload
from .transfer.verify import check_etag

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType

    from astropy.io.fits import HDUList
    from astropy.time import Time

    from .config import TransferConfig
    from .transfer.progress import Callback

__all__ = ["AsyncS3Bucket", "ObjectInfo", "S3Bucket"]


class S3Bucket:
    """What a bucket can do, whatever scheme makes its name and keys; see `AsyncS3Bucket`."""

    def __init__(
        self,
        name: str,
        domock: bool = False,  # noqa: FBT001, FBT002 - specified so
        *,
        create: bool = False,
        profile: str | None = None,
        session: S3Session | None = None,
        config: TransferConfig | None = None,
    ) -> None:
        naming.check_bucket(name)
        if session is not None and (profile is not None or domock):
            msg = "a session has its own profile and endpoint: give either it, or profile or domock"
            raise ValueError(msg)
        self.name = name
        self.profile = profile
        self._mock = MockS3Server() if domock else None
        self._owns_session = session is None
        self._session = session or self._make_session(config)
        self._config = config or self._session.config
        self._create = create

    def _make_session(self, config: TransferConfig | None) -> S3Session:
        if self._mock is None:
            return S3Session(profile=self.profile, config=config)
        self._mock.start()
        try:
            self._mock.create_bucket(self.name)
        except BaseException:
            self._mock.stop()
            raise
        return S3Session.for_mock(self._mock, config)

    def __repr__(self) -> str:
        return f"AsyncS3Bucket({self.name!r}, session={self._session!r})"

    @cached_property
    def service_resource(self) -> Any:
        """boto3's synchronous ``ServiceResource`` on the same service; made on first access.

        Hazard: making it blocks for 0.1 to 0.2 s, and so does each request.
        """
        return service_resource(self._session.settings)

    @cached_property
    def bucket(self) -> Any:
        """boto3's synchronous ``Bucket``; see `service_resource`."""
        return self.service_resource.Bucket(self.name)

    # Up

    async def upload(self, fileobj: object, key: str, callback: Callback | None = None) -> str:
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
        async with self._requests("upload", key, self._config.deadline) as requests:
            await upload(requests, key, source, progress)
        return self.url(key)

    async def upload_fits(self, hdulist: HDUList, key: str, callback: Callback | None = None) -> str:
        """Upload an `astropy.io.fits.HDUList`, serialised in a thread; see `upload`.

        Do not change it meanwhile.
        """
        naming.check_key(key)
        return await self.upload(await _fits.dump(hdulist), key, callback)

    # Down

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
            If ``TransferConfig.verify`` is set and the data are not those
            that the object's ETag stands for.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        progress, sink = Progress(callback), MemorySink()
        async with self._requests("download", key, self._config.deadline) as requests:
            try:
                version = await download(requests, key, sink, progress)
                await self._verify(version, sink)
            finally:
                sink.close()
        return sink.file

    async def download_file(
        self,
        key: str,
        path: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
        *,
        into: str | os.PathLike[str] | None = None,
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
        into : path-like, optional
            Instead of ``path``: the folder in which the key is the path.
            Folders on the way are made; it is never left.

        Returns
        -------
        path : `pathlib.Path`
            The file.

        Raises
        ------
        OSError
            If the file cannot be written there.
        LfaError
            As `download`.
        """
        naming.check_key(key)
        if (path is None) == (into is None):
            msg = "give either path or into"
            raise TypeError(msg)
        progress = Progress(callback)
        target = Path(path) if path is not None else await in_thread(inside, Path(into or ""), key)
        sink = FileSink(target)
        async with self._requests("download", key, self._config.deadline) as requests:
            try:
                await sink.create()
                version = await download(requests, key, sink, progress)
                await self._verify(version, sink)
                await sink.commit()
            finally:
                await sink.discard()
        return target

    async def _verify(self, version: Version, sink: MemorySink | FileSink) -> None:
        if self._config.verify and version.size:
            what = f"download of s3://{self.name}/{version.key}"
            await in_thread(check_etag, what, version.etag, version.size, self._config.part_size, sink.read)

    async def download_fits(self, key: str, callback: Callback | None = None) -> HDUList:
        """Download an `astropy.io.fits.HDUList`, read in a thread and complete; see `download`."""
        return await _fits.load(await self.download(key, callback))

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
        return stream(lambda: self._requests("stream", key), key, self._config)

    # Asking

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
        async with self._requests("head", key) as requests:
            return await objects.head(requests, key)

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
            async with self._requests("list", None) as requests:
                page, token = await objects.list_page(requests, prefix, token)
            for item in page:
                yield item

    async def check(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a health check's own bound
        """Make sure that the bucket can be reached and read, within ``timeout`` seconds.

        Raises
        ------
        LfaError
            What is wrong, and what helps.
        """
        async with self._requests("check", None, timeout) as requests:
            requests.config = replace(self._config, attempts=1)
            await requests.call("list_objects_v2", MaxKeys=1)

    def url(self, key: str) -> str:
        """Return an object's URL, ``{endpoint}/{bucket}/{key}``, unquoted. It holds no credentials."""
        return naming.object_url(self._endpoint_url, self.name, naming.check_key(key))

    @property
    def _endpoint_url(self) -> str:
        known = self._session.endpoint_url
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
        async with self._requests("presign", key) as requests:
            return str(
                await requests.client.generate_presigned_url(
                    f"{method}_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=seconds
                )
            )

    # Housekeeping

    async def delete(self, key: str) -> None:
        """Delete an object; no error if there is none."""
        naming.check_key(key)
        async with self._requests("delete", key) as requests:
            await requests.call("delete_object", key)

    async def create(self) -> None:
        """Make the bucket; no error if it is there and ours.

        Raises
        ------
        BucketTakenError
            If it belongs to somebody else.
        """
        async with self._requests("create", None) as requests:
            await objects.create_bucket(requests)

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
        async with self._requests("abort_stale_uploads", None) as requests:
            return await objects.abort_uploads(requests, age)

    # Life

    def stop_mock(self) -> None:
        """Stop the mock S3 server, if there is one that runs."""
        if self._mock is not None:
            self._mock.stop()

    async def aclose(self) -> None:
        """Close the client, and stop the mock server. Idempotent.

        Transfers under way end with `ClosedError`. Without a mock, the next
        await opens the client afresh. A session that was given stays open.
        """
        if self._owns_session:
            await self._session.aclose()
        self.stop_mock()

    async def __aenter__(self) -> Self:
        async with self._requests("open", None):
            return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _requests(self, verb: str, key: str | None, limit: float | None = None) -> AsyncIterator[Requests]:
        """Borrow the client for one verb; name the transfer in what goes wrong."""
        what = Request(verb, self.name, key, self._session.endpoint_url or "AWS")
        try:
            async with asyncio.timeout(limit) as scope, self._session.connection() as connection:
                requests = Requests(*connection, self.name, self._config)
                if self._create:
                    await objects.create_bucket(requests)
                    self._create = False
                yield requests
        except LfaError:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and scope.expired():
                msg = f"{what} failed: it took more than {limit} s"
                raise TransferTimeoutError(msg) from None
            if isinstance(error, BotoCoreError) and (failure := diagnose(error, what)) is not None:
                raise failure from error
            error.add_note(f"raised during the {what}")
            raise


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
