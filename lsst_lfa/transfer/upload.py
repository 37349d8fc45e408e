"""The upload engine: one request for a small object, a streamed multipart for a large one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from lsst_lfa.errors import KeyNotFoundError, LfaError, ProtocolError, SourceChangedError, UploadNotFoundError
from lsst_lfa.transport import Body

from .diagnosis import is_transient
from .plan import memory_part_size, part_sizes
from .progress import Meter
from .tasks import task_group, uninterrupted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from lsst_lfa.config import TransferConfig

    from .progress import Progress
    from .requests import Requests
    from .retry import Pace
    from .sources import Part, Source

__all__ = ["upload"]

log = logging.getLogger(__name__)

# Below this a digest takes less time than a thread.
_HASH_INLINE = 128 * 1024
# A server joins the parts when the upload is completed: seconds for each.
_PATIENCE_PER_PART = 0.05


async def upload(requests: Requests, key: str, source: Source, progress: Progress) -> None:
    """Upload what ``source`` gives, whole or not at all.

    Up to ``multipart_threshold`` bytes go up in one request; more go up in
    parts, of which at most ``max_concurrency + 1`` are in memory. Whatever
    fails, and whenever it is cancelled, no multipart upload stays behind; if
    the server cannot be reached to abort it, its id is logged.
    """
    async with source, aclosing(_parts(source, requests.config)) as parts:
        first: list[Part] = []
        size = 0
        async for part in parts:
            first.append(part)
            size += _size(part)
            if size > requests.config.multipart_threshold:
                await _Multipart(requests, key, progress).upload(first, parts)
                return
        views = [view for part in first for view in part]
        await progress.follow(_put(requests, key, views, progress))
        await progress.finish()


def _size(part: Part) -> int:
    return sum(view.nbytes for view in part)


async def _parts(source: Source, config: TransferConfig) -> AsyncGenerator[Part, None]:
    """Read part after part; a source must give what its size promised."""
    part_size = config.part_size
    if source.in_memory and source.size is not None:
        part_size = memory_part_size(source.size, part_size, config.memory_part_size, config.max_concurrency)
    done = 0
    for size in part_sizes(source.size, part_size):
        part = await source.read(size)
        done += _size(part)
        if source.size is not None and (done > source.size or (_size(part) < size and done != source.size)):
            msg = f"the source gave {done} bytes where {source.size} were promised; it changed while it was read"
            raise SourceChangedError(msg)
        if part:
            yield part
        if _size(part) < size:
            return


async def _send(requests: Requests, operation: str, key: str, views: Part, meter: Meter, **params: Any) -> str:
    """Send one body, again if need be, and return the ETag that it got."""
    config = requests.config
    pace: Pace

    def sent(count: int) -> None:
        pace.moved(count)
        meter.moved(count)

    body = Body(views, config.chunk_size, sent)
    if len(body) > _HASH_INLINE:
        await asyncio.to_thread(body.digest, md5=config.integrity == "md5")
    else:
        body.digest(md5=config.integrity == "md5")
    if body.md5 is not None:
        params["ContentMD5"] = body.md5

    async def attempt(current: Pace) -> str:
        nonlocal pace
        pace = current
        meter.restart()
        call = getattr(requests.client, operation)
        answer = await call(
            Bucket=requests.bucket, Key=key, Body=body if len(body) else b"", ContentLength=len(body), **params
        )
        return str(requests.proven(operation, key, answer)["ETag"])

    return await requests.run(operation, key, attempt)


async def _put(requests: Requests, key: str, views: Part, progress: Progress) -> None:
    meter = Meter(progress)

    async def is_ours(head: dict[str, Any]) -> bool:
        size, etag = _etag(head)
        # Hashed only now: it takes a while, and is hardly ever asked for.
        return size == _size(views) and etag == await asyncio.to_thread(_md5, views)

    try:
        await _send(requests, "put_object", key, views, meter)
    except LfaError as error:
        if not await _is_there(requests, key, error, is_ours):
            raise
        meter.restart()
        meter.moved(_size(views))  # what was on its way when the connection broke arrived


async def _is_there(
    requests: Requests, key: str, error: LfaError, is_ours: Callable[[dict[str, Any]], Awaitable[bool]]
) -> bool:
    """Ask whether what failed was done all the same, and only its answer was lost."""
    was_done = isinstance(error, (UploadNotFoundError, KeyNotFoundError))  # perhaps; by an attempt before the last
    if not was_done and not is_transient(error):
        return False
    with suppress(LfaError, TimeoutError):
        # A server that fails has had its time; one that answers is asked as patiently as ever.
        async with asyncio.timeout(None if was_done else requests.config.cleanup_timeout):
            return await is_ours(await requests.call("head_object", key))
    return False


class _Multipart:
    """One multipart upload: created, sent, completed; or aborted."""

    def __init__(self, requests: Requests, key: str, progress: Progress) -> None:
        self._requests = requests
        self._key = key
        self._progress = progress
        self._id = ""
        self._etags: list[str] = []
        self._size = 0

    async def upload(self, first: list[Part], rest: AsyncIterator[Part]) -> None:
        grace = self._requests.config.cleanup_timeout
        try:
            # Cut short, it might leave an upload whose id nobody knows.
            await uninterrupted(self._create(), grace=grace)
            await self._progress.follow(self._send_parts(first, rest))
            await self._progress.finish()
            await self._complete()
        except BaseException:
            if self._id:
                await uninterrupted(self._abort(), grace=grace)
            raise

    async def _create(self) -> None:
        answer = await self._requests.call("create_multipart_upload", self._key)
        self._id = str(answer["UploadId"])

    async def _send_parts(self, first: list[Part], rest: AsyncIterator[Part]) -> None:
        free = asyncio.Semaphore(self._requests.config.max_concurrency)

        async def send(number: int, part: Part) -> None:
            self._etags[number - 1] = await _send(
                self._requests,
                "upload_part",
                self._key,
                part,
                Meter(self._progress),
                UploadId=self._id,
                PartNumber=number,
            )
            # After a failure no other part is read: the error has this one in its hands.
            part.clear()
            free.release()

        async with task_group() as group:

            async def start(part: Part) -> None:
                await free.acquire()
                self._size += _size(part)
                self._etags.append("")
                group.create_task(send(len(self._etags), part))
                await asyncio.sleep(0)  # to make a request takes milliseconds: one in each turn of the loop

            while first:
                await start(first.pop(0))
            async for part in rest:
                await start(part)

    async def _complete(self) -> None:
        requests = self._requests
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]

        async def attempt(_: Pace) -> None:
            where = {"Bucket": requests.bucket, "Key": self._key}
            answer = await requests.client.complete_multipart_upload(
                **where, UploadId=self._id, MultipartUpload={"Parts": parts}
            )
            # Ceph RGW's first answer has no ETag; and a 200 that says nothing of the object proves nothing.
            if not answer.get("ETag") and not await self._is_ours(await requests.client.head_object(**where)):
                what = requests.request("complete_multipart_upload", self._key)
                msg = f"{what} failed: the server's answer has no ETag, and the object is not there"
                raise ProtocolError(msg)

        patience = _PATIENCE_PER_PART * len(parts)
        try:
            await requests.run("complete_multipart_upload", self._key, attempt, patience=patience)
        except LfaError as error:
            if not await _is_there(requests, self._key, error, self._is_ours):
                raise

    async def _is_ours(self, head: dict[str, Any]) -> bool:
        """Whether the object that HEAD found is the one that we sent."""
        return _etag(head) == (self._size, _multipart_etag(self._etags))

    async def _abort(self) -> None:
        """Abort until the server no longer knows the upload; a part may still be on its way in."""
        config = self._requests.config
        try:
            async with asyncio.timeout(config.cleanup_timeout):
                for delay in (0.0, 0.05, 0.2, 0.5):
                    await asyncio.sleep(delay)
                    await self._requests.call("abort_multipart_upload", self._key, UploadId=self._id)
        except UploadNotFoundError:
            return
        except (LfaError, TimeoutError, asyncio.CancelledError) as error:
            log.warning(
                "could not abort multipart upload %s of s3://%s/%s (%s): its parts take up space until "
                "abort_stale_uploads() finds it",
                self._id,
                self._requests.bucket,
                self._key,
                error or type(error).__name__,
            )


def _etag(head: dict[str, Any]) -> tuple[int, str]:
    """Size and bare ETag of the object that HEAD found."""
    return head["ContentLength"], head.get("ETag", "").strip('"')


def _md5(views: Part) -> str:
    """ETag that S3 gives an object that came in one request, unless it encrypts it with a key of its own."""
    md5 = hashlib.md5(usedforsecurity=False)
    for view in views:
        md5.update(view)
    return md5.hexdigest()


def _multipart_etag(etags: list[str]) -> str | None:
    """ETag that S3 gives a multipart object: the MD5 of its parts' MD5s, and their number.

    `None` if the parts' ETags are no MD5s.
    """
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"
