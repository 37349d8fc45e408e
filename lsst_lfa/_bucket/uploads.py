"""Verbs that send data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lsst_lfa import fits, naming
from lsst_lfa._transfer.progress import Progress
from lsst_lfa._transfer.sources import open_source
from lsst_lfa._transfer.upload import upload

from .base import BucketBase

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

    from lsst_lfa._transfer.progress import Callback
    from lsst_lfa._transfer.sources import Uploadable

__all__ = ["UploadVerbs"]


class UploadVerbs(BucketBase):
    """Upload."""

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
