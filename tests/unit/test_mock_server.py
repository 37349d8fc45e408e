"""The mock S3 server over real sockets: serving, starting, stopping, and the process around it."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from botocore.handlers import validate_bucket_name

from lsst_lfa import MockS3Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

MiB = 1 << 20

# One for all: it keeps what botocore reads from its data files, half a second for each client.
_session = get_session()


@pytest.fixture
def server() -> Iterator[MockS3Server]:
    with MockS3Server() as server:
        server.create_bucket("bucket")
        yield server


@asynccontextmanager
async def client_of(server: MockS3Server) -> AsyncIterator[Any]:
    config = AioConfig(
        proxies={},
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
    )
    async with _session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=server.endpoint_url,
        verify=False,  # there is nothing to verify, and to read the authorities takes a while
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=config,
    ) as client:
        yield client


async def get(client: Any, key: str, bucket: str = "bucket") -> bytes:
    response = await client.get_object(Bucket=bucket, Key=key)
    data: bytes = await response["Body"].read()
    return data


def address(server: MockS3Server) -> tuple[str, int]:
    host, _, port = server.endpoint_url.removeprefix("http://").partition(":")
    return host, int(port)


def accepts(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, timeout=5).close()
    except ConnectionError:
        return False
    return True


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until something is true that happens soon, in another thread."""
    give_up_at = time.monotonic() + 5
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.002)
    return True


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


# The port


async def test_start_and_stop_with_a_full_default_executor() -> None:
    """Its jobs may be waiting for the server."""
    loop, free = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    job = loop.run_in_executor(None, free.wait, 10)
    async with asyncio.timeout(5), MockS3Server() as server:
        assert server.running
    free.set()
    await job


def test_a_server_takes_the_port_that_it_is_given() -> None:
    with MockS3Server() as first:
        port = address(first)[1]
    with MockS3Server(port=port) as second:
        assert address(second) == ("127.0.0.1", port)
        assert accepts(address(second))


def test_a_port_that_is_taken_is_an_error_and_not_the_end_of_the_process(server: MockS3Server) -> None:
    other = MockS3Server(port=address(server)[1])
    with pytest.raises(OSError, match="in use"):
        other.start()
    assert not other.running
    assert accepts(address(server))


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        MockS3Server(port=port)


# Serving


@pytest.mark.parametrize(
    "key",
    ["a", "a/b", "a//b", "/a", "a/", "a+b c", "a:b", "?x#y", "%2F", "x=1&y", "é/日本"],
)
async def test_object_comes_back_under_its_key(server: MockS3Server, key: str) -> None:
    async with client_of(server) as client:
        await client.put_object(Bucket="bucket", Key=key, Body=key.encode())
        assert await get(client, key) == key.encode()
        listing = await client.list_objects_v2(Bucket="bucket")
        assert [entry["Key"] for entry in listing["Contents"]] == [key]


async def test_large_object_goes_up_in_parts_of_5_mib_or_more(server: MockS3Server) -> None:
    async with client_of(server) as client:
        for sizes, good in (([5 * MiB, 1], True), ([5 * MiB - 1, 1], False)):
            where = {"Bucket": "bucket", "Key": "big"}
            started = await client.create_multipart_upload(**where)
            where["UploadId"] = started["UploadId"]
            parts = []
            for number, size in enumerate(sizes, 1):
                part = await client.upload_part(**where, PartNumber=number, Body=bytes([number]) * size)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
            complete = client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
            if good:
                await complete
                assert await get(client, "big") == bytes([1]) * 5 * MiB + b"\2"
            else:
                with pytest.raises(ClientError, match="EntityTooSmall"):
                    await complete


async def test_missing_key_and_bucket_are_404(server: MockS3Server) -> None:
    async with client_of(server) as client:
        for bucket, code in (("bucket", "NoSuchKey"), ("other", "NoSuchBucket")):
            with pytest.raises(ClientError, match=code):
                await get(client, "missing", bucket)


async def test_bucket_of_a_tenant_is_served(server: MockS3Server) -> None:
    server.create_bucket("tenant:bucket")
    async with client_of(server) as client:
        events = client.meta.events
        events.unregister("before-parameter-build.s3", validate_bucket_name)
        await client.put_object(Bucket="tenant:bucket", Key="a%3Ab", Body=b"1")
        assert await get(client, "a%3Ab", "tenant:bucket") == b"1"
        with pytest.raises(ClientError, match="NoSuchKey"):
            await get(client, "a%3Ab")


def test_unsigned_request_reaches_s3_whatever_the_bucket_is_called(
    server: MockS3Server,
) -> None:
    for bucket in ("ec2_us-east-1", "moto-api"):
        server.create_bucket(bucket)
        connection = HTTPConnection(*address(server), timeout=10)
        connection.request("GET", f"/{bucket}/missing")
        assert b"NoSuchKey" in connection.getresponse().read()
        connection.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_responses_have_one_server_header_at_most(server: MockS3Server, method: str) -> None:
    for path in ("/", "/bucket", "/bucket/key"):
        connection = HTTPConnection(*address(server), timeout=10)
        connection.request(method, path)
        names = [name.lower() for name, _ in connection.getresponse().getheaders()]
        connection.close()
        assert names.count("server") <= 1
        assert names.count("date") == 1


def test_listens_on_the_loopback_address_only(server: MockS3Server) -> None:
    port = address(server)[1]
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    texts = [table.read_text("ascii") for table in tables if table.exists()]
    lines = [line.split() for text in texts for line in text.splitlines()[1:]]
    listening = [line[1] for line in lines if line[3] == "0A"]
    mine = [name for name in listening if name.endswith(f":{port:04X}")]
    assert mine == [f"0100007F:{port:04X}"] or not lines


def test_requests_write_nothing_to_the_terminal(server: MockS3Server, capfd: pytest.CaptureFixture[str]) -> None:
    for request in (b"GET /bucket HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET /bu"):
        with socket.create_connection(address(server), timeout=5) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    assert capfd.readouterr() == ("", "")


# Buckets


async def test_bucket_is_made_without_a_request_and_may_exist(
    server: MockS3Server,
) -> None:
    async with client_of(server) as client:
        await client.put_object(Bucket="bucket", Key="a", Body=b"1")
        server.create_bucket("bucket")
        assert await get(client, "a") == b"1"
        listing = await client.list_buckets()
        assert [entry["Name"] for entry in listing["Buckets"]] == ["bucket"]


@pytest.mark.parametrize("name", ["", "ab", "x" * 64])
def test_bucket_name_must_be_of_a_legal_length(server: MockS3Server, name: str) -> None:
    with pytest.raises(ValueError, match="3 to 63"):
        server.create_bucket(name)


def test_bucket_needs_a_running_server() -> None:
    server = MockS3Server()
    with pytest.raises(RuntimeError, match="start it first"):
        server.create_bucket("bucket")
    server.start()
    server.stop()
    with pytest.raises(RuntimeError, match="start it first"):
        server.create_bucket("bucket")


async def test_servers_share_nothing(server: MockS3Server) -> None:
    async with (
        MockS3Server() as other,
        client_of(server) as client,
        client_of(other) as other_client,
    ):
        assert (await other_client.list_buckets())["Buckets"] == []
        await other_client.create_bucket(Bucket="bucket")
        for mine, value in ((client, b"1"), (other_client, b"2")):
            await mine.put_object(Bucket="bucket", Key="a", Body=value)
        assert await get(client, "a") == b"1"
        assert await get(other_client, "a") == b"2"
        other.create_bucket("hers")
        with pytest.raises(ClientError, match="404"):
            await client.head_bucket(Bucket="hers")
        # Nor does one's end end the other.
        other.stop()
        assert await get(client, "a") == b"1"


async def test_many_servers_may_make_the_same_bucket_at_the_same_time() -> None:
    async def use() -> None:
        async with MockS3Server() as server, client_of(server) as client:
            await client.create_bucket(Bucket="bucket")
            await client.put_object(Bucket="bucket", Key="a", Body=b"1")
            await client.delete_object(Bucket="bucket", Key="a")
            await client.delete_bucket(Bucket="bucket")
            assert (await client.list_buckets())["Buckets"] == []

    await asyncio.gather(*(use() for _ in range(8)))


async def test_new_server_knows_nothing_of_an_old_one() -> None:
    for _ in range(2):
        async with MockS3Server() as server, client_of(server) as client:
            assert (await client.list_buckets())["Buckets"] == []
            server.create_bucket("bucket")


# Starting and stopping


def test_running_and_endpoint_follow_the_server() -> None:
    server = MockS3Server()
    assert not server.running
    with pytest.raises(RuntimeError, match="never started"):
        _ = server.endpoint_url
    server.start()
    url = server.endpoint_url
    server.start()
    assert server.running
    assert server.endpoint_url == url
    assert url.startswith("http://127.0.0.1:")
    assert url in repr(server)
    assert accepts(address(server))
    server.stop()
    assert not server.running
    assert server.endpoint_url == url
    assert "not running" in repr(server)


def test_stop_refuses_connections_and_may_be_called_again() -> None:
    server = MockS3Server()
    server.start()
    server.stop()
    server.stop()
    where = address(server)
    assert wait_for(lambda: not accepts(where))


def test_stop_before_start_is_for_good_too() -> None:
    server = MockS3Server()
    server.stop()
    with pytest.raises(RuntimeError, match="make a new MockS3Server"):
        server.start()


def test_stopped_server_cannot_be_started_again() -> None:
    with MockS3Server() as server:
        pass
    with pytest.raises(RuntimeError, match="make a new MockS3Server"):
        server.start()


async def test_stop_returns_at_once_in_a_coroutine() -> None:
    async def seconds() -> float:
        async with MockS3Server() as server, client_of(server) as client:
            server.create_bucket("bucket")
            for number in range(20):
                await client.put_object(Bucket="bucket", Key=str(number), Body=b"1")
            started = time.perf_counter()
            server.stop()
            return time.perf_counter() - started

    for _ in range(3):  # the best counts: a machine with other work may hold us itself
        if (elapsed := await seconds()) < 0.05:
            return
    pytest.fail(f"{elapsed} s")


def test_stop_cuts_a_connection_in_use(server: MockS3Server) -> None:
    with socket.create_connection(address(server), timeout=5) as connection:
        connection.sendall(b"PUT /bucket/a HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
        time.sleep(0.05)  # so that it is accepted
        server.stop()
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass


def test_leaving_with_waits_for_the_thread() -> None:
    with MockS3Server() as server:
        name = f"MockS3Server:{address(server)[1]}"
        assert name in {thread.name for thread in threading.enumerate()}
    assert name not in {thread.name for thread in threading.enumerate()}


async def test_leaving_async_with_waits_for_the_thread() -> None:
    async with MockS3Server() as server:
        name = f"MockS3Server:{address(server)[1]}"
    assert name not in {thread.name for thread in threading.enumerate()}
    assert not accepts(address(server))


def mock_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("MockS3Server")}


async def test_cancelled_start_leaves_no_server() -> None:
    others = mock_threads()
    server = MockS3Server()
    task = asyncio.create_task(server.__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.running
    await asyncio.sleep(0.2)  # for the thread that was starting it
    deadline = time.monotonic() + 5
    while mock_threads() - others and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert mock_threads() <= others


def test_dropped_server_stops_by_itself() -> None:
    server = MockS3Server()
    server.start()
    where = address(server)
    del server
    gc.collect()
    assert wait_for(lambda: not accepts(where))


# The process around it


def test_import_is_light_and_start_leaves_the_environment_alone() -> None:
    code = """
import os, sys
from lsst_lfa import MockS3Server
assert not {"moto", "werkzeug", "flask", "boto3"} & set(sys.modules)
before = dict(os.environ)
with MockS3Server() as server:
    server.create_bucket("bucket")
assert dict(os.environ) == before
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_async_start_imports_moto_off_the_loop() -> None:
    code = """
import asyncio, sys, threading
from lsst_lfa import MockS3Server
threads = []
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("moto", "werkzeug", "flask"):
            threads.append(threading.current_thread())
sys.meta_path.insert(0, Spy())
async def main():
    async with MockS3Server():
        pass
asyncio.run(main())
assert threads and threading.main_thread() not in threads
"""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_server_that_is_left_running_makes_no_noise() -> None:
    code = """
import gc, http.client
from lsst_lfa import MockS3Server
def use():
    server = MockS3Server()
    server.start()
    server.create_bucket("bucket")
    for size in (10, 6 << 20):
        host = server.endpoint_url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("PUT", f"/bucket/{size}", body=bytes(size))
        assert connection.getresponse().status == 200
        connection.close()
    return server
use()
gc.collect()
use().stop()
left = use()
"""
    done = run(code, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_strict_client_accepts_the_responses() -> None:
    # In development mode aiohttp parses strictly.
    code = """
import asyncio
from aiobotocore.session import get_session
from lsst_lfa import MockS3Server
async def main():
    async with MockS3Server() as server, get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
    ) as client:
        await client.create_bucket(Bucket="bucket")
        await client.put_object(Bucket="bucket", Key="a", Body=b"1")
        await client.head_object(Bucket="bucket", Key="a")
        response = await client.get_object(Bucket="bucket", Key="a")
        assert await response["Body"].read() == b"1"
        await client.list_objects_v2(Bucket="bucket")
        await client.delete_object(Bucket="bucket", Key="a")
asyncio.run(main(), debug=False)
"""
    done = run(code, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Forks: the parent's server stays the parent's

FORK = """
import asyncio, gc, http.client, multiprocessing, os, socket, sys, threading
from lsst_lfa import AsyncS3Bucket, MockS3Server

def request(method, body=None, path="/bucket/key", url=None):
    connection = http.client.HTTPConnection((url or server.endpoint_url).removeprefix("http://"), timeout=20)
    connection.request(method, path, body)
    response = connection.getresponse()
    result = response.status, response.read()
    connection.close()
    return result

def fork(child):
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status

bucket = AsyncS3Bucket("bucket", domock=True)
server = bucket._mock
assert request("PUT", b"data") == (200, b"")
{lines}
assert server.running
assert request("GET") == (200, b"data")
assert request("PUT", b"data") == (200, b"")
server.create_bucket("another")
thread = server._service.thread
server.stop()
thread.join(10)
assert not thread.is_alive()
try:
    request("GET")
except ConnectionRefusedError:
    print("well")
"""


def run_fork(lines: str) -> None:
    # Python 3.12 and later warn of a fork beside threads.
    done = run(FORK.replace("{lines}", lines), "-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning")
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_forked_children_leave_their_parents_server_running() -> None:
    ends = [
        "pass",
        "sys.exit()",
        "server.stop()",
        "server.stop(); server.stop(); sys.exit()",
        "server.__exit__(None, None, None)",
        "bucket.stop_mock()",
        "asyncio.run(bucket.aclose()); sys.exit()",
        "del server, bucket; gc.collect()",
    ]
    lines = f"""
for end in {ends}:
    fork(lambda: exec(end, globals()))
    assert request("GET") == (200, b"data"), end
"""
    run_fork(lines)


def test_children_of_multiprocessing_leave_their_parents_server_running() -> None:
    ends = ["pass", "sys.exit()", "server.stop()", "bucket.stop_mock()", "del server, bucket; gc.collect()"]
    lines = f"""
for end in {ends}:
    process = multiprocessing.get_context("fork").Process(target=exec, args=(end, globals()))
    process.start()
    process.join()
    assert process.exitcode == 0, end
    process.close()
    assert request("GET") == (200, b"data"), end
"""
    run_fork(lines)


def test_forked_child_can_be_a_client_of_its_parents_server() -> None:
    lines = """
def child():
    assert server.running
    assert request("PUT", b"data") == (200, b"")
    try:
        server.create_bucket("theirs")
    except RuntimeError as error:
        assert "parent process" in str(error)
    else:
        raise AssertionError
    server.stop()
    assert not server.running
    assert request("GET") == (200, b"data")
fork(child)
"""
    run_fork(lines)


def test_forked_child_can_have_a_server_of_its_own_even_while_its_parent_starts_one() -> None:
    lines = """
import signal
from lsst_lfa._mock import server as module
def child():
    signal.alarm(20)
    with MockS3Server() as own:
        own.create_bucket("bucket")
        assert request("GET", url=own.endpoint_url)[0] == 404
        assert request("PUT", b"mine", url=own.endpoint_url)[0] == 200
    sys.exit()
with module._lock:
    fork(child)
"""
    run_fork(lines)


def test_forked_child_does_not_cut_its_parents_connections() -> None:
    lines = """
where = server.endpoint_url.removeprefix("http://").split(":")
with socket.create_connection(where, timeout=20) as connection:
    connection.sendall(b"PUT /bucket/key HTTP/1.1\\r\\nHost: mock\\r\\nContent-Length: 4\\r\\n\\r\\nda")
    while not server._service.connections:
        pass
    fork(server.stop)
    connection.sendall(b"ta")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
"""
    run_fork(lines)


def test_forked_child_that_lives_on_holds_none_of_its_parents_sockets() -> None:
    lines = """
def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found += [name] * os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass  # closed meanwhile
    return found
def child():
    assert not sockets()
while len(sockets()) > 1:
    pass  # the last response's connection
assert sockets()
fork(child)
"""
    run_fork(lines)
