"""Verbs that fetch data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lsst_lfa import fits, naming
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.download import S3RangeReader, download, stream, verify
from lsst_lfa._transfer.files import make_folder, safe_join
from lsst_lfa._transfer.operations import head
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.sinks import FileSink, MemorySink

from .base import BucketBase

if TYPE_CHECKING:
    import io
    import os
    from collections.abc import AsyncGenerator

    from astropy.io.fits import HDUList

    from lsst_lfa._transfer.progress import Callback

__all__ = ["DownloadVerbs"]


class DownloadVerbs(BucketBase):
    """Download."""

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
        async with self._borrow("download", key) as client:
            size = (await head(client, key)).size
        if size:
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
