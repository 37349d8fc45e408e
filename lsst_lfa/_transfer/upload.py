"""The upload engine: one request for a small object, a streamed multipart upload for a large one."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lsst_lfa.errors import KeyExistsError, KeyNotFoundError, LfaError, SourceChangedError, UploadNotFoundError

from .concurrency import task_group, uninterrupted
from .etag import md5_etag, multipart_etag, parts_in
from .memory import LentViews
from .object_options import UploadOptions
from .operations import require_absent
from .plan import MIN_PART_SIZE, bounded_part_size, even_part_size, part_sizes, require_possible, too_large
from .progress import BodyProgress
from .request_body import RequestBody
from .responses import bad_response, etag_of, object_info, require_field, server_date, strong_etag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
    from datetime import datetime

    from .attempts import BucketClient
    from .config import TransferConfig
    from .lanes import Lanes
    from .memory import Part
    from .progress import Progress
    from .sources import Source

__all__ = ["MultipartUpload", "read_parts", "upload"]

log = logging.getLogger(__name__)

# A server joins the parts when the upload is completed: seconds for each part.
_JOIN_TIMEOUT = 0.05
# Smaller uploads need no lane: they are over before they can crowd the network.
_SMALL = 1024 * 1024
_NO_OPTIONS = UploadOptions()
_NOT_FOUND = 404
# S3's times are whole seconds.
_SECOND = timedelta(seconds=1)


async def upload(
    client: BucketClient, key: str, source: Source, progress: Progress, options: UploadOptions = _NO_OPTIONS
) -> None:
    """Upload the data of ``source``, all or nothing.

    Up to ``multipart_threshold`` bytes are sent in one request, more in parts,
    of which at most ``max_concurrency + 1`` are in memory. Whatever fails, and
    whenever it is cancelled, no multipart upload is left behind; if the server
    cannot be reached to abort it, its ID is logged.
    """
    async with _open_parts(source, client) as parts:
        first: list[Part] = []
        size, known = 0, source.size or 0
        while max(size, known) <= client.config.multipart_threshold and (part := await anext(parts, None)) is not None:
            first.append(part)
            size += _size(part)
        if max(size, known) > client.config.multipart_threshold:
            await MultipartUpload(client, key, progress, options).upload(source, first, parts)
            return
        views = [view for part in first for view in part]
        await progress.follow(_put(client, key, views, progress, options))
        await progress.finish()


@asynccontextmanager
async def _open_parts(source: Source, client: BucketClient) -> AsyncIterator[AsyncGenerator[Part, None]]:
    """Open a source, to read its parts; their memory ends with the block, whoever still has them."""
    async with source:
        require_possible(source.size or 0)  # before anything is sent
        sizes, lent = _part_sizes(source, client.config, client.slots.up), LentViews()
        async with aclosing(read_parts(source, sizes, lent)) as parts:
            try:
                yield parts
            finally:
                lent.release()


def _size(part: Part) -> int:
    return sum(view.nbytes for view in part)


def _part_sizes(source: Source, config: TransferConfig, lanes: Lanes) -> Iterator[int]:
    """Choose the sizes of parts, for the number of parallel requests when the first one is read.

    By then, if the size is known, creating the upload has told the network's delay.
    """
    least, width = min(MIN_PART_SIZE, config.part_size), min(lanes.width, config.max_concurrency)
    if source.in_memory:
        most = max(config.part_size, config.memory_part_size)
    else:
        most = bounded_part_size(width, least, config.part_size, config.max_memory)
    yield from part_sizes(source.size, most if source.size is None else even_part_size(source.size, width, least, most))


async def read_parts(source: Source, sizes: Iterable[int], lent: LentViews) -> AsyncGenerator[Part, None]:
    """Read one part after another, of these sizes, and lend it; a source must yield as many bytes as its size says."""
    done = 0
    for size in sizes:
        part = await source.read(size)
        lent.add(part)
        done += _size(part)
        if source.size is not None and (done > source.size or (_size(part) < size and done != source.size)):
            raise _changed(source, done)
        if part:
            yield part
        if _size(part) < size:
            return
    if more := _size(await source.read(1)):
        raise ValueError(too_large()) if source.size is None else _changed(source, done + more)


def _most_at_once(source: Source, part: Part, config: TransferConfig) -> int:
    """How many parts of this size may be in progress, so that with the next one they fit in the allowed memory."""
    if source.in_memory:
        return config.max_concurrency
    return max(1, min(config.max_concurrency, config.max_memory // max(_size(part), 1) - 1))


def _changed(source: Source, done: int) -> SourceChangedError:
    return SourceChangedError(
        f"the source yielded {done} bytes, not the {source.size} of its size: it changed while it was read"
    )


async def _send(
    client: BucketClient, operation: str, key: str, views: Part, progress: BodyProgress, **params: Any
) -> str:
    """Send one body, with retries as needed, and return its ETag."""
    config = client.config
    body = RequestBody(views, config.io_chunksize, progress, client.slots)
    await body.digest(config.integrity)
    if body.md5 is not None:
        params["ContentMD5"] = body.md5
    async for attempt in client.attempts(operation, key):
        async with attempt as timeout:
            data = body.watched_by(timeout) if len(body) else b""
            response = await client.data.put(operation, client.bucket, key, data, **params)
            etag = strong_etag(require_field(client.info(operation, key), response, "ETag", str))
    progress.complete(len(body))
    return etag


async def _put(client: BucketClient, key: str, views: Part, progress: Progress, options: UploadOptions) -> None:
    sent = BodyProgress(progress)
    if options.if_none_match:
        await require_absent(client, key)
    start = time.monotonic()

    async def is_ours(head: dict[str, Any]) -> bool:
        stored = options.are_stored(head)
        if head["ContentLength"] != _size(views) or stored is False:
            return False
        now = server_date(head)
        began = now and now - timedelta(seconds=time.monotonic() - start)
        # Hashed only now, because it takes time and is hardly ever needed.
        if etag_of(head) == await md5_etag(views):
            return bool(stored) or _is_new(head, began)
        return not _comparable(head) and _is_new(head, began)

    lanes = client.slots.up if _size(views) > _SMALL else None
    try:
        async with lanes or nullcontext():
            await _send(client, "put_object", key, views, sent, **options.params, **_condition(options))
    except LfaError as error:
        if not await _is_there(client, key, error, is_ours):
            raise
        sent.complete(_size(views))  # the bytes in transit when the connection broke have arrived


def _condition(options: UploadOptions) -> dict[str, str]:
    """Return the parameters that make the server refuse to replace an object (RFC 9110, 13.1.2)."""
    return {"IfNoneMatch": "*"} if options.if_none_match else {}


def _comparable(head: dict[str, Any]) -> bool:
    """Whether the ETag of the object that HEAD found may be a digest of its bytes, whoever uploaded them."""
    encryption = str(head.get("ServerSideEncryption", ""))
    own_key = "SSECustomerAlgorithm" in head
    return not encryption.startswith("aws:kms") and not own_key and parts_in(etag_of(head)) is not None


def _is_new(head: dict[str, Any], began: datetime | None) -> bool:
    """Whether the object that HEAD found was stored since we started, by the server's clock; ours proves nothing."""
    return began is not None and bool(head["LastModified"] + _SECOND > began)


async def _is_there(
    client: BucketClient, key: str, error: LfaError, is_ours: Callable[[dict[str, Any]], Awaitable[bool]]
) -> bool:
    """Find out whether the failed request was carried out, and only its response was lost."""
    # Perhaps; by an attempt before the last.
    was_done = isinstance(error, (UploadNotFoundError, KeyNotFoundError))
    was_done = was_done or (isinstance(error, KeyExistsError) and error.attempts > 1)
    if not was_done and not error.transient:
        return False
    with suppress(LfaError, TimeoutError):
        # A server that fails has had its time; one that responds is given the usual time.
        limit = None if was_done else client.config.cleanup_timeout
        # Not queued behind other transfers: the time would be over before the request is sent.
        async with client.for_cleanup() as own, asyncio.timeout(limit):
            head = await own.call("head_object", key)
            object_info(own.info("head_object", key), key, head)
            return await is_ours(head)
    return False


class MultipartUpload:
    """One multipart upload: created, sent, completed; or aborted."""

    def __init__(self, client: BucketClient, key: str, progress: Progress, options: UploadOptions) -> None:
        self._client = client
        self._key = key
        self._progress = progress
        self._options = options
        self._id = ""
        self._began: datetime | None = None
        self._etags: list[str] = []
        self._size = 0
        self._last: Part = []

    async def upload(self, source: Source, first: list[Part], rest: AsyncIterator[Part]) -> None:
        """Upload these parts of a source, all or nothing."""
        await self._run(self._send_parts(source, first, rest))

    async def _run(self, send_parts: Coroutine[Any, Any, None]) -> None:
        try:
            if self._options.if_none_match:
                # Checked before gigabytes are sent in vain.
                await require_absent(self._client, self._key)
            # If it were cut short, it might leave an upload whose ID nobody knows.
            await uninterrupted(self._create(), grace=self._client.config.cleanup_timeout)
            await self._progress.follow(send_parts)
            await self._progress.finish()
            if self._options.if_none_match:
                # Checked again: some servers (Ceph RGW 16) ignore the condition here, or (SeaweedFS) lose races.
                await require_absent(self._client, self._key)
            await self._complete()
        except BaseException:
            send_parts.close()
            if self._id:
                await uninterrupted(self._abort(), grace=None)
            raise

    async def _create(self) -> None:
        response = await self._client.call("create_multipart_upload", self._key, **self._options.params)
        self._id = str(response["UploadId"])
        self._began = server_date(response)

    async def _send_parts(self, source: Source, first: list[Part], rest: AsyncIterator[Part]) -> None:
        lanes = self._client.slots.up
        running: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            # Not in the task: a task that is cancelled at once never starts.
            running.discard(task)
            lanes.release()

        async with task_group() as group:
            while (part := first.pop(0) if first else await anext(rest, None)) is not None:
                while len(running) >= _most_at_once(source, part, self._client.config):
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await lanes.acquire()
                self._size += _size(part)
                self._etags.append("")
                self._last = part
                task = group.create_task(self._send_part(source, len(self._etags), part))
                running.add(task)
                task.add_done_callback(ended)
                await asyncio.sleep(0)  # making a request takes milliseconds: one per turn of the loop

    async def _send_part(self, source: Source, number: int, part: Part) -> None:
        progress = BodyProgress(self._progress)
        self._etags[number - 1] = await _send(
            self._client,
            "upload_part",
            self._key,
            part,
            progress,
            UploadId=self._id,
            PartNumber=number,
            **self._options.common,
        )
        if part is not self._last:
            # After a failure no other part is read: the error's traceback still holds this one.
            source.recycle(part)

    async def _complete(self) -> None:
        client, key, operation = self._client, self._key, "complete_multipart_upload"
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        proven = False
        try:
            async for attempt in client.attempts(operation, key, extra_timeout=_JOIN_TIMEOUT * len(parts)):
                async with attempt:
                    response = await client.client.complete_multipart_upload(
                        Bucket=client.bucket,
                        Key=key,
                        UploadId=self._id,
                        MultipartUpload={"Parts": parts},
                        **self._options.common,
                        **_condition(self._options),
                    )
                    proven = bool(response.get("ETag"))
                    # Ceph RGW's first response has no ETag; and a 200 that says nothing about the object proves
                    # nothing.
                    if not proven and not await self._is_found():
                        raise bad_response(
                            client.info(operation, key),
                            "the server's response has no ETag, and the object does not exist",
                        )
        except LfaError as error:
            if not await _is_there(client, key, error, self._is_ours):
                raise
        if not proven:
            # The object may be an earlier one with the same content, while the upload is still open.
            await uninterrupted(self._abort(), grace=None)

    async def _is_found(self) -> bool:
        """Whether HEAD finds the object that we uploaded."""
        client = self._client
        try:
            head = await client.client.head_object(Bucket=client.bucket, Key=self._key)
        except ClientError as error:
            if error.response["ResponseMetadata"].get("HTTPStatusCode") == _NOT_FOUND:
                return False
            raise
        object_info(client.info("head_object", self._key), self._key, head)
        return await self._is_ours(head)

    async def _is_ours(self, head: dict[str, Any]) -> bool:
        """Whether the object that HEAD found is the one that we uploaded."""
        # The same data may have been stored before, with other metadata.
        stored = self._options.are_stored(head)
        if head["ContentLength"] != self._size or stored is False:
            return False
        if etag_of(head) == multipart_etag(self._etags):
            return bool(stored) or _is_new(head, self._began)
        # If the last part's ETag is not a digest either, the time has to decide.
        digests = self._etags[-1].strip('"') == await md5_etag(self._last)
        return not (digests and _comparable(head)) and _is_new(head, self._began)

    async def _abort(self) -> None:
        """Abort until the server no longer knows the upload; a part may still be arriving."""
        try:
            async with self._client.for_cleanup() as client, asyncio.timeout(client.config.cleanup_timeout):
                for delay in (0.0, 0.05, 0.2, 0.5):
                    await asyncio.sleep(delay)
                    await client.call("abort_multipart_upload", self._key, UploadId=self._id)
        except UploadNotFoundError:
            return
        except (LfaError, TimeoutError, asyncio.CancelledError) as error:
            log.warning(
                "could not abort multipart upload %s of s3://%s/%s (%s): its parts take up space until "
                "abort_stale_uploads() finds it",
                self._id,
                self._client.bucket,
                self._key,
                str(error) or type(error).__name__,
            )
