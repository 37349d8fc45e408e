"""Many tasks, loops and processes at once; and a limit on the memory of all of them."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import S3Session, errors

from . import Fault, Reset, Silence
from . import harness as users
from .harness import BUCKET, CONFIG, KEY, LARGE, OLD, SMALL, MiB, open_harness
from .store import StoredObject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lsst_lfa import AsyncS3Bucket

    from .harness import Harness

COUNT = 1000
PATIENT = replace(CONFIG, stall_timeout=30, retry_timeout=60)
ROOT = Path(__file__).parents[2]


def content(number: int) -> bytes:
    return number.to_bytes(4, "big") * 25_000


async def test_a_thousand_uploads_and_downloads(tmp_path: Path) -> None:
    counts: list[list[int]] = [[] for _ in range(COUNT)]
    async with open_harness(tmp_path, config=PATIENT, connect_timeout=30) as harness:
        await asyncio.gather(
            *(harness.bucket.upload(content(n), f"{n}", counts[n].append) for n in range(COUNT)),
        )
        assert all(harness.server.objects[BUCKET, f"{n}"].data == content(n) for n in range(COUNT))
        files = await asyncio.gather(*(harness.bucket.download(f"{n}", counts[n].append) for n in range(COUNT)))
        assert all(file.getvalue() == content(n) for n, file in enumerate(files))
        assert all(sum(each) == 2 * len(content(0)) and min(each) > 0 for each in counts)
        assert harness.server.peak_requests <= 32
        assert harness.server.connections_made <= 32


async def test_a_thousand_through_faults(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=PATIENT, connect_timeout=30) as harness:
        harness.server.script(*(Fault("*", Reset(), nth=n) for n in range(50, 1000, 101)))
        await asyncio.gather(*(harness.bucket.upload(content(n), f"{n}") for n in range(200)))
        files = await asyncio.gather(*(harness.bucket.download(f"{n}") for n in range(200)))
        assert all(file.getvalue() == content(n) for n, file in enumerate(files))


BAD = "a/../b"
VERBS: dict[str, Callable[[AsyncS3Bucket], Awaitable[object]]] = {
    "upload": lambda bucket: bucket.upload(SMALL, BAD),
    "upload_fits": lambda bucket: bucket.upload_fits(None, BAD),
    "copy": lambda bucket: bucket.copy(BAD, KEY),
    "download": lambda bucket: bucket.download(BAD),
    "download_file": lambda bucket: bucket.download_file(BAD, "file"),
    "head": lambda bucket: bucket.head(BAD),
    "delete": lambda bucket: bucket.delete(BAD),
    "presigned_url": lambda bucket: bucket.presigned_url(BAD),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_those_that_are_started_together_begin_one_by_one(tmp_path: Path, verb: str) -> None:
    """In one turn of the loop each: they would all begin in the same one."""
    async with open_harness(tmp_path) as harness:
        before = len(harness.server.seen)
        tasks = [asyncio.ensure_future(VERBS[verb](harness.bucket)) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(task.done() for task in tasks) <= 1
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {ValueError}
        assert len(harness.server.seen) == before


async def test_two_uploads_to_one_key(tmp_path: Path) -> None:
    one, other = LARGE, LARGE[::-1]
    async with open_harness(tmp_path) as harness:
        await asyncio.gather(
            harness.bucket.upload(one, KEY), harness.bucket.upload(other, KEY), harness.bucket.upload(SMALL, KEY)
        )
        assert harness.stored() in (one, other, SMALL)
        assert not harness.server.uploads


@pytest.mark.parametrize("act", [users.upload, users.upload_in_parts, users.download, users.download_file])
async def test_closed_in_mid_transfer(tmp_path: Path, act: Callable[[Harness], Awaitable[None]]) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(
            Fault("PutObject", Silence()), Fault("UploadPart", Silence()), Fault("GetObject", Silence())
        )
        task = asyncio.ensure_future(act(harness))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await harness.bucket._client.aclose()
            with pytest.raises(errors.ClosedError):
                await task
        assert not harness.server.uploads
        harness.check_folder(OLD)


async def test_closed_in_mid_stream(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        harness.server.script(Fault("GetObject", Silence(), nth=3, times=99))
        task = asyncio.create_task(users.stream(harness))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await harness.bucket._client.aclose()
            with pytest.raises(errors.ClosedError):
                await task


async def test_two_loops_in_two_threads(tmp_path: Path) -> None:
    """Each with a bucket of its own; one that uses the other's is told so."""

    async def work_elsewhere(taken: Harness) -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await taken.bucket.size(KEY)
        session = S3Session(
            endpoint_url=taken.server.endpoint_url, access_key_id="id", secret_access_key="secret", config=CONFIG
        )
        async with session:
            bucket = session.bucket(BUCKET)
            for _ in range(3):
                await bucket.upload(LARGE, f"{KEY}2")
                assert (await bucket.download(f"{KEY}2")).getvalue() == LARGE

    async with open_harness(tmp_path) as harness:
        await harness.bucket.size(KEY)
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(asyncio.run, work_elsewhere(harness))
            while not elsewhere.done():
                file = await harness.bucket.download(KEY)
                assert file.getvalue() == LARGE
            elsewhere.result()


FORK = """
import asyncio, os, signal, sys
from tests.faults.harness import BUCKET, KEY, LARGE
from lsst_lfa import S3Session

session = S3Session(endpoint_url=sys.argv[1], access_key_id="id", secret_access_key="secret", region="us-east-1")
bucket = session.bucket(BUCKET)

async def work():
    assert (await bucket.download(KEY)).getvalue() == LARGE

async def forked(closes):
    await work()
    child = os.fork()
    if not child:
        signal.alarm(20)  # rather than to hang
        # Out of a loop that runs in the parent; its sockets are not ours.
        asyncio.events._set_running_loop(None)
        if closes:
            asyncio.run(session.aclose())
        asyncio.run(work())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    async with asyncio.timeout(5):  # the parent's connections are as they were
        await work()
    await session.aclose()

asyncio.run(work())
asyncio.run(forked(False))
asyncio.run(forked(True))
"""


async def test_a_fork_after_use(tmp_path: Path) -> None:
    async with open_harness(tmp_path) as harness:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "always::ResourceWarning", "-c", FORK, harness.server.endpoint_url,
            stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert "Traceback" not in said.decode()
        assert "Unclosed" not in said.decode()


SIZE = 60 * MiB
AS_S3_WANTS_THEM = replace(PATIENT, part_size=5 * MiB, range_size=2 * MiB)


async def source() -> AsyncIterator[bytes]:
    for _ in range(SIZE // MiB):
        yield bytes(MiB)


async def test_memory_of_an_upload(tmp_path: Path) -> None:
    async with open_harness(tmp_path, config=AS_S3_WANTS_THEM) as harness:
        harness.server.script(*(Fault("UploadPart", Reset(request_byte=-1), nth=n, times=2) for n in (2, 8)))
        with harness.bounded_upload():
            await harness.bucket.upload(source(), KEY, harness.callback)
        assert harness.server.objects[BUCKET, KEY].size == sum(harness.counts) == SIZE


@pytest.mark.parametrize("verb", ["download_file", "stream"])
async def test_memory_of_a_download(tmp_path: Path, verb: str) -> None:
    async with open_harness(tmp_path, config=AS_S3_WANTS_THEM) as harness:
        harness.server.objects[BUCKET, KEY] = StoredObject((bytes(MiB),) * (SIZE // MiB), "0" * 32)
        harness.server.script(Fault("GetObject", Reset(response_byte=MiB), nth=5, times=3))
        with harness.bounded_download():
            if verb == "stream":
                async for chunk in harness.bucket.stream(KEY):
                    assert chunk
            else:
                await harness.bucket.download_file(KEY, harness.destination)
