"""Operations that send data."""

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
    """Upload: operations that send data."""

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
        """Upload data, all or nothing.

        Up to ``TransferConfig.multipart_threshold`` bytes are sent in one
        request, more in parallel parts. A failure or a cancellation, at any
        moment, leaves no multipart upload behind.

        Parameters
        ----------
        fileobj : file, bytes-like, `pathlib.Path` or async iterable of bytes
            Binary file objects may be sync (read in threads) or async
            (aiofiles), and are read from their current position to their end.
            They are never closed; if they are seekable, their position is
            restored after a failure. Neither a BytesIO nor a bytes-like object
            is copied: do not modify the latter until this returns.
        key : `str`
            The object's key; an existing object is replaced.
        callback : callable, optional
            Called with the number of bytes sent since its last call, at least
            once on success. The numbers add up to exactly the size; bytes sent
            twice are counted once. May be a plain function, which must not
            block, or a coroutine function. An exception that it raises aborts
            the transfer.
        content_type : `str`, optional
            The MIME type to store. By default it is guessed from the key's
            suffix (for FITS, ECSV, YAML and Parquet, whatever the operating
            system says), otherwise S3's default, ``binary/octet-stream``.
            Compressed files (``.gz``) get the type of the compression, so that
            no client unpacks them on download.
        metadata : mapping of `str` to `str`, optional
            Metadata to store, at most 2 KB; `head` returns it with lower-case
            names. Names may contain letters, digits, "-" and "."; values that
            are not plain ASCII are encoded as S3 does (RFC 2047).
        if_none_match : `bool`, optional
            Never replace an object: if the key exists, raise `KeyExistsError`.
            First a HEAD request looks for the object, which needs permission
            to read it. Then ``If-None-Match: *`` tells the server not to
            replace one, so of two simultaneous uploads one is refused.
            Warning: when a multipart upload is completed, Ceph RGW 16 ignores
            that header, and SeaweedFS only looks for an object, so two uploads
            that end at almost the same time can both succeed.
        extra_args : mapping, optional
            boto3's ``ExtraArgs``: ``ACL``, ``Tagging``, ``StorageClass``,
            ``ServerSideEncryption``, ``SSEKMSKeyId``, ``CacheControl``, ...
            Unknown names are errors. So are those for encryption with a key of
            your own (SSE-C), because this package could not read the object
            back, and those for checksums (see `TransferConfig`).

        Returns
        -------
        url : `str`
            ``{endpoint}/{bucket}/{key}``, not percent-encoded.

        Raises
        ------
        TypeError
            If ``fileobj`` yields text. Nothing was sent.
        ValueError
            If ``key`` is not one that every server accepts (empty, over 1024
            bytes, with control characters, ``.`` or ``..`` segments), or if
            ``metadata`` or ``extra_args`` contains something that cannot be
            stored. Nothing was sent.
        KeyExistsError
            If ``if_none_match`` is set and the key exists; also a
            `FileExistsError`.
        SourceChangedError
            If ``fileobj`` yielded more or fewer bytes than its size announced.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        """
        await self._client.turn()
        naming.check_key(key)
        options = upload_options(key, content_type, metadata, extra_args, if_none_match=if_none_match)
        source, progress = open_source(fileobj), Progress(callback)
        del fileobj  # an error's traceback keeps this frame, perhaps for long, but must not keep the data
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

        Do not modify the list until this returns.
        """
        await self._client.turn()
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

        Objects up to ``TransferConfig.copy_threshold`` (5 GiB) are copied in
        one request, larger ones in parts. The copy is entirely of the version
        that existed at the start, or the call fails.

        Parameters
        ----------
        source : `str`
            The key to copy from.
        key : `str`
            The key of the copy; an existing object is replaced. Use the same
            key as ``source`` to change an object's metadata.
        source_bucket : `str`, optional
            The source's bucket, if it is a different one; it must be on the
            same service.
        content_type, metadata, extra_args
            Values that replace the source's; see `upload`. Everything else is
            kept, except the storage class, the ACL and, for a copy in parts,
            the tags, which are those of a new object.

        Returns
        -------
        url : `str`
            The copy's URL.

        Raises
        ------
        KeyNotFoundError
            If the source does not exist.
        ObjectChangedError
            If the source was replaced during the copy. Warning: Ceph RGW 16
            ignores the condition, so ``key`` may then hold the newer version.
        LfaError
            If the request failed; see `lsst_lfa.errors`.
        """
        await self._client.turn()
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
        """Upload all files in a folder and its subfolders; their relative paths become their keys.

        Call it again after a failure: it continues with the files that are
        still missing.

        Parameters
        ----------
        folder : path-like
            The folder. Symbolic links to folders, or to anything outside it,
            are reported as failures. Empty folders are ignored.
        prefix : `str`, optional
            The folder in the bucket, with or without a trailing "/".
        callback : callable, optional
            Progress over all files; see `upload`. Skipped files are not
            counted; a file that fails counts for the bytes sent before it
            failed.
        skip_equal : `bool`, optional
            Skip files that already exist with the same size and, by the ETag,
            the same content.
        if_none_match : `bool`, optional
            Never replace an object: a file whose key exists is a failure; see
            `upload`.
        max_files : `int`, optional
            Maximum number of files sent in parallel. Together they use no more
            memory than a single upload.
        extra_args : mapping, optional
            For each file; see `upload`. Content types are guessed from the
            names.

        Returns
        -------
        summary : `FolderSummary`
            How many files were transferred and skipped, and which failed: a
            file that cannot be read or sent does not stop the others.

        Raises
        ------
        OSError
            If the folder cannot be read.
        LfaError
            If the problem affects every file: the server cannot be reached,
            the bucket does not exist, the credentials are wrong, the quota is
            exhausted.
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
