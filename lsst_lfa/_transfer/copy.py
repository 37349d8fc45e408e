"""The copy engine: the server copies, in one request or in parts, and no data are downloaded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lsst_lfa.errors import LfaError, ObjectChangedError

from .concurrency import task_group
from .object_options import CopyOptions, UploadOptions
from .operations import head_response
from .plan import MiB, part_sizes
from .progress import Progress
from .responses import etag_of, object_info, require_field, strong_etag
from .upload import MultipartUpload

if TYPE_CHECKING:
    from .attempts import BucketClient

__all__ = ["copy"]

# A server says nothing while it copies. It takes a second for so many bytes, or it is not worth waiting for.
_SLOWEST = 16 * MiB
# Parallel parts, which share the server's disks. (Eleven of 512 MiB each took Ceph more than 42 s.)
_AT_ONCE = 4


async def copy(client: BucketClient, source_bucket: str, source: str, key: str, options: CopyOptions) -> None:
    """Copy the current version of an object within a service.

    Raises
    ------
    ObjectChangedError
        If the source was replaced during the copy.
    """
    origin = await _Source.find(replace(client, bucket=source_bucket), source)
    if origin.size > client.config.copy_threshold:
        origin.require_safe_name()
        params = options.params_for_new(origin.head)
        await _MultipartCopy(client, key, UploadOptions(params=params), origin).copy()
        return
    response = await client.call(
        "copy_object",
        key,
        extra_timeout=origin.size / _SLOWEST,
        **origin.params,
        **options.params_for_copy(origin.head),
    )
    copied = require_field(client.info("copy_object", key), response["CopyObjectResult"], "ETag", str)
    # Where they are equal it was this version; else a server may have its reasons, or not know the condition.
    if copied.strip('"') != etag_of(origin.head) and (source_bucket, source) != (client.bucket, key):
        await origin.require_unchanged()


@dataclass(frozen=True)
class _Source:
    """The version of an object that is copied."""

    client: BucketClient
    key: str
    head: dict[str, Any]
    size: int

    @classmethod
    async def find(cls, client: BucketClient, key: str) -> _Source:
        head = await head_response(client, key)
        request = client.info("head_object", key)
        require_field(request, head, "ETag", str)
        return cls(client, key, head, object_info(request, key, head).size)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that name it, for the request that copies it."""
        place = {"Bucket": self.client.bucket, "Key": self.key}
        if self.head.get("VersionId", "null") != "null":
            place["VersionId"] = self.head["VersionId"]
        return {"CopySource": place, "CopySourceIfMatch": strong_etag(self.head["ETag"])}

    def require_safe_name(self) -> None:
        """Refuse a key that Ceph RGW would misread: it decodes the source of a part twice (observed in 16.2)."""
        headers = self.head["ResponseMetadata"].get("HTTPHeaders", {})
        if "%" in self.key and any(name.startswith("x-rgw-") for name in headers):
            what = 'Ceph cannot copy an object in parts whose key has a "%": it might copy another one'
            hint = "Download it and upload it again: upload() accepts the result of open()."
            raise self.client.info("copy", self.key).failed(LfaError, what, hint, transient=False)

    async def require_unchanged(self) -> None:
        """Check that it still exists: some servers (Ceph RGW 16, moto) ignore the condition."""
        if "VersionId" in self.params["CopySource"]:
            return
        now = await head_response(self.client, self.key)
        if etag_of(now) != etag_of(self.head):
            request = self.client.info("copy", self.key)
            response = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": now["ResponseMetadata"]}
            message = f"{request} failed: the object was replaced during the operation. Start again."
            raise ObjectChangedError(message, response, "CopyObject")


class _MultipartCopy(MultipartUpload):
    """A multipart upload whose parts the server copies."""

    def __init__(self, client: BucketClient, key: str, options: UploadOptions, origin: _Source) -> None:
        super().__init__(client, key, Progress(None), options)
        self._origin = origin

    async def copy(self) -> None:
        """Copy all parts, or none."""
        await self._run(self._copy_parts())

    async def _copy_parts(self) -> None:
        config = self._client.config
        slots = asyncio.Semaphore(min(config.max_concurrency, _AT_ONCE))
        async with task_group() as group:
            for number, size in enumerate(part_sizes(self._origin.size, config.copy_part_size), 1):
                stop = min(self._size + size, self._origin.size)
                await slots.acquire()
                self._etags.append("")
                group.create_task(self._copy_part(number, self._size, stop, slots))
                self._size = stop
                if stop == self._origin.size:
                    break
        await self._origin.require_unchanged()

    async def _copy_part(self, number: int, start: int, stop: int, slots: asyncio.Semaphore) -> None:
        try:
            response = await self._client.call(
                "upload_part_copy",
                self._key,
                extra_timeout=_AT_ONCE * (stop - start) / _SLOWEST,
                UploadId=self._id,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{stop - 1}",
                **self._origin.params,
                **self._options.common,
            )
            request = self._client.info("upload_part_copy", self._key)
            self._etags[number - 1] = require_field(request, response["CopyPartResult"], "ETag", str)
        finally:
            slots.release()
