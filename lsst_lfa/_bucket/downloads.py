"""Operations that fetch data."""

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
from lsst_lfa._transfer.sinks import MemorySink, new_file

from .base import BucketBase

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from astropy.io.fits import HDUList, Header

    from lsst_lfa._transfer.folders import FolderSummary
    from lsst_lfa._transfer.progress import Callback
    from lsst_lfa._transfer.reader import ObjectReader

__all__ = ["Downloads"]


class Downloads(BucketBase):
    """Download: operations that fetch data."""

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
            Download only bytes ``start`` to ``stop - 1``, like a slice: fewer
            if the object ends earlier. A part cannot be verified against the
            object's ETag.

        Returns
        -------
        fileobj : `io.BytesIO`
            The data, at position 0.

        Raises
        ------
        KeyNotFoundError
            If there is no such object; also a `FileNotFoundError`.
        ObjectChangedError
            If the object was replaced during the download.
        IntegrityError
            If ``TransferConfig.verify_etag`` is set and the data do not match
            the object's ETag.
        UnverifiableError
            If ``verify_etag`` is set, but the ETag is not a digest of the
            data.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        TypeError, ValueError
            If ``start`` and ``stop`` do not form a valid range.
        """
        await self._client.turn()
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

        The reader has ``read``, ``seek``, ``tell`` and ``size``. It reads only
        the version of the object that was opened; if that is replaced, it
        raises `ObjectChangedError`. Sequential reads are prefetched, by at most
        4 MiB; see `ObjectReader`.

        Raises
        ------
        KeyNotFoundError
            If there is no such object.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        return open_reader(self._borrow_repeatedly("open", key), key)

    async def download_file(
        self,
        key: str,
        path: str | os.PathLike[str] | None = None,
        callback: Callback | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Download an object to a file, all or nothing, even after a crash.

        The data go to a temporary file in the same folder, which is flushed to
        disk and then renamed to the destination. Its mode follows the umask. A
        symbolic link at the destination is replaced, not followed.

        Parameters
        ----------
        key : `str`
            The object's key.
        path : path-like, optional
            The destination; an existing regular file is replaced.
        callback : callable, optional
            See `download`.
        directory : path-like, optional
            Instead of ``path``: a folder in which the key is the relative
            path. Missing folders are created; nothing is written outside it.
            An empty object whose key ends with "/" becomes a folder.

        Returns
        -------
        path : `pathlib.Path`
            The file.

        Raises
        ------
        OSError
            If the file cannot be written there.
        ValueError
            If the key is not a usable path in ``directory``: it has empty
            segments, such as ``x//y``, or a symbolic link leads outside.
        LfaError
            As for `download`.
        """
        await self._client.turn()
        naming.check_key(key)
        if (path is None) == (directory is None):
            msg = "pass either path or directory"
            raise TypeError(msg)
        progress = Progress(callback)
        # At the start: the working directory may be another one later.
        base: Path = await in_thread(Path(path or directory or "").absolute)
        if directory is not None and key.endswith("/"):
            return await self._download_marker(key, base, progress)
        target = base if directory is None else await in_thread(safe_join, base, key)
        async with self._borrow("download", key, self._config.total_timeout) as client, new_file(target) as sink:
            reader = S3RangeReader(client, key)
            pinned = await download(reader, sink, progress)
            await verify(reader, pinned, sink)
        return target

    async def _download_marker(self, key: str, directory: Path, progress: Progress) -> Path:
        """Create the folder that an empty object represents."""
        async with self._borrow("download", key) as client:
            size = (await head(client, key)).size
        if size:
            msg = f"key {key!r} is that of a folder, but the object is not empty: pass path instead of directory"
            raise ValueError(msg)
        folder: Path = await in_thread(make_folder, directory, key)
        await progress.finish()
        return folder

    async def download_fits(
        self, key: str, callback: Callback | None = None, *, hdus: Sequence[int | str | tuple[str, int]] | None = None
    ) -> HDUList:
        """Download an `astropy.io.fits.HDUList`, which a thread reads completely; see `download`.

        Parameters
        ----------
        key : `str`
            The object's key.
        callback : callable, optional
            See `download`.
        hdus : sequence, optional
            Download only these HDUs, by number, name, or name and version, as
            in ``hdulist[...]``. The headers of other HDUs are read only as far
            as needed to find these; their data are not downloaded. The result
            contains each requested HDU once, in the requested order. If the
            first is an extension, astropy puts an empty primary HDU before it
            when the list is written.

        Raises
        ------
        TypeError, ValueError
            If ``hdus`` is not a sequence of HDUs, or is empty.
        LookupError
            If there is no such HDU.
        OSError
            If the object is not a FITS file, or is truncated; with ``hdus``,
            also if the whole file is compressed (``.fits.gz``).
        LfaError
            As for `download`.
        """
        if hdus is None:
            return await _fits.load(await self.download(key, callback))
        naming.check_key(key)
        wanted = check_hdus(hdus)
        progress = Progress(callback)
        async with open_reader(self._borrow_repeatedly("download", key), key, progress.advance) as reader:
            hdulist = await progress.follow(read_hdus(reader, wanted))
            await progress.finish()
            return hdulist

    async def fits_headers(self, key: str) -> list[Header]:
        """Return all headers of a FITS file, without reading its data.

        The result is a list of `astropy.io.fits.Header`, equal to those of
        ``astropy.io.fits.open``. It takes a HEAD request and then, one after
        another, a request of 28 KiB for each HDU: fewer if HDUs are short,
        more if a header has over 360 cards.

        Raises
        ------
        OSError
            If the object is not a FITS file, or the whole file is compressed
            (``.fits.gz``).
        LfaError
            As for `download`.
        """
        async with self.open(key) as reader:
            return await read_headers(reader)

    def stream(self, key: str) -> ByteStream:
        """Iterate over an object's bytes, in order.

        ::

            async with bucket.stream(key) as chunks:
                async for chunk in chunks:
                    ...

        Prefetches at most ``max_concurrency`` requests and ``max_memory``
        bytes. When the block ends, for whatever reason, nothing is left
        running. A plain ``async for chunk in bucket.stream(key)`` is enough if
        it runs to the end.

        Returns
        -------
        chunks : `ByteStream`
            An async iterator of `bytes`, in chunks of any length; also an
            async context manager, which closes it.
        """
        naming.check_key(key)
        return ByteStream(stream(self._borrow_repeatedly("stream", key), key, self._config))

    async def download_folder(
        self,
        prefix: str,
        folder: str | os.PathLike[str],
        callback: Callback | None = None,
        *,
        skip_equal: bool = True,
        max_files: int = 16,
    ) -> FolderSummary:
        """Download all objects of a folder in the bucket; the rest of each key becomes the file's path.

        Each file is either complete or absent, and all are flushed to disk
        before this returns. (If the machine crashes before that, files of up
        to 1 MiB may be empty, which the next call detects.) A key whose path
        would leave the folder, or is not a usable path (``x//y``), is reported
        as a failure. Call it again to fetch what is new.

        Parameters
        ----------
        prefix : `str`
            The folder in the bucket, with or without a trailing "/"; "" for
            the whole bucket.
        folder : path-like
            The destination; it is created if it does not exist.
        callback, skip_equal, max_files
            See `upload_folder`.

        Returns
        -------
        summary : `FolderSummary`
            How many files were transferred and skipped, and which failed.

        Raises
        ------
        OSError
            If the folder cannot be created.
        LfaError
            If the problem affects every file; see `upload_folder`.
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
