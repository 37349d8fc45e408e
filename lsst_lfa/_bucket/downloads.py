"""Verbs that fetch data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsst_lfa import _fits, naming
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.download import download, stream, verify
from lsst_lfa._transfer.files import make_folder, safe_join
from lsst_lfa._transfer.fits_ranges import check_hdus, read_hdus, read_headers
from lsst_lfa._transfer.folders import check_max_files, download_folder, folder_prefix
from lsst_lfa._transfer.operations import head
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.ranges import S3RangeReader
from lsst_lfa._transfer.reader import ByteStream, check_range, download_range, open_reader
from lsst_lfa._transfer.sinks import FileSink, MemorySink

from .base import BucketBase

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from astropy.io.fits import HDUList, Header

    from lsst_lfa._transfer.attempts import BucketClient
    from lsst_lfa._transfer.folders import FolderSummary
    from lsst_lfa._transfer.progress import Callback
    from lsst_lfa._transfer.reader import ObjectReader

__all__ = ["Downloads"]


class Downloads(BucketBase):
    """Download."""

    async def download(
        self, key: str, callback: Callback | None = None, *, start: int = 0, stop: int | None = None
    ) -> io.BytesIO:
        """Download an object, or a part of it, into memory.

        Parameters
        ----------
        key : `str`
            The object's key.
        callback : callable, optional
            Called with the number of bytes received since its last call; see
            `upload`.
        start, stop : `int`, optional
            Download bytes ``start`` to ``stop - 1`` only, as a slice would:
            fewer if the object ends earlier. A part cannot be verified by the
            object's ETag.

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
            If it is set, and the ETag is not a digest of the data.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        TypeError, ValueError
            If ``start`` and ``stop`` are not a range of bytes.
        """
        naming.check_key(key)
        start, stop = check_range(start, stop)
        progress, sink = Progress(callback), MemorySink()
        async with self._borrow("download", key, self._config.total_timeout) as client:
            try:
                if start or stop is not None:
                    await download_range(client, key, sink, progress, start=start, stop=stop)
                    return sink.file
                reader = S3RangeReader(client, key)
                pinned = await download(reader, sink, progress)
                await verify(reader, pinned, sink)
            finally:
                sink.close()
        return sink.file

    async def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes ``start`` to ``stop - 1`` of an object; see `download`."""
        return (await self.download(key, start=start, stop=stop)).getvalue()

    def open(self, key: str) -> AbstractAsyncContextManager[ObjectReader]:
        """Open an object for reading, like a file.

        ::

            async with bucket.open(key) as file:
                await file.seek(-2880, os.SEEK_END)
                block = await file.read()

        The reader has ``read``, ``seek``, ``tell`` and ``size``. Everything it
        reads is of one version of the object, the one that was opened: if that
        is replaced, `ObjectChangedError` is raised. Sequential reads are read
        ahead, by at most 4 MiB; see `ObjectReader`.

        Raises
        ------
        KeyNotFoundError
            If there is no such object.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        return open_reader(self._borrow_for_reading("open", key), key)

    def _borrow_for_reading(self, verb: str, key: str) -> Callable[[], AbstractAsyncContextManager[BucketClient]]:
        """Return what borrows the client for each request; after `aclose`, it is over."""
        closings = self._client.closings
        return lambda: self._borrow(verb, key, closings=closings)

    async def download_file(
        self,
        key: str,
        path: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Download an object to a file: all of it or nothing, even after a crash.

        The data go to a temporary file in the same folder, which is flushed to
        disk and then takes the destination's name. Its mode follows the
        umask. A symbolic link at the destination is replaced, not followed.

        Parameters
        ----------
        key : `str`
            The object's key.
        path : path-like, optional
            The destination. A regular file is replaced.
        callback : callable, optional
            See `download`.
        directory : path-like, optional
            Instead of ``path``: the folder in which the key is the path.
            Missing folders are made; nothing is written outside it. An empty object
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
            segments, such as ``x//y``, or a symbolic link leads out.
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
        async with self._borrow("download", key) as client:
            size = (await head(client, key)).size
        if size:
            msg = f"key={key!r} ends as a folder's, but the object has data: give a path instead"
            raise ValueError(msg)
        folder: Path = await in_thread(make_folder, directory, key)
        await progress.finish()
        return folder

    async def download_fits(
        self, key: str, callback: Callback | None = None, *, hdus: Sequence[int | str | tuple[str, int]] | None = None
    ) -> HDUList:
        """Download an `astropy.io.fits.HDUList`, read completely, in a thread; see `download`.

        Parameters
        ----------
        key : `str`
            The object's key.
        callback : callable, optional
            See `download`.
        hdus : sequence, optional
            Download these HDUs only, by number, name, or name and version, as
            ``hdulist[...]`` takes them. Other HDUs' headers are read as far as
            it takes to find these; their data are not. The list has each of
            them once, in this order; if the first one is an extension, astropy
            puts an empty primary HDU before it when the list is written.

        Raises
        ------
        TypeError, ValueError
            If ``hdus`` is no list of HDUs, or empty.
        LookupError
            If there is no such HDU.
        OSError
            If it is not a FITS file, or is truncated; with ``hdus``, also
            if it is compressed as a whole (``.fits.gz``).
        LfaError
            As `download`.
        """
        if hdus is None:
            return await _fits.load(await self.download(key, callback))
        naming.check_key(key)
        wanted = check_hdus(hdus)
        progress = Progress(callback)
        async with open_reader(self._borrow_for_reading("download", key), key, progress.advance) as reader:
            hdulist = await progress.follow(read_hdus(reader, wanted))
            await progress.finish()
            return hdulist

    async def fits_headers(self, key: str) -> list[Header]:
        """Return all headers of a FITS file, without reading its data.

        They are `astropy.io.fits.Header`, equal to those of ``astropy.io.fits.open``.
        It takes a HEAD and, one after another, a request of 28 KiB for each
        HDU: fewer where HDUs are short, more where a header has over 360 cards.

        Raises
        ------
        OSError
            If it is not a FITS file, or is compressed as a whole
            (``.fits.gz``).
        LfaError
            As `download`.
        """
        async with self.open(key) as reader:
            return await read_headers(reader)

    def stream(self, key: str) -> ByteStream:
        """Iterate over an object's bytes, in order.

        ::

            async with bucket.stream(key) as chunks:
                async for chunk in chunks:
                    ...

        Reads ahead by at most ``max_concurrency`` requests and ``max_memory``
        bytes. After the block nothing is under way, however it ended. A plain
        ``async for chunk in bucket.stream(key)`` will do, if it runs to the end.

        Returns
        -------
        chunks : `ByteStream`
            An async iterator of `bytes`, in chunks of any length, and an async
            context manager that closes it.
        """
        naming.check_key(key)
        return ByteStream(stream(self._borrow_for_reading("stream", key), key, self._config))

    async def download_folder(
        self,
        prefix: str,
        folder: str | os.PathLike[str],
        callback: Callback | None = None,
        *,
        skip_equal: bool = True,
        max_files: int = 16,
    ) -> FolderSummary:
        """Download all objects of a folder in the bucket; the rest of their keys becomes their paths.

        Each file is there whole or not at all; all are on the disk at the end.
        (If the machine itself crashes before, files of up to 1 MiB may be
        empty, which the next call sees.) A key whose path would leave the
        folder, or that has none of its own there (``x//y``), is a failure.
        Call it again to fetch what is new.

        Parameters
        ----------
        prefix : `str`
            The folder in the bucket, with or without "/" at its end; "" for
            the whole bucket.
        folder : path-like
            The destination; it is made, if it is not there.
        callback, skip_equal, max_files
            See `upload_folder`.

        Returns
        -------
        summary : `FolderSummary`
            How many were transferred and skipped, and what failed.

        Raises
        ------
        OSError
            If the folder cannot be made.
        LfaError
            If what went wrong concerns all files; see `upload_folder`.
        """
        return await self._download_folder(prefix, folder, callback, skip_equal=skip_equal, max_files=max_files)

    async def _download_folder(
        self, prefix: str, folder: str | os.PathLike[str], callback: Callback | None, *, max_files: int, **options: Any
    ) -> FolderSummary:
        progress = Progress(callback)
        path: Path = await in_thread(Path(folder).absolute)
        check_max_files(max_files)
        async with self._borrow("download_folder", None) as client:
            work = download_folder(client, folder_prefix(prefix), path, progress, max_files=max_files, **options)
            summary = await progress.follow(work)
            await progress.finish()
            return summary
