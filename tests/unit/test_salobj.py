"""The drop-in for ``lsst.ts.salobj.AsyncS3Bucket``: what its users do."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import re
import select
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from astropy.time import Time
from botocore.exceptions import BotoCoreError, ClientError

import lsst_lfa
from lsst_lfa import MockS3Server, salobj
from lsst_lfa.salobj import AsyncS3Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = AsyncS3Bucket.make_bucket_name("Test")
KEY = "Foo:Blue/gen/2020/04/01/Foo:Blue_gen_2020-04-02T11:59:59.999.dat"
MANUAL = Path(__file__).parents[2] / "examples" / "migrate_from_salobj.md"
MiB = 1 << 20
LARGE = lsst_lfa.TransferConfig().multipart_threshold + MiB


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockS3Server]:
    """A service that the environment names, as in production; it has no bucket yet."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with MockS3Server() as server:
        monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield server


@pytest.fixture
def bucket() -> Iterator[AsyncS3Bucket]:
    """Made outside of any loop, and never closed: as a component does."""
    bucket = AsyncS3Bucket(NAME, create=True, domock=True)
    yield bucket
    bucket.stop_mock()


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which every warning, also one in a destructor, is seen."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # On a busy machine, development mode tells of callbacks that take long, in whichever loop.
    done.stderr = re.sub(r"^Executing <.*> took [\d.]+ seconds\n", "", done.stderr, flags=re.MULTILINE)
    return done


# The signatures


def parameters(function: Any) -> list[str]:
    return [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]


def test_signatures() -> None:
    signature = inspect.signature(AsyncS3Bucket)
    assert parameters(AsyncS3Bucket) == ["name", "create=False", "profile=None", "domock=False"]
    assert [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY] == [
        "create",
        "profile",
        "domock",
    ]
    assert parameters(AsyncS3Bucket.make_bucket_name) == ["s3instance", "s3category='LFA'"]
    assert parameters(AsyncS3Bucket.make_key) == [
        "salname",
        "salindexname",
        "generator",
        "date",
        "other=None",
        "stem=None",
        "suffix='.dat'",
    ]
    # What we have beside theirs is by keyword only.
    assert parameters(AsyncS3Bucket.upload)[:3] == ["fileobj", "key", "callback=None"]
    assert parameters(AsyncS3Bucket.download)[:2] == ["key", "callback=None"]
    assert parameters(AsyncS3Bucket.exists) == ["key"]
    assert parameters(AsyncS3Bucket.size) == ["key"]
    assert parameters(AsyncS3Bucket.stop_mock) == []
    assert not inspect.iscoroutinefunction(AsyncS3Bucket.stop_mock)


def test_the_specified_class_keeps_its_own_names() -> None:
    assert parameters(lsst_lfa.AsyncS3Bucket.make_key) == ["salname", "generator", "date"]
    assert parameters(lsst_lfa.AsyncS3Bucket)[:2] == ["name", "domock=False"]
    assert lsst_lfa.AsyncS3Bucket.upload is AsyncS3Bucket.upload


# Names of buckets


def test_make_bucket_name(bucket: AsyncS3Bucket) -> None:
    assert AsyncS3Bucket.make_bucket_name("Summit") == "rubinobs-lfa-summit"
    assert AsyncS3Bucket.make_bucket_name(s3instance="TUCSON", s3category="Other") == "rubinobs-other-tucson"
    assert AsyncS3Bucket.make_bucket_name("a.9", "0") == "rubinobs-0-a.9"
    assert bucket.make_bucket_name(s3instance="Summit") == "rubinobs-lfa-summit"


@pytest.mark.parametrize("bad", ["", ".", ".a", "a.", "a-b", "a_b", "a b", "ä", "a\n", "-a", "a/"])
def test_make_bucket_name_refuses(bad: str) -> None:
    with pytest.raises(ValueError, match="s3instance"):
        AsyncS3Bucket.make_bucket_name(s3instance=bad)
    with pytest.raises(ValueError, match="s3category"):
        AsyncS3Bucket.make_bucket_name(s3instance="Summit", s3category=bad)


def test_make_bucket_name_has_a_longest() -> None:
    longest = AsyncS3Bucket.make_bucket_name("x" * (63 - len("rubinobs-lfa-")))
    assert len(longest) == 63
    with pytest.raises(ValueError, match="64 characters"):
        AsyncS3Bucket.make_bucket_name("x" * (64 - len("rubinobs-lfa-")))


def test_make_bucket_name_wants_text() -> None:
    with pytest.raises(TypeError, match="s3instance"):
        AsyncS3Bucket.make_bucket_name(None)  # type: ignore[arg-type]


# Keys


def test_make_key_on_the_class_and_on_an_instance(bucket: AsyncS3Bucket) -> None:
    date = Time("2020-04-02T11:59:59.999", scale="tai")
    assert AsyncS3Bucket.make_key(salname="Foo", salindexname="Blue", generator="gen", date=date) == KEY
    assert bucket.make_key(salname="Foo", salindexname="Blue", generator="gen", date=date) == KEY
    assert AsyncS3Bucket.make_key("Foo", "Blue", "gen", date) == KEY


@pytest.mark.parametrize(
    ("index", "fullsalname"),
    [
        (None, "Foo"),
        (0, "Foo"),
        ("", "Foo"),
        (5, "Foo:5"),
        ("5", "Foo:5"),
        ("Blue", "Foo:Blue"),
        ("0", "Foo:0"),  # text that is not empty is a name
    ],
)
def test_make_key_with_every_kind_of_index(index: str | int | None, fullsalname: str) -> None:
    key = AsyncS3Bucket.make_key("Foo", index, "gen", "2021-12-31T23:00:00")
    assert key == f"{fullsalname}/gen/2021/12/31/{fullsalname}_gen_2021-12-31T23:00:00.000.dat"


def test_make_key_with_every_argument() -> None:
    key = AsyncS3Bucket.make_key("Foo", 1, "gen", "2020-04-02T11:59:59", "obs-7", suffix=".fits")
    assert key == "Foo:1/gen/2020/04/01/Foo:1_gen_obs-7.fits"
    key = AsyncS3Bucket.make_key(
        salname="Foo", salindexname=None, generator="gen", date="2020-04-02T12:00", other="x", suffix=""
    )
    assert key == "Foo/gen/2020/04/02/Foo_gen_x"
    assert AsyncS3Bucket.make_key("Foo", None, "gen", "2020-04-02", other=12).endswith("/Foo_gen_12.dat")
    assert AsyncS3Bucket.make_key("Foo", None, "gen", "2020-04-02", other="").endswith("/Foo_gen_.dat")


def test_a_stem_replaces_the_whole_file_name() -> None:
    key = AsyncS3Bucket.make_key("Foo", 1, "gen", "2020-04-02T12:00", stem="night/run/7", suffix=".json")
    assert key == "Foo:1/gen/2020/04/02/night/run/7.json"
    key = AsyncS3Bucket.make_key("Foo", 1, "gen", "2020-04-02T12:00", other="ignored", stem="7")
    assert key == "Foo:1/gen/2020/04/02/7.dat"


@pytest.mark.parametrize(
    ("text", "day", "shown"),
    [
        ("2020-04-02T11:59:59.999", "2020/04/01", "2020-04-02T11:59:59.999"),
        ("2020-04-02T11:59:59.9999", "2020/04/02", "2020-04-02T12:00:00.000"),
        ("2020-04-02T12:00:00", "2020/04/02", "2020-04-02T12:00:00.000"),
        ("2020-01-01 00:00:00", "2019/12/31", "2020-01-01T00:00:00.000"),
        ("2020-03-01", "2020/02/29", "2020-03-01T00:00:00.000"),
    ],
)
def test_make_key_from_a_time_and_from_text(text: str, day: str, shown: str) -> None:
    expected = f"Foo/gen/{day}/Foo_gen_{shown}.dat"
    assert AsyncS3Bucket.make_key("Foo", None, "gen", text) == expected
    assert AsyncS3Bucket.make_key("Foo", None, "gen", Time(text, scale="tai")) == expected


def test_make_key_is_in_tai() -> None:
    # UTC was 37 s behind TAI: noon had passed.
    key = AsyncS3Bucket.make_key("Foo", None, "gen", Time("2020-04-02T11:59:30", scale="utc"))
    assert key == "Foo/gen/2020/04/02/Foo_gen_2020-04-02T12:00:07.000.dat"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"salname": ""}, "salname"),
        ({"generator": ""}, "generator"),
        ({"date": "yesterday"}, "date"),
        ({"stem": "../x"}, "segment"),
        ({"other": "a\nb"}, "control"),
        ({"suffix": "x" * 1024}, "1024"),
    ],
)
def test_make_key_refuses(changed: dict[str, Any], error: str) -> None:
    good: dict[str, Any] = {"salname": "Foo", "salindexname": 1, "generator": "gen", "date": "2020-04-02"}
    AsyncS3Bucket.make_key(**good)
    with pytest.raises(ValueError, match=error):
        AsyncS3Bucket.make_key(**good | changed)


# Making a bucket


def test_attributes(bucket: AsyncS3Bucket, service: MockS3Server) -> None:
    assert bucket.name == NAME
    assert bucket.profile is None
    assert isinstance(bucket.mock, MockS3Server)
    assert bucket.mock.running
    assert bucket.service_resource.meta.client.meta.endpoint_url == bucket.mock.endpoint_url
    assert bucket.bucket.name == NAME
    assert bucket  # users write "if not bucket"

    plain = AsyncS3Bucket(name=NAME, profile="summit")
    assert plain.mock is None
    assert plain.profile == "summit"
    plain.stop_mock()  # there is none


@pytest.mark.parametrize("create", [False, True])
def test_making_one_makes_no_connection(monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        AsyncS3Bucket(NAME, create=create)
        assert select.select([listener], [], [], 0.05) == ([], [], [])


def test_a_bucket_made_before_any_loop_is_used_in_later_ones(service: MockS3Server) -> None:
    bucket = AsyncS3Bucket(NAME, create=True)

    async def store(data: bytes) -> bytes:
        await bucket.upload(io.BytesIO(data), "key")
        return (await bucket.download("key")).getvalue()

    assert asyncio.run(store(b"first loop")) == b"first loop"
    assert asyncio.run(store(b"second loop")) == b"second loop"


@pytest.mark.parametrize("create", [False, True])
async def test_create_makes_the_bucket_with_the_first_await(service: MockS3Server, create: bool) -> None:
    bucket = AsyncS3Bucket(NAME, create=create)
    if create:
        assert not await bucket.exists("key")
        await AsyncS3Bucket(NAME, create=True).upload(io.BytesIO(b"1"), "key")  # it is there already: no error
        assert await bucket.size("key") == 1
    else:
        with pytest.raises(ClientError, match=NAME):
            await bucket.exists("key")


@pytest.mark.parametrize("simulation", [False, True])
async def test_mocked_and_created_if_simulating(service: MockS3Server, simulation: bool) -> None:
    service.create_bucket(NAME)
    before = dict(os.environ)
    bucket = AsyncS3Bucket(NAME, domock=simulation, create=simulation)
    url = await bucket.upload(fileobj=io.BytesIO(b"123"), key="key")
    assert await bucket.exists("key")
    assert (bucket.mock is not None) is simulation
    assert url.startswith(service.endpoint_url) is not simulation
    assert await AsyncS3Bucket(NAME).exists("key") is not simulation
    assert dict(os.environ) == before
    bucket.stop_mock()


async def test_a_mock_has_the_bucket_without_create() -> None:
    bucket = AsyncS3Bucket(NAME, domock=True)
    assert not await bucket.exists("key")
    bucket.stop_mock()


async def test_stop_mock_from_a_coroutine_twice(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(io.BytesIO(b"123"), "key")
    server = bucket.mock
    assert server is not None
    began = time.perf_counter()
    bucket.stop_mock()
    bucket.stop_mock()
    assert time.perf_counter() - began < 0.05
    assert bucket.mock is None
    assert not server.running
    with pytest.raises(ConnectionError) as error:
        await bucket.check()
    assert isinstance(error.value, lsst_lfa.LfaError)
    assert not isinstance(error.value, BotoCoreError)


async def test_closing_stops_the_mock() -> None:
    async with AsyncS3Bucket(NAME, domock=True) as bucket:
        assert await bucket.upload(b"123", "key")
    assert bucket.mock is None


CHILD = """
    import asyncio, io, multiprocessing, sys
    from lsst_lfa.salobj import AsyncS3Bucket

    async def use(bucket, key):
        # On a busy machine, development mode tells of callbacks that take long.
        asyncio.get_running_loop().slow_callback_duration = 10
        await bucket.upload(io.BytesIO(key.encode()), key)
        return (await bucket.download(key)).getvalue()

    def child(results, domock):
        bucket = AsyncS3Bucket("test-bucket", create=True, domock=domock)
        results.put(asyncio.run(use(bucket, "child")))

    def heir(results, bucket):
        results.put(asyncio.run(use(bucket, "heir")))

    def result_of(context, target, argument):
        results = context.SimpleQueue()
        process = context.Process(target=target, args=(results, argument))
        process.start()
        process.join(30)
        assert process.exitcode == 0, process.exitcode
        return results.get()

    context = multiprocessing.get_context("fork")
    ours = AsyncS3Bucket("test-bucket", create=True)
    assert asyncio.run(use(ours, "parent")) == b"parent"
    assert result_of(context, child, False) == b"child"
    assert result_of(context, child, True) == b"child"
    # One that is inherited, whose client the parent had opened.
    assert result_of(context, heir, ours) == b"heir"
    assert asyncio.run(use(ours, "again")) == b"again"
"""


def test_a_bucket_made_in_a_child_process(service: MockS3Server) -> None:
    done = run_python(CHILD)
    assert (done.returncode, done.stderr) == (0, "")


DROPPED = """
    import asyncio, gc, io
    from lsst_lfa.salobj import AsyncS3Bucket

    kept = []

    async def use(domock):
        # On a busy machine, development mode tells of callbacks that take long.
        asyncio.get_running_loop().slow_callback_duration = 10
        bucket = AsyncS3Bucket("test-bucket", create=True, domock=domock)
        await bucket.upload(io.BytesIO(b"123"), "key")
        return bucket

    async def with_the_loop(domock):
        await use(domock)

    async def in_the_running_loop(domock):
        await use(domock)
        gc.collect()
        await asyncio.sleep(0.05)

    async def in_a_cycle(domock):
        bucket = await use(domock)
        bucket.me = bucket
        del bucket
        gc.collect()

    async def after_the_loop(domock):
        kept.append(await use(domock))

    async def by_cancelling(domock):
        bucket = await use(domock)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bucket.upload(io.BytesIO(bytes(20_000_000)), "key"))
            await asyncio.sleep(0.01)
            task.cancel()

    for drop in (with_the_loop, in_the_running_loop, in_a_cycle, after_the_loop, by_cancelling):
        asyncio.run(drop(False))
        kept.clear()
        gc.collect()
        print(drop.__name__)
    asyncio.run(in_the_running_loop(True))
    asyncio.run(after_the_loop(True))  # dropped by the interpreter
    kept.append(AsyncS3Bucket("test-bucket", domock=True))
"""


def test_a_bucket_that_is_dropped_is_silent(service: MockS3Server) -> None:
    done = run_python(DROPPED)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == 5


# Transfers


async def test_the_url_built_by_hand_is_the_one_of_upload(bucket: AsyncS3Bucket) -> None:
    url = await bucket.upload(io.BytesIO(b"123"), KEY)
    assert url == f"{bucket.service_resource.meta.client.meta.endpoint_url}/{bucket.name}/{KEY}"
    assert url == bucket.url(KEY)


@pytest.mark.parametrize("tail", ["", "/"])
async def test_the_url_with_an_endpoint_from_the_environment(
    service: MockS3Server, monkeypatch: pytest.MonkeyPatch, tail: str
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", service.endpoint_url + tail)
    bucket = AsyncS3Bucket(NAME, create=True)
    url = await bucket.upload(io.BytesIO(b"123"), KEY)
    assert url == f"{bucket.service_resource.meta.client.meta.endpoint_url}/{bucket.name}/{KEY}"
    assert url == f"{service.endpoint_url}/{NAME}/{KEY}"


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_file_object_goes_up_again_after_a_failed_try(service: MockS3Server, size: int) -> None:
    data = os.urandom(size)
    fileobj = io.BytesIO(data)
    bucket = AsyncS3Bucket(NAME)
    with pytest.raises(ClientError):
        await bucket.upload(fileobj, "key")  # there is no such bucket
    service.create_bucket(NAME)

    def fail(count: int) -> None:
        msg = f"{count} bytes went up"
        raise LookupError(msg)

    with pytest.raises(LookupError):
        await bucket.upload(fileobj, "key", fail)
    await bucket.upload(fileobj, "key")
    assert (await bucket.download("key")).getvalue() == data
    assert not fileobj.closed


async def test_six_uploads_at_the_same_time(bucket: AsyncS3Bucket) -> None:
    items = {f"key-{number}": os.urandom(size) for number, size in enumerate([0, 1, 50_000, MiB, LARGE, LARGE])}
    urls = await asyncio.gather(*(bucket.upload(io.BytesIO(data), key) for key, data in items.items()))
    assert urls == [bucket.url(key) for key in items]
    for key, data in items.items():
        assert await bucket.size(key) == len(data)
        assert (await bucket.download(key=key)).getvalue() == data


async def test_a_download_is_a_real_bytesio(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(fileobj=io.BytesIO(b"some data"), key="key")
    fileobj = await bucket.download(key="key")
    assert type(fileobj) is io.BytesIO
    assert fileobj.tell() == 0
    assert fileobj.getvalue() == b"some data"
    assert bytes(fileobj.getbuffer()[5:]) == b"data"


async def test_callbacks_sum_up_to_the_size(bucket: AsyncS3Bucket) -> None:
    up: list[int] = []
    down: list[int] = []
    await bucket.upload(fileobj=io.BytesIO(bytes(LARGE)), key="key", callback=up.append)
    await bucket.download(key="key", callback=down.append)
    assert sum(up) == sum(down) == LARGE


async def test_boto3_through_the_bucket_attribute(bucket: AsyncS3Bucket) -> None:
    bucket.bucket.upload_fileobj(Fileobj=io.BytesIO(b"by boto3"), Key="key")
    assert (await bucket.download("key")).getvalue() == b"by boto3"
    await bucket.upload(io.BytesIO(b"by us"), "key")
    target = io.BytesIO()
    bucket.bucket.download_fileobj("key", target)
    assert target.getvalue() == b"by us"
    assert [item.key for item in bucket.bucket.objects.all()] == ["key"]
    bucket.bucket.objects.all().delete()
    assert not await bucket.exists("key")


async def test_boto3_through_the_service_resource(bucket: AsyncS3Bucket) -> None:
    assert [item.name for item in bucket.service_resource.buckets.all()] == [NAME]
    bucket.service_resource.create_bucket(Bucket="another")
    assert {item.name for item in bucket.service_resource.buckets.all()} == {NAME, "another"}


async def test_boto3_makes_the_bucket_too(service: MockS3Server) -> None:
    # With create, nothing is there before the first await; boto3 can do it.
    bucket = AsyncS3Bucket(NAME, create=True)
    assert list(bucket.service_resource.buckets.all()) == []
    bucket.bucket.create()
    bucket.bucket.upload_fileobj(Fileobj=io.BytesIO(b"123"), Key="key")
    assert await bucket.size("key") == 3


# Errors


async def test_errors_are_client_errors(bucket: AsyncS3Bucket) -> None:
    async def failing(verb: str) -> ClientError:
        try:
            await getattr(bucket, verb)("missing")
        except ClientError as error:
            return error
        pytest.fail("there is no such object")

    for verb in ("download", "size"):
        error = await failing(verb)
        assert error.response["Error"]["Code"] == "NoSuchKey"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404
        assert isinstance(error, FileNotFoundError)
        assert "missing" in str(error)

    # boto3 gives what a HEAD gives, whose response has no body that could hold a code.
    with pytest.raises(ClientError) as theirs:
        bucket.service_resource.meta.client.head_object(Bucket=NAME, Key="missing")
    assert theirs.value.response["Error"]["Code"] == "404"


async def test_a_missing_bucket_is_no_missing_key(service: MockS3Server) -> None:
    bucket = AsyncS3Bucket(NAME)
    for failing in (bucket.exists("key"), bucket.upload(io.BytesIO(b"123"), "key"), bucket.download("key")):
        with pytest.raises(ClientError) as error:
            await failing
        assert error.value.response["Error"]["Code"] == "NoSuchBucket"


# Patching, as users' tests do


async def test_upload_is_replaced_on_an_instance(bucket: AsyncS3Bucket) -> None:
    asked: list[str] = []

    async def fake(fileobj: object, key: str, callback: object = None) -> str:
        asked.append(key)
        return f"fake://{key}"

    bucket.upload = fake  # type: ignore[method-assign, assignment]
    assert await bucket.upload(fileobj=io.BytesIO(), key="key") == "fake://key"
    assert asked == ["key"]
    del bucket.upload
    assert not await bucket.exists("key")
    await bucket.upload(io.BytesIO(), "key")
    assert await bucket.exists("key")


async def test_upload_is_patched_on_an_instance(bucket: AsyncS3Bucket) -> None:
    with mock.patch.object(bucket, "upload") as fake:
        await bucket.upload(io.BytesIO(b"123"), "key")
        fake.assert_awaited_once()
        fake.side_effect = ConnectionError
        with pytest.raises(ConnectionError):
            await bucket.upload(io.BytesIO(b"123"), "key")
    assert not await bucket.exists("key")
    await bucket.upload(io.BytesIO(b"123"), "key")
    assert await bucket.exists("key")


async def test_the_class_is_patched() -> None:
    with mock.patch("lsst_lfa.salobj.AsyncS3Bucket", autospec=True) as fake:
        bucket = salobj.AsyncS3Bucket(NAME, domock=True, create=True)
        fake.return_value.upload.return_value = "fake://key"
        assert await bucket.upload(io.BytesIO(), "key") == "fake://key"
        fake.assert_called_once_with(NAME, domock=True, create=True)


# The manual


def test_the_manual_has_a_row_for_every_public_name() -> None:
    table = MANUAL.read_text().partition("## Attribute by attribute")[2]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    rows = {name for cell in first_cells for name in re.findall(r"`(\w+)", cell)}
    theirs = {"name", "profile", "service_resource", "bucket", "mock", "make_bucket_name", "make_key"}
    theirs |= {"upload", "download", "exists", "size", "stop_mock"}
    assert rows >= theirs | {"AsyncS3Bucket"}
