"""Verbs that send data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsst_lfa import _fits, naming
from lsst_lfa._transfer.concurrency import in_thread
from lsst_lfa._transfer.copy import copy
from lsst_lfa._transfer.folders import check_max_files, folder_prefix, upload_files, walk
from lsst_lfa._transfer.object_options import copy_options, upload_options
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.sources import open_source
from lsst_lfa._transfer.upload import upload

from .base import BucketBase

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from astropy.io.fits import HDUList

    from lsst_lfa._transfer.folders import FolderSummary, LocalFile
    from lsst_lfa._transfer.progress import Callback
    from lsst_lfa._transfer.sources import Uploadable

__all__ = ["Uploads"]


class Uploads(BucketBase):
    """Upload."""

    async def upload(
        self,
        fileobj: Uploadable,
        key: str,
        callback: Callback | None = None,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        extra_args: Mapping[str, Any] | None = None,
    ) -> str:
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
            do not change a bytes-like object until this
            returns.
        key : `str`
            The object's key; an object that has it already is replaced.
        callback : callable, optional
            Called with the number of bytes sent since its last call, at least
            once on success. The numbers add up to the size exactly; bytes sent
            again are not counted again. A function, which must not block, or a
            coroutine function. What it raises ends the transfer.
        content_type : `str`, optional
            The MIME type to store. By default it is guessed from the key's
            suffix (for FITS, ECSV, YAML and Parquet, whatever the operating
            system says), or else is S3's own ``binary/octet-stream``. What is
            compressed as a whole (``.gz``) gets the type of its compression, so
            that nothing unpacks it on the way down.
        metadata : mapping of `str` to `str`, optional
            What to store as metadata, 2 KB at most; `head` returns it with
            names in lower case. Names have letters, digits, "-" and "."; values
            that are not plain ASCII are encoded as S3 does (RFC 2047).
        if_none_match : `bool`, optional
            Never replace an object: if there is one with this key, raise
            `KeyExistsError`. First a HEAD looks for one, which needs permission
            to read it; then the server is told not to replace one
            (``If-None-Match: *``), so it refuses one of two uploads at the same
            time. Hazard: when an upload in parts is completed, Ceph RGW 16
            ignores that and SeaweedFS only looks for an object, so that two of
            them can both succeed, if they end within the time of one request.
        extra_args : mapping, optional
            boto3's ``ExtraArgs`` by their names: ``ACL``, ``Tagging``,
            ``StorageClass``, ``ServerSideEncryption``, ``SSEKMSKeyId``,
            ``CacheControl``, ... An unknown one is an error; so are those for
            encryption with a key of your own (SSE-C), which nothing here could
            read back, and for checksums (see `TransferConfig`).

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
            bytes, with control characters or ``..`` segments; or if
            ``metadata`` or ``extra_args`` has what cannot be stored. Nothing
            was sent.
        KeyExistsError
            If ``if_none_match`` is set and there is such an object; it is a
            `FileExistsError` too.
        SourceChangedError
            If ``fileobj`` gave a different number of bytes than it promised.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        options = upload_options(key, content_type, metadata, extra_args, if_none_match=if_none_match)
        source, progress = open_source(fileobj), Progress(callback)
        async with self._borrow("upload", key, self._config.total_timeout) as client:
            await upload(client, key, source, progress, options)
        return self.url(key)

    async def upload_fits(
        self,
        hdulist: HDUList,
        key: str,
        callback: Callback | None = None,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        extra_args: Mapping[str, Any] | None = None,
    ) -> str:
        """Upload an `astropy.io.fits.HDUList`, serialised in a thread; see `upload`.

        Do not change it until this returns.
        """
        naming.check_key(key)
        if content_type is None and "ContentType" not in (extra_args or {}):
            content_type = "application/fits"
        return await self.upload(
            await _fits.dump(hdulist),
            key,
            callback,
            content_type=content_type,
            metadata=metadata,
            if_none_match=if_none_match,
            extra_args=extra_args,
        )

    async def copy(
        self,
        source: str,
        key: str,
        *,
        source_bucket: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        extra_args: Mapping[str, Any] | None = None,
    ) -> str:
        """Copy an object within the service, without downloading it.

        Up to ``TransferConfig.copy_threshold`` bytes (5 GiB) are copied in one
        request, more in parts. All of it is of the version that is there at
        the start, or there is no copy.

        Parameters
        ----------
        source : `str`
            The key to copy from.
        key : `str`
            The key of the copy; an object that has it already is replaced.
            The same as ``source`` to change what is stored with an object.
        source_bucket : `str`, optional
            The source's bucket, if it is another one of this service.
        content_type, metadata, extra_args
            What replaces that of the source; see `upload`. The rest is kept,
            except that the storage class and the ACL, and in parts the tags,
            are those of a new object.

        Returns
        -------
        url : `str`
            The copy's URL.

        Raises
        ------
        KeyNotFoundError
            If there is no such source.
        ObjectChangedError
            If the source was replaced meanwhile. Hazard: Ceph RGW 16 ignores
            the condition; then ``key`` may hold the newer version.
        LfaError
            If the service failed; see `lsst_lfa.errors`.
        """
        naming.check_key(key)
        naming.check_key(source)
        source_bucket = self.name if source_bucket is None else naming.check_bucket(source_bucket)
        options = copy_options(content_type, metadata, extra_args)
        async with self._borrow("copy", key, self._config.total_timeout) as client:
            await copy(client, source_bucket, source, key, options)
        return self.url(key)

    async def upload_folder(
        self,
        folder: str | os.PathLike[str],
        prefix: str = "",
        callback: Callback | None = None,
        *,
        skip_equal: bool = True,
        if_none_match: bool = False,
        max_files: int = 16,
        extra_args: Mapping[str, Any] | None = None,
    ) -> FolderSummary:
        """Upload all files below a folder; their paths in it become their keys.

        Call it again after a failure: it continues with what is not there yet.

        Parameters
        ----------
        folder : path-like
            The folder, with all folders below it. Symbolic links to folders,
            or to anything outside it, are failures. Empty folders leave no
            trace.
        prefix : `str`, optional
            The folder in the bucket, with or without "/" at its end.
        callback : callable, optional
            Progress over all files; see `upload`. Skipped files are not
            counted; one that fails counts as far as it got.
        skip_equal : `bool`, optional
            Skip what is there with the same size and, by its ETag, content.
        if_none_match : `bool`, optional
            Never replace an object: a file whose key is taken is a failure; see `upload`.
        max_files : `int`, optional
            Files under way at a time. All together hold no more memory than
            one upload may.
        extra_args : mapping, optional
            For each file; see `upload`. Content types are guessed by the names.

        Returns
        -------
        summary : `FolderSummary`
            How many were transferred and skipped, and what failed: a file that
            cannot be read or sent does not stop the others.

        Raises
        ------
        OSError
            If the folder cannot be read.
        LfaError
            If what went wrong concerns all files: no server, no such bucket,
            wrong credentials, no quota left.
        """
        root: Path = await in_thread(Path(folder).resolve, strict=True)
        return await self._upload_files(
            walk(root),
            folder_prefix(prefix),
            callback,
            skip_equal=skip_equal,
            if_none_match=if_none_match,
            max_files=max_files,
            extra_args=extra_args,
        )

    async def _upload_files(
        self,
        files: Iterator[LocalFile],
        prefix: str,
        callback: Callback | None,
        *,
        max_files: int,
        extra_args: Mapping[str, Any] | None,
        **options: Any,
    ) -> FolderSummary:
        progress = Progress(callback)
        check_max_files(max_files)
        upload_options("k", None, None, extra_args, if_none_match=False)
        async with self._borrow("upload_folder", None) as client:
            work = upload_files(client, files, prefix, progress, max_files=max_files, extra_args=extra_args, **options)
            summary = await progress.follow(work)
            await progress.finish()
            return summary
