"""The download engine: ranges of one version of an object, in parallel."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

from lsst_lfa.errors import LfaError

from .concurrency import in_thread, task_group
from .etag import check_etag
from .plan import MiB, next_range
from .ranges import SHORT_RANGE, Fetch, PinnedObject, S3RangeReader
from .sinks import ChunkSink

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from .attempts import BucketClient
    from .config import TransferConfig
    from .progress import Progress
    from .ranges import OpenWriter, RangeReader
    from .sinks import FileSink, MemorySink, Sink, Writer

__all__ = ["RangesUnderWay", "download", "open_sink", "stream", "verify"]

# The first range, whose response tells how many more are needed.
_FIRST_RANGE = 8 * MiB
# Remaining seconds above which a part of a range is requested again.
_WORTH_SPLITTING = 0.5


async def download(reader: RangeReader, sink: Sink, progress: Progress, *, expected: int | None = None) -> PinnedObject:
    """Fetch an object into ``sink``.

    The response to the first range tells the size; the others follow in
    parallel with it. If no others are expected, from the ``expected`` size, it
    takes no lane: like a small upload, it is over before it can crowd the
    network.

    Returns
    -------
    pinned : `PinnedObject`
        What was fetched.
    """
    pinned = PinnedObject(progress.advance)
    await progress.follow(_fetch_all(reader, pinned, sink, expected))
    await progress.finish()
    return pinned


async def verify(reader: RangeReader, pinned: PinnedObject, sink: MemorySink | FileSink) -> None:
    """Compare the downloaded data with the object's ETag, if the configuration says so.

    Raises
    ------
    IntegrityError
        If they differ.
    UnverifiableError
        If the ETag is not a digest.
    """
    stopped = threading.Event()

    def read(start: int, count: int) -> bytes | memoryview:
        return b"" if stopped.is_set() else sink.read(start, count)

    if reader.config.verify_etag and pinned.size:
        etag = pinned.etag if pinned.digest else ""
        what = str(reader.request._replace(operation="download"))
        await in_thread(check_etag, what, etag, pinned.size, reader.config.part_size, read, stop=stopped.set)


def open_sink(reader: RangeReader, sink: Sink, size: int | None) -> None:
    """Make room for ``size`` bytes, or raise if there is none."""
    try:
        sink.open(size)
    except MemoryError:
        what = f"{size} bytes do not fit in this process's memory"
        raise reader.request.failed(LfaError, what, "Use download_file or stream.", transient=False) from None


async def _fetch_all(reader: RangeReader, pinned: PinnedObject, sink: Sink, expected: int | None) -> None:
    def open_first(start: int, stop: int | None) -> Writer:
        open_sink(reader, sink, None if stop is None else pinned.size)
        return sink.writer(start, stop)

    first = min(_FIRST_RANGE, reader.config.range_size, reader.config.part_size)
    if expected is not None and expected <= first:
        await Fetch(pinned, reader, 0, first, open_first).run()
        if pinned.whole or pinned.size <= first:
            return
    async with task_group() as group:
        ranges = RangesUnderWay(reader, pinned, group)
        if not pinned.known.is_set():
            await ranges.begin(0, first, open_first)
            await pinned.known.wait()
        await ranges.fetch(first, first if pinned.whole else pinned.size, sink.writer)
        await ranges.finish(sink.writer)


class RangesUnderWay:
    """The ranges of one download that are in progress: as many as raise the throughput."""

    def __init__(self, reader: RangeReader, pinned: PinnedObject, group: asyncio.TaskGroup) -> None:
        self._reader = reader
        self._object = pinned
        self._group = group
        self._lanes = reader.slots.down
        self._slots = asyncio.Semaphore(reader.config.max_concurrency)
        self._running: dict[asyncio.Task[None], Fetch] = {}

    async def fetch(self, start: int, stop: int, open_writer: OpenWriter) -> None:
        """Fetch bytes ``start`` to ``stop`` in ranges; the last of them are still in progress when this returns."""
        while start < stop:
            middle = start + self._length(stop - start)
            await self.begin(start, middle, open_writer)
            start = middle
            await asyncio.sleep(0)  # making a request takes milliseconds: one per turn of the loop

    async def begin(self, start: int, stop: int, open_writer: OpenWriter) -> None:
        """Fetch one range in a task, as soon as there is a lane for it."""
        await self._slots.acquire()
        await self._lanes.acquire()
        fetch = Fetch(self._object, self._reader, start, stop, open_writer)
        task = self._group.create_task(fetch.run())
        self._running[task] = fetch
        task.add_done_callback(self._ended)

    async def finish(self, open_writer: OpenWriter) -> None:
        """Wait for all; a range that is much slower than the others is split."""
        while self._running:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            slowest = max(self._running.values(), key=Fetch.seconds_left, default=None)
            if slowest is not None and slowest.seconds_left() > _WORTH_SPLITTING:
                half = slowest.give_up_half()
                if half is not None:
                    await self.begin(*half, open_writer)

    def _length(self, left: int) -> int:
        config = self._reader.config
        width = min(self._lanes.width, config.max_concurrency)
        # Few parallel requests are enough if each is fast; and fewer of them cost less.
        least = max(SHORT_RANGE, min(4 * SHORT_RANGE, 16 * SHORT_RANGE // width))
        return next_range(left, width, min(least, config.range_size), config.range_size)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Not in the task: a task that is cancelled at once never starts.
        del self._running[task]
        self._lanes.release()
        self._slots.release()


async def stream(
    borrow: Callable[[], AbstractAsyncContextManager[BucketClient]], key: str, config: TransferConfig
) -> AsyncGenerator[bytes, None]:
    """Yield an object's bytes in order, ``max_concurrency`` ranges ahead of the reader.

    Each range borrows the client for itself: nothing is held, and no time
    limit runs, while the reader works on its data.
    """
    pinned = PinnedObject()

    async def fetch(start: int, stop: int) -> deque[bytes]:
        sink = ChunkSink()
        async with borrow() as client:
            reader = S3RangeReader(client, key)
            async with reader.slots.down:
                await Fetch(pinned, reader, start, stop, sink.writer).run()
        return sink.chunks

    # Owned here: whatever ends the generator, they are cancelled and awaited.
    step = min(_FIRST_RANGE, config.range_size, config.part_size)
    ahead = min(config.max_concurrency, max(1, config.max_memory // step - 1))
    tasks = deque([asyncio.create_task(fetch(0, step))])
    try:
        await asyncio.wait(tasks)
        position, size = step, step if pinned.whole else pinned.size
        while tasks:
            while len(tasks) <= ahead and position < size:
                tasks.append(asyncio.create_task(fetch(position, min(position + step, size))))
                position += step
            await asyncio.wait({tasks[0]})
            chunks = tasks.popleft().result()
            while chunks:
                yield chunks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
