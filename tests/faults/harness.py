"""A user of the library in front of a server that misbehaves, and what must hold whatever happens to them."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import random
import tracemalloc
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lsst_lfa import AsyncS3Bucket, S3Session, TransferConfig

from . import FaultyS3Server
from .proxy import Proxy
from .store import Body, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .proxy import Tamper

MiB = 1024**2

BUCKET = "rubinobs-lfa-faults"
KEY = "2026/11/23/GC1-image_1 ü+.fits"

# Without a period: what is put in another's place is seen.
_chance = random.Random(0)

SMALL = _chance.randbytes(512 * 1024)
"""512 KiB: goes up in one request, comes down in two ranges."""

LARGE = _chance.randbytes(21 * MiB // 4)
"""5.25 MiB: goes up in five parts, comes down in five ranges."""

REVERSED = LARGE[::-1]
"""As many other bytes."""

OLD = b"what was there before"

# Made once: its digest takes a while.
_stored = Store().put(BUCKET, KEY, Body(LARGE))


class SmallParts(TransferConfig):
    """Whatever the user says: the tests' server takes parts of any size, so that many of them are few bytes."""

    def __post_init__(self) -> None:
        pass


CONFIG = SmallParts(
    part_size=5 * MiB // 4,
    multipart_threshold=MiB,
    range_size=5 * MiB // 4,
    io_chunksize=64 * 1024,
    max_concurrency=2,
    max_memory=4 * 5 * MiB // 4,
    stall_timeout=2,
    min_rate=256 * 1024,
    max_attempts=4,
    retry_delay=0.02,
    retry_timeout=3,
    cleanup_timeout=0.6,
)
"""More impatient than the default, for the tests' sake."""

SLACK = 11 * MiB // 8
# uvloop's transports hold what they are given until a turn of the loop ends, those of server and proxy too.
UVLOOP_SLACK = MiB
"""Bytes that everything else takes: buffers of connections, at both of their ends, and one call of botocore's."""


@dataclass
class Harness:
    """A server, and a user of the library in front of it.

    Attributes
    ----------
    server : FaultyS3Server
        Has a large object `KEY`.
    bucket : AsyncS3Bucket
        A user's, with `CONFIG`.
    folder : Path
        Has one file, the destination of downloads, which contains `OLD`.
    config : TransferConfig
        The bucket's.
    counts : list of int
        What the callback was called with.
    expected : int or None
        What the counts must add up to, once the transfer has succeeded.
    """

    server: FaultyS3Server
    bucket: AsyncS3Bucket
    folder: Path
    config: TransferConfig
    counts: list[int] = field(default_factory=list)
    expected: int | None = None

    @property
    def destination(self) -> Path:
        """Where downloads go."""
        return self.folder / "destination.fits"

    def callback(self, count: int) -> None:
        """Note the count."""
        self.counts.append(count)

    def succeeded(self, size: int) -> None:
        """Note that the transfer has succeeded."""
        self.expected = size

    def stored(self) -> bytes | None:
        """Return the bytes of the object, if it is there."""
        found = self.server.objects.get((BUCKET, KEY))
        return None if found is None else found.data

    def bounded_upload(self) -> AbstractContextManager[None]:
        """Assert that an upload holds what it may hold at most."""
        return memory_within((self.config.max_concurrency + 1) * self.config.part_size + SLACK)

    def bounded_download(self, result: int = 0) -> AbstractContextManager[None]:
        """Assert that a download holds what it may hold at most, besides a result of so many bytes."""
        return memory_within((self.config.max_concurrency + 1) * self.config.range_size + result + SLACK)

    def check_counts(self, most: int = len(LARGE)) -> None:
        """Assert that the callback was told each byte once, and nothing else; at `most` so many, after a failure."""
        assert all(count > 0 or self.expected == 0 for count in self.counts), self.counts
        if self.expected is not None:
            assert sum(self.counts) == self.expected
        else:
            assert sum(self.counts) <= most

    def check_folder(self, content: bytes) -> None:
        """Assert that the destination has this content, and nothing lies beside it."""
        assert list(self.folder.iterdir()) == [self.destination]
        assert self.destination.read_bytes() == content


@asynccontextmanager
async def open_harness(
    folder: Path,
    *,
    server: FaultyS3Server | None = None,
    endpoint_url: str | None = None,
    tampers: Sequence[Tamper] = (),
    config: TransferConfig = CONFIG,
    connect_timeout: float = 3.0,
) -> AsyncIterator[Harness]:
    """Open a server and a bucket on it; afterwards, nothing of them may be left in this loop."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(nothing_left())
        server = await stack.enter_async_context(server or _server())
        server.objects[BUCKET, KEY] = _stored
        if tampers:
            endpoint_url = (await stack.enter_async_context(Proxy(server.endpoint_url, *tampers))).endpoint_url
        session = S3Session(
            endpoint_url=endpoint_url or server.endpoint_url,
            access_key_id="faults-key-id",
            secret_access_key="faults-secret",
            region="us-east-1",
            config=config,
            connect_timeout=connect_timeout,
        )
        await stack.enter_async_context(session)
        harness = Harness(server, session.bucket(BUCKET), folder, config)
        harness.destination.write_bytes(OLD)
        yield harness


def _server() -> FaultyS3Server:
    return FaultyS3Server(buckets=[BUCKET], receive_buffer=64 * 1024, min_part_size=1)


@contextmanager
def memory_within(limit: int) -> Iterator[None]:
    """Assert that all that is made within the context, and not by the server, never takes more bytes.

    Garbage is collected early, for it is not held: aiohttp's broken requests are rings, with a part in their hands.
    """
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        limit += UVLOOP_SLACK
    thresholds = gc.get_threshold()
    gc.collect()  # or the collector would compare what is new with all modules, and wait
    gc.set_threshold(200, 1, 1)
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gc.set_threshold(*thresholds)
        assert peak <= limit, f"{peak / MiB:.2f} MiB of {limit / MiB:.2f}"


def descriptors() -> dict[str, str]:
    """Return this process's open file descriptors, and what each is of.

    But for the one of /dev/null that uvloop's loops keep, from their first server on.
    """
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder's own
            found[link.name] = str(link.readlink())
    return {number: target for number, target in found.items() if target != os.devnull}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Assert that no task and no file descriptor outlives the context.

    What else would leave a ResourceWarning is collected here, so that it is the right test that fails.
    """
    gc.freeze()  # or each collection would look at all modules again
    before, tasks = descriptors(), asyncio.all_tasks()
    yield
    for _ in range(100):  # closed sockets are given back by the loop a moment later
        if asyncio.all_tasks() == tasks and descriptors().keys() <= before.keys():
            break
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= tasks
    assert not descriptors().keys() - before.keys(), (before, descriptors())
    gc.collect()


class Reread(io.BytesIO):
    """A file whose bytes are others' memory with each `read`; those of a plain BytesIO would not be copied."""


# What a user does. Each checks its own success, and what it holds in memory.


async def upload(harness: Harness) -> None:
    await _upload(harness, SMALL)


async def upload_in_parts(harness: Harness) -> None:
    await _upload(harness, LARGE)


async def _upload(harness: Harness, data: bytes) -> None:
    # What is there is other bytes: an old object cannot be taken for the new one.
    harness.server.put(BUCKET, KEY, OLD)
    file = Reread(data)
    try:
        with harness.bounded_upload():
            url = await harness.bucket.upload(file, KEY, harness.callback)
    except BaseException:
        assert harness.stored() in (OLD, data)
        assert file.tell() == 0
        raise
    harness.succeeded(len(data))
    assert url == f"{harness.bucket.url(KEY)}"
    assert harness.stored() == data


async def download(harness: Harness) -> None:
    with harness.bounded_download(len(LARGE)):
        file = await harness.bucket.download(KEY, harness.callback)
    harness.succeeded(len(LARGE))
    assert file.getvalue() == LARGE


async def download_file(harness: Harness) -> None:
    try:
        with harness.bounded_download():
            path = await harness.bucket.download_file(KEY, harness.destination, harness.callback)
    except asyncio.CancelledError:
        # It may come when all is done but the last step, which is not cut in two.
        harness.check_folder(LARGE if harness.destination.read_bytes() == LARGE else OLD)
        raise
    except Exception:
        harness.check_folder(OLD)
        raise
    harness.succeeded(len(LARGE))
    assert path == harness.destination
    harness.check_folder(LARGE)


async def stream(harness: Harness) -> None:
    position = 0
    with harness.bounded_download():
        async for chunk in harness.bucket.stream(KEY):
            if not position:  # who reads slowly sees how much is read ahead
                await asyncio.sleep(0.05)
            assert LARGE.startswith(chunk, position)
            position += len(chunk)
    assert position == len(LARGE)


async def size(harness: Harness) -> None:
    assert await harness.bucket.size(KEY) == len(LARGE)


async def listing(harness: Harness) -> None:
    assert [info.key async for info in harness.bucket.list()] == [KEY]


async def delete(harness: Harness) -> None:
    await harness.bucket.delete(KEY)
    assert harness.stored() is None


async def abort_stale_uploads(harness: Harness) -> None:
    harness.server.store.create_upload(BUCKET, KEY)
    try:
        # Times are told in full seconds: a little of the future counts as well.
        assert await harness.bucket.abort_stale_uploads(-5) == 1
    except BaseException:
        harness.server.uploads.clear()  # they are not the library's
        raise
