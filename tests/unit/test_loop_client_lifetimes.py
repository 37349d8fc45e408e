"""Clients, loops and processes: opened once, closed once, silent when dropped."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import pytest

from lsst_lfa import AsyncS3Bucket, MockS3Server, S3Session, TransferConfig, errors
from lsst_lfa._client.settings import _data_loader
from lsst_lfa._transfer.failures import RequestInfo
from lsst_lfa._transfer.plan import MIN_PART_SIZE

SMALL_PARTS = TransferConfig(
    part_size=MIN_PART_SIZE,
    memory_part_size=MIN_PART_SIZE,
    multipart_threshold=MIN_PART_SIZE,
    range_size=MIN_PART_SIZE,
)
# What users have: nothing of the test run's, and modules that were compiled before.
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("AWS_", "S3_")) and name != "PYTHONDONTWRITEBYTECODE"
}


def run_python(code: str, *options: str) -> str:
    """Run code in a new interpreter; whatever it writes to stderr is a failure."""
    process = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=CLEAN,
        cwd=Path(__file__).parents[2],
    )
    assert process.stderr == "", process.stderr
    assert process.returncode == 0
    return process.stdout


async def test_many_tasks_open_one_client(server: MockS3Server) -> None:
    session = S3Session.for_mock(server)

    async def client() -> Any:
        async with session._client.borrow(RequestInfo("test", "test", None, ""), session.config) as borrowed:
            await asyncio.sleep(0.01)
            return borrowed.client

    clients = await asyncio.gather(*(client() for _ in range(20)))
    assert len(set(map(id, clients))) == 1
    await session.aclose()


async def test_over_http_no_authorities_are_read(server: MockS3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    keys: dict[str, Any] = {
        "access_key_id": "id",
        "secret_access_key": "secret",
        "config": TransferConfig(max_attempts=1),
    }
    async with S3Session(endpoint_url=server.endpoint_url, **keys) as session:
        await session.bucket("test").check()
    async with S3Session(endpoint_url=server.endpoint_url.replace("http:", "https:"), **keys) as session:
        with pytest.raises(errors.ConfigurationError, match="/no/such/file"):
            await session.bucket("test").check()


def test_boto3s_resource_reads_botocores_models_once(server: MockS3Server) -> None:
    buckets = [S3Session.for_mock(server).bucket("test") for _ in range(3)]
    clients = [bucket.service_resource.meta.client for bucket in buckets]
    assert len({id(client.meta.service_model._service_description) for client in clients}) == 1
    paths = _data_loader(None).search_paths
    assert len(paths) == len(set(paths))


async def test_a_cancelled_opener_does_not_stop_the_others(server: MockS3Server) -> None:
    async with S3Session.for_mock(server) as session:
        await session.aclose()
        bucket = session.bucket("test")
        tasks = [asyncio.create_task(bucket.exists("k")) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [False, False]
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]


def test_asyncio_run_twice_with_one_bucket(server: MockS3Server) -> None:
    bucket = AsyncS3Bucket("test", session=S3Session.for_mock(server))
    for number in range(2):
        asyncio.run(bucket.upload(b"data", f"run-{number}"))
    assert asyncio.run(bucket.exists("run-0"))


async def test_the_loop_is_the_one_that_was_chosen(pytestconfig: pytest.Config) -> None:
    uvloops = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    assert uvloops == (pytestconfig.getoption("loop") == "uvloop")


def test_under_uvloop(server: MockS3Server) -> None:
    import uvloop

    bucket = AsyncS3Bucket("test", session=S3Session.for_mock(server, SMALL_PARTS))
    data = os.urandom(9_000_000)

    async def round_trip() -> bytes:
        await bucket.upload(data, "uvloop")
        return (await bucket.download("uvloop")).getvalue()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(round_trip()) == data


def test_in_an_isolated_asyncio_test_case() -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        def setUp(self) -> None:
            self.bucket = AsyncS3Bucket("test", domock=True)

        def tearDown(self) -> None:
            self.bucket.stop_mock()

        async def test_upload(self) -> None:
            await self.bucket.upload(b"data", "k")
            self.assertTrue(await self.bucket.exists("k"))  # noqa: PT009 - this is a unittest

        test_again = test_upload

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])


async def test_another_loop_gets_a_clear_error_while_this_one_is_open(server: MockS3Server) -> None:
    async with S3Session.for_mock(server) as session:
        await session.bucket("test").exists("k")
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, session.bucket("test").exists("k"))
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, session.aclose())
        assert await session.bucket("test").exists("k") is False


async def test_two_loops_in_two_threads_with_a_session_each(server: MockS3Server) -> None:
    results: list[bool] = []

    def work(number: int) -> None:
        bucket = AsyncS3Bucket("test", session=S3Session.for_mock(server))
        asyncio.run(bucket.upload(b"data", f"thread-{number}"))
        results.append(asyncio.run(bucket.exists(f"thread-{number}")))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert results == [True, True]


async def test_close_ends_transfers_under_way_and_cleans_up(server: MockS3Server) -> None:
    session = S3Session.for_mock(server, SMALL_PARTS)
    bucket = session.bucket("test")
    begun = asyncio.Event()

    async def slow() -> Any:
        yield bytes(20_000_000)
        begun.set()
        await asyncio.sleep(60)
        yield b""

    upload = asyncio.create_task(bucket.upload(slow(), "closed"))
    await begun.wait()
    start = time.monotonic()
    await session.aclose()
    with pytest.raises(errors.ClosedError):
        await upload
    assert time.monotonic() - start < 5
    assert not await bucket.exists("closed")
    assert await bucket.abort_stale_uploads(0) == 0
    await session.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_dropped_session_closes_its_client(server: MockS3Server) -> None:
    session: S3Session | None = S3Session.for_mock(server)
    assert session is not None
    async with session._client.borrow(RequestInfo("test", "test", None, ""), session.config) as borrowed:
        http = borrowed.client._endpoint.http_session
    await session.bucket("test").exists("k")
    assert http._session is not None
    del session
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if http._session is None:
            return
    pytest.fail("the client is still open")


@pytest.mark.parametrize("option", ["-Wdefault", "-Xdev"])
def test_dropping_a_bucket_unclosed_prints_nothing(option: str) -> None:
    code = """
        import asyncio, gc, logging, lsst_lfa
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # not slow callbacks: they are another test's
        async def main(ending):
            bucket = lsst_lfa.AsyncS3Bucket("test", domock=True)
            await bucket.upload(b"data", "k")
            if ending == "dropped":
                bucket = None
                await asyncio.sleep(0.2)
            elif ending == "closed":
                await bucket.aclose()
            gc.collect()
        for ending in ("left to the loop's end", "dropped", "closed"):
            asyncio.run(main(ending))
            asyncio.run(main(ending))
            gc.collect()
            print("done")
    """
    assert run_python(code, option) == 3 * "done\n"


def test_a_global_bucket_prints_nothing_at_exit() -> None:
    code = """
        import asyncio, lsst_lfa
        bucket = lsst_lfa.AsyncS3Bucket("test", domock=True)
        asyncio.run(bucket.upload(b"data", "k"))
        asyncio.run(bucket.upload(b"data", "k"))
        never_used = lsst_lfa.AsyncS3Bucket("test")
    """
    assert run_python(code, "-Wdefault") == ""


def test_a_stream_left_unfinished_prints_nothing() -> None:
    code = """
        import asyncio, logging, lsst_lfa
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        async def main():
            global stream, listing
            bucket = lsst_lfa.AsyncS3Bucket("test", domock=True)
            await bucket.upload(bytes(lsst_lfa.TransferConfig().part_size + 1), "a")
            await bucket.upload(b"", "b")
            stream, listing = bucket.stream("a"), bucket.list()
            await anext(stream), await anext(listing)
        asyncio.run(main())
    """
    assert run_python(code, "-Xdev") == ""


def test_with_awscrt() -> None:
    from botocore import compat

    assert compat.HAS_CRT, "all the other tests run with it: it is among what they need"


def test_without_awscrt() -> None:
    code = """
        import asyncio, sys
        sys.modules["awscrt"] = None
        import lsst_lfa, botocore.compat
        assert botocore.compat.HAS_CRT is False
        async def main():
            async with lsst_lfa.AsyncS3Bucket("test", domock=True) as bucket:
                large = bytes(lsst_lfa.TransferConfig().multipart_threshold + 1)
                await bucket.upload(large, "k:é")
                assert (await bucket.download("k:é")).getvalue() == large
                print(len(await bucket.presigned_url("k:é")) > 100)
        asyncio.run(main())
    """
    assert run_python(code) == "True\n"


def test_importing_costs_little_more_than_aiobotocore() -> None:
    code = """
        import sys, time
        start = time.process_time()
        import aiobotocore.session
        middle = time.process_time()
        from lsst_lfa import AsyncS3Bucket
        print((time.process_time() - middle) / (middle - start))
        heavy = {"moto", "boto3", "astropy", "numpy", "werkzeug", "flask"} & sys.modules.keys()
        assert not heavy, heavy
    """
    # As a ratio, of CPU time: machines differ. Where aiobotocore takes 215 ms, it is 40 ms.
    assert any(float(run_python(code)) < 1 / 4 for _ in range(3))


def test_used_after_a_fork_it_opens_afresh(server: MockS3Server) -> None:
    bucket = AsyncS3Bucket("test", session=S3Session.for_mock(server))

    async def use_and_fork() -> int:
        await bucket.upload(b"data", "forked")
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(bucket))
        return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])

    assert asyncio.run(use_and_fork()) == 0
    assert asyncio.run(bucket.exists("forked"))


def _in_child(bucket: AsyncS3Bucket) -> int:
    # The loop that was running when it forked is not running in the child.
    asyncio._set_running_loop(None)
    try:
        return 0 if asyncio.run(bucket.exists("forked")) else 1
    except BaseException:  # noqa: BLE001 - the parent reports it
        return 2
