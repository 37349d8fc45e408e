"""Verbs that send data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsst_lfa import fits, naming
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.sources import open_source
from lsst_lfa._transfer.stored import upload_options
from lsst_lfa._transfer.upload import upload

from .base import BucketBase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.io.fits import HDUList

    from lsst_lfa._transfer.progress import Callback
    from lsst_lfa._transfer.sources import Uploadable

__all__ = ["UploadVerbs"]


class UploadVerbs(BucketBase):
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
            do not change a bytes-like object meanwhile.
        key : `str`
            The object's key; an object that has it already is replaced.
        callback : callable, optional
            Called with the number of bytes sent since its last call: at least
            once on success, summing up to the size exactly; bytes sent again
            are not counted again. A function, which must not block, or a
            coroutine function. What it raises ends the transfer.
        content_type : `str`, optional
            The MIME type to store. By default it is guessed by the key's end,
            without the operating system having a say in FITS, ECSV, YAML and
            Parquet; S3's own ``binary/octet-stream`` where that says nothing.
            What is compressed as a whole (``.gz``) has the compressed file's
            type, so that nothing on its way down unpacks it.
        metadata : mapping of `str` to `str`, optional
            What to store as metadata, 2 KB at most; `head` gives it back with
            names in lower case. Names have letters, digits, "-" and "."; values
            that are not plain ASCII are encoded as S3 does (RFC 2047).
        if_none_match : `bool`, optional
            Never replace an object: if there is one with this key, raise
            `KeyExistsError`. It is looked for first (HEAD), which needs the
            permission to read it; then the server is told not to replace one
            (``If-None-Match: *``), of two that upload at the same time it
            refuses one. Hazard: Ceph RGW 16 does not hear that when an upload
            in parts is completed: there two of them can both succeed, if they
            end within the time of one request.
        extra_args : mapping, optional
            boto3's ``ExtraArgs`` by their names: ``ACL``, ``Tagging``,
            ``StorageClass``, ``ServerSideEncryption``, ``SSEKMSKeyId``,
            ``CacheControl``, ... An unknown one is an error; so are those of
            encryption with a key of your own (SSE-C), with which nothing here
            could read it, and of checksums (see `TransferConfig`).

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
            If ``fileobj`` gave another number of bytes than it promised.
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

        Do not change it meanwhile.
        """
        naming.check_key(key)
        if content_type is None and "ContentType" not in (extra_args or {}):
            content_type = "application/fits"
        return await self.upload(
            await fits.dump(hdulist),
            key,
            callback,
            content_type=content_type,
            metadata=metadata,
            if_none_match=if_none_match,
            extra_args=extra_args,
        )
