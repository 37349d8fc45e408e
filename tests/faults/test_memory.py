"""The caller may use its memory again as soon as `upload` has returned or raised."""

from __future__ import annotations

import array
import asyncio
import gc
import hashlib
import io
import mmap
import os
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lsst_lfa import TransferConfig, errors
from lsst_lfa._transfer.concurrency import in_thread
from tests.benchmark.instruments import forget_peak, memory

from . import Action, Fault, Reset, Silence, Status
from .harness import BUCKET, CONFIG, KEY, MiB, descriptors, open_harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from .harness import Harness

pytestmark = pytest.mark.fast_clock

SIZE = 6 * MiB  # more than the system takes from a client whose server does not read
FRAME = b"A" * SIZE


KINDS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(FRAME),
    "array": lambda: array.array("d", FRAME),
    "mmap": lambda: mmap.mmap(-1, SIZE),
    "memoryview": lambda: memoryview(bytearray(FRAME)),
    "numpy": lambda: np.frombuffer(bytearray(FRAME), ">i4").reshape(-1, 4),
}


class Owner:
    """Has a frame in memory, and uses that memory for the next one as soon as it may."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.memory: Any = KINDS[kind]()
        if kind == "mmap":
            self.memory[:] = FRAME

    def use_again(self) -> None:
        """Refill it, then resize or close it, if it can be: BufferError if anybody still has a view."""
        if self.kind == "numpy":
            self.memory[...] = 0x42424242
            return
        memoryview(self.memory).cast("B")[:] = b"B" * SIZE
        match self.kind:
            case "bytearray":
                self.memory.append(0)
            case "array":
                self.memory.append(0.0)
            case "mmap":
                self.memory.close()
            case "memoryview":
                base = self.memory.obj
                self.memory.release()
                base.append(0)


Start = Any

WHOLE = replace(CONFIG, multipart_threshold=SIZE, part_size=SIZE, stall_timeout=10, max_attempts=2, cleanup_timeout=5)
PARTS = replace(WHOLE, multipart_threshold=MiB, part_size=2 * MiB)
DENIED = Status(403, "AccessDenied")


def sockets() -> int:
    return sum(target.startswith("socket:") for target in descriptors().values())


PAUSE = Silence(request_byte=300_000, seconds=0.5)
ENDINGS: dict[str, tuple[Action, float | None, type[BaseException] | None]] = {
    "done": (Action(), None, None),
    "cancelled while the server pauses": (PAUSE, 0.1, TimeoutError),
    "the server pauses for too long": (PAUSE, None, errors.TransferTimeoutError),
    "reset": (Reset(request_byte=300_000), None, errors.UnreachableError),
    "refused early": (Status(403, "AccessDenied", early=True), None, errors.AccessDeniedError),
}


async def check(start: Start, ending: str, config: TransferConfig, kind: str) -> None:
    """Upload, use the memory again at once, and look at what comes of it."""
    action, limit, raised = ENDINGS[ending]
    if raised is errors.TransferTimeoutError:
        config = replace(config, stall_timeout=0.2)
    faults = [Fault(operation, action) for operation in ("PutObject", "UploadPart")]
    async with start(*faults, config=config) as (server, bucket):
        owner, before = Owner(kind), sockets()
        if raised is None:
            await bucket.upload(owner.memory, KEY)
            owner.use_again()
        else:
            with pytest.raises(raised) as caught:
                async with asyncio.timeout(limit):
                    await bucket.upload(owner.memory, KEY)
            owner.use_again()  # while the error, and all its frames, are there
            assert type(caught.value) is raised
            await asyncio.sleep(0.02)
            # The server may still pause: nobody waits until it has taken what was meant for it.
            idle = any(server.calls(operation) for operation in ("HeadObject", "AbortMultipartUpload"))
            assert sockets() - before - server.open_connections in {0, idle}
        async with asyncio.timeout(10):
            while server.current_requests:
                await asyncio.sleep(0.01)
        stored = server.objects.get((BUCKET, KEY))
        # What was with the system may have gone on: one frame, or none.
        assert stored.data == FRAME if stored else raised is not None
        assert not server.uploads


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Let nothing depend on the garbage collector."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("config", [WHOLE, PARTS], ids=["whole", "in parts"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_stored_is_one_frame_and_nobody_has_a_view(
    run: Any, start: Start, ending: str, config: TransferConfig
) -> None:
    run(check(start, ending, config, "bytearray"))


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("kind", ["array", "mmap", "memoryview", "numpy"])
@pytest.mark.parametrize("ending", ["done", "cancelled while the server pauses"])
def test_memory_of_any_kind(run: Any, start: Start, ending: str, kind: str) -> None:
    run(check(start, ending, WHOLE, kind))


async def test_success_that_is_reported_before_all_was_sent_is_none(start: Start) -> None:
    claim = Status(200, headers={"ETag": '"0"'}, early=True)
    config = replace(WHOLE, stall_timeout=30, retry_timeout=60)
    async with start(Fault("PutObject", claim, times=1), config=config) as (server, bucket):
        await bucket.upload(FRAME, KEY)
        assert server.objects[BUCKET, KEY].data == FRAME
        server.objects.clear()
        server.script(Fault("PutObject", claim))
        with pytest.raises(errors.ProtocolError, match="before the server had all"):
            await bucket.upload(FRAME, KEY)


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("tls", [None], ids=["http"])
@pytest.mark.parametrize("threads", ["free", "busy"])
async def test_an_upload_that_is_cancelled_while_it_is_hashed(
    monkeypatch: pytest.MonkeyPatch, start: Start, threads: str
) -> None:
    """Neither the thread that hashes, nor one that would have, reads on or has a view."""
    begun, go_on, touched = threading.Event(), threading.Event(), []

    class Slow:
        def __init__(self) -> None:
            self._real = original()

        def update(self, data: memoryview) -> None:
            begun.set()
            go_on.wait(2.2)  # longer than a thread is waited for that works on what is ours
            touched.append(data.nbytes)
            self._real.update(data)

        def hexdigest(self) -> str:
            return self._real.hexdigest()

    original = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", Slow)
    async with start(config=WHOLE) as (server, bucket):
        owner = Owner("bytearray")
        if threads == "busy":
            jobs = [asyncio.create_task(in_thread(begun.wait, 20)) for _ in range(16)]
            await asyncio.sleep(0.05)
        task = asyncio.create_task(bucket.upload(owner.memory, KEY))
        if threads == "busy":
            await asyncio.sleep(0.1)
        else:
            await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        owner.use_again()
        assert caught.value.__traceback__
        seen = list(touched)
        begun.set()
        go_on.set()
        if threads == "busy":
            await asyncio.gather(*jobs)
        await asyncio.sleep(0.05)
        assert touched == seen
        assert not server.seen


async def pieces(path: Path) -> AsyncIterator[bytes]:
    """Give a file's bytes, each piece in memory of its own."""
    with path.open("rb") as file:
        while piece := file.read(4 * MiB):
            yield piece


async def one_piece(path: Path) -> AsyncIterator[bytes]:
    yield path.read_bytes()


LARGE_SOURCES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: path.read_bytes(),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "path": lambda path: path,
    "iterator": pieces,
    "iterator of one": one_piece,
}


@pytest.mark.parametrize("tls", [None], ids=["http"])
@pytest.mark.parametrize("kind", LARGE_SOURCES)
async def test_an_error_keeps_no_data(start: Start, tmp_path: Path, kind: str) -> None:
    """Its traceback has the frames of the upload, and often is in a cycle: it may be there for long."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(48 * MiB))
    refused = Fault("UploadPart", Status(403, "AccessDenied", early=True))
    async with start(refused, config=TransferConfig()) as (_, bucket):
        await bucket.upload(b"", "imports all that it takes")
        forget_peak()
        before = memory("VmRSS")
        with pytest.raises(errors.AccessDeniedError) as caught:
            await bucket.upload(LARGE_SOURCES[kind](path), KEY)
        forget_peak()
        assert memory("VmRSS") - before < 8 * MiB
        assert caught.value.__traceback__


FAILING: dict[str, Callable[[Harness], Awaitable[object]]] = {
    "head": lambda harness: harness.bucket.head("none"),
    "delete": lambda harness: harness.bucket.delete(KEY),
    "upload": lambda harness: harness.bucket.upload(b"data", "new"),
}


@pytest.mark.parametrize("verb", FAILING)
async def test_an_error_is_not_left_to_the_garbage_collector(tmp_path: Path, verb: str) -> None:
    """With its traceback go all frames; to find them, the collector would stop the event loop."""
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("DeleteObject", DENIED), Fault("PutObject", DENIED))
        try:
            await FAILING[verb](harness)
        except errors.ServiceError as error:
            left = weakref.ref(error)
        assert left() is None
