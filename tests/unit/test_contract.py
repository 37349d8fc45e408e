"""The contract of `AsyncS3Bucket`, line by line."""

from __future__ import annotations

import asyncio
import io
import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest import mock

import aiofiles
import numpy as np
import pytest
from astropy.io import fits
from botocore.exceptions import ClientError

from lsst_lfa import AsyncS3Bucket, MockS3Server, PendingUpload, S3Session, TransferConfig, errors
from tests.faults import FaultyS3Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MiB = 1024 * 1024
LARGE = os.urandom(9 * MiB + 3)  # two parts, and two ranges


# Construction


def test_making_a_bucket_needs_no_loop_and_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9/")
    bucket = AsyncS3Bucket("rubinobs-lfa-cp", profile="nobody")
    assert (bucket.name, bucket.profile) == ("rubinobs-lfa-cp", "nobody")
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:10")
    assert bucket.url("a b") == "http://127.0.0.1:9/rubinobs-lfa-cp/a b", "read at construction, '/' dropped"


@pytest.mark.parametrize("value", ["", "  ", None])
async def test_a_blank_endpoint_means_aws(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("S3_ENDPOINT_URL", value)
    async with S3Session(access_key_id="id", secret_access_key="secret", region="eu-west-1") as session:
        bucket = session.bucket("test")
        assert bucket.url("k") == "https://s3.eu-west-1.amazonaws.com/test/k"
        presigned = await bucket.presigned_url("k")
    assert presigned.startswith("https://")
    assert "amazonaws.com/" in presigned


def test_the_url_of_an_unopened_bucket_on_aws_is_boto3s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    bucket = AsyncS3Bucket("test")
    assert bucket.url("k") == f"{bucket.service_resource.meta.client.meta.endpoint_url}/test/k"
    assert bucket.url("k") == "https://s3.eu-west-1.amazonaws.com/test/k"


async def test_credentials_and_region_are_those_of_the_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (
        ("AWS_CONFIG_FILE", "[profile summit]\nregion = eu-west-1\n"),
        ("AWS_SHARED_CREDENTIALS_FILE", "[summit]\naws_access_key_id = OURS\naws_secret_access_key = secret\n"),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(name, str(tmp_path / name))
    async with AsyncS3Bucket("test", profile="summit") as bucket:
        url = await bucket.presigned_url("k")
        assert bucket.service_resource.meta.client.meta.region_name == "eu-west-1"
    assert "X-Amz-Credential=OURS%2F" in url
    assert "eu-west-1" in url


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nobody has set any credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.mark.usefixtures("nobody")
async def test_entering_a_bucket_opens_it_and_without_credentials_says_so() -> None:
    with pytest.raises(
        errors.MissingCredentialsError, match=r"bucket test at http://127\.0\.0\.1:9.*AWS_ACCESS_KEY_ID"
    ):
        async with AsyncS3Bucket("test"):
            pytest.fail("it was entered")


@pytest.mark.usefixtures("nobody")
async def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(errors.LfaError, match=r"s3://test/k .*profile \(summit\) could not be found"):
        await AsyncS3Bucket("test", profile="summit").exists("k")


async def test_a_session_token_goes_with_its_credentials() -> None:
    keys: dict[str, Any] = {"access_key_id": "OURS", "secret_access_key": "secret", "session_token": "TOKEN"}
    async with S3Session(endpoint_url="http://127.0.0.1:9", **keys) as session:
        assert "X-Amz-Security-Token=TOKEN" in await session.bucket("test").presigned_url("k")


def test_credentials_in_the_endpoint_reach_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
    with caplog.at_level("DEBUG"):
        bucket = AsyncS3Bucket("test")
    assert bucket.url("k") == "http://127.0.0.1:9/test/k"
    for text in (repr(bucket), repr(bucket._client), repr(bucket._client.settings), caplog.text):
        assert "hunter2" not in text


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n", "x" * 256, "a:b:c"])
def test_a_name_that_no_bucket_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="bucket"):
        AsyncS3Bucket(name)


def test_a_session_excludes_profile_and_mock() -> None:
    for options in ({"profile": "p"}, {"domock": True}):
        with pytest.raises(ValueError, match="session"):
            AsyncS3Bucket("test", session=S3Session(), **options)
    with pytest.raises(ValueError, match="both or neither"):
        S3Session(access_key_id="id")
    with pytest.raises(ValueError, match="max_connections"):
        S3Session(max_connections=0)


async def test_attributes_are_ordinary(bucket: AsyncS3Bucket) -> None:
    async def fake(*_: Any) -> str:
        return "faked"

    bucket.upload = fake  # type: ignore[assignment, method-assign]
    assert await bucket.upload(b"", "k") == "faked"
    with mock.patch.object(AsyncS3Bucket, "exists", return_value=True):
        assert await bucket.exists("no-such-key")
    assert bucket, "true, like any object"


# The mock


def test_domock_has_the_bucket_before_the_constructor_returns() -> None:
    bucket = AsyncS3Bucket("test", True)
    try:
        assert [found.name for found in bucket.service_resource.buckets.all()] == ["test"]
    finally:
        bucket.stop_mock()


async def test_domock_hears_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    (tmp_path / "config").write_text("no configuration: reading it is an error")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    before = dict(os.environ)
    async with AsyncS3Bucket("test", domock=True, profile="nobody") as bucket:
        assert await bucket.exists("k") is False
        assert list(bucket.bucket.objects.all()) == []
    assert dict(os.environ) == before


async def test_stop_mock_is_quick_and_idempotent() -> None:
    elapsed = []
    for _ in range(3):  # the best counts: a machine with other work may hold us itself
        bucket = AsyncS3Bucket("test", domock=True)
        await bucket.upload(b"data", "k")
        start = time.perf_counter()
        bucket.stop_mock()
        bucket.stop_mock()
        elapsed.append(time.perf_counter() - start)
        await bucket.aclose()
    assert min(elapsed) < 0.05
    AsyncS3Bucket("test").stop_mock()


# Life


async def test_create_makes_the_bucket_on_first_use(session: S3Session) -> None:
    bucket = session.bucket("made-on-first-use", create=True)
    with pytest.raises(errors.BucketNotFoundError):
        await session.bucket("made-on-first-use").download("k")
    await asyncio.gather(*(bucket.upload(b"data", f"k{number}") for number in range(3)))
    again = session.bucket("made-on-first-use", create=True)
    assert await again.exists("k0"), "no error if it is there"
    await again.create()


async def test_awaits_and_async_with_compose(server: MockS3Server) -> None:
    bucket = AsyncS3Bucket("test", session=S3Session.for_mock(server))
    await bucket.upload(b"data", "composed")
    async with bucket as same:
        assert same is bucket
        assert await bucket.exists("composed")
    assert await bucket.exists("composed"), "opens afresh"
    await bucket._client.aclose()
    await bucket.aclose()
    await bucket.aclose()


# Up and down


async def test_upload_returns_the_unquoted_url(bucket: AsyncS3Bucket, server: MockS3Server) -> None:
    key = "2026/a b:c%+é"
    assert await bucket.upload(b"data", key) == f"{server.endpoint_url}/test/{key}" == bucket.url(key)
    assert [item.key async for item in bucket.list("2026/")] == [key]
    await bucket.upload(LARGE, key)
    assert (await bucket.head(key)).etag.endswith("-2"), "what is large here goes up in parts"


@pytest.mark.parametrize("size", [100, len(LARGE) - 10])
async def test_upload_reads_from_the_current_position_and_never_closes(bucket: AsyncS3Bucket, size: int) -> None:
    file = io.BytesIO(LARGE[: size + 10])
    file.seek(10)
    await bucket.upload(file, "k")
    assert not file.closed
    assert file.tell() == size + 10, "at its end, as after reading"
    assert (await bucket.download("k")).getvalue() == LARGE[10 : size + 10]


async def test_a_file_can_be_uploaded_again_after_a_failure(session: S3Session, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    missing, bucket = session.bucket("missing"), session.bucket("test")
    with path.open("rb") as plain, path.open("rb", buffering=0) as raw:
        async with aiofiles.open(path, "rb") as asynchronous:
            for file in (plain, raw, asynchronous, io.BytesIO(LARGE)):
                await _seek(file, 7)
                with pytest.raises(errors.BucketNotFoundError):
                    await missing.upload(file, "k")
                await bucket.upload(file, "k")
                assert (await bucket.download("k")).getvalue() == LARGE[7:]


async def _seek(file: Any, position: int) -> None:
    result = file.seek(position)
    if asyncio.iscoroutine(result):
        await result


async def test_download_gives_a_real_bytesio_at_its_beginning(bucket: AsyncS3Bucket) -> None:
    for data in (b"", b"small", LARGE):
        await bucket.upload(data, "k")
        file = await bucket.download("k")
        assert type(file) is io.BytesIO
        assert file.tell() == 0
        assert file.getbuffer() == data
        assert file.getvalue() == file.read() == data
        assert file.write(b"more") == 4, "it can grow: no view is left"


async def test_exists_and_size(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"12345", "there")
    assert await bucket.exists("there") is True
    assert await bucket.exists("not there") is False
    assert await bucket.size("there") == 5
    with pytest.raises(FileNotFoundError, match="not there"):
        await bucket.size("not there")


async def test_exists_raises_where_it_cannot_know(session: S3Session) -> None:
    with pytest.raises(errors.BucketNotFoundError):
        await session.bucket("missing").exists("k")
    config = TransferConfig(max_attempts=1)
    async with S3Session(endpoint_url="http://127.0.0.1:9", access_key_id="i", secret_access_key="s") as nowhere:
        with pytest.raises(errors.UnreachableError):
            await nowhere.bucket("test", config=config).exists("k")


async def test_errors_are_client_errors_with_the_response(bucket: AsyncS3Bucket) -> None:
    with pytest.raises(ClientError) as caught:
        await bucket.download("missing/key")
    error = caught.value
    assert isinstance(error, errors.KeyNotFoundError)
    assert isinstance(error, FileNotFoundError)
    assert error.response["Error"]["Code"] == "NoSuchKey"
    for word in ("test", "missing/key", bucket._client.settings.endpoint_url or "-"):
        assert word in str(error)


# The callback


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "one byte", "multipart"])
async def test_the_callbacks_calls_sum_to_the_size(bucket: AsyncS3Bucket, data: bytes) -> None:
    up: list[int] = []
    down: list[int] = []

    async def note(count: int) -> None:
        await asyncio.sleep(0)
        down.append(count)

    await bucket.upload(data, "k", up.append)
    await bucket.download("k", note)
    for calls in (up, down):
        assert sum(calls) == len(data)
        assert len(calls) >= 1
        assert min(calls) > 0 or calls == [0]


async def test_the_callback_runs_in_the_callers_task(bucket: AsyncS3Bucket) -> None:
    tasks: set[asyncio.Task[Any] | None] = set()
    await bucket.upload(LARGE, "k", lambda _: tasks.add(asyncio.current_task()))
    await bucket.download("k", lambda _: tasks.add(asyncio.current_task()))
    assert tasks == {asyncio.current_task()}


@pytest.mark.parametrize("size", [1000, len(LARGE)])
async def test_what_the_callback_raises_fails_the_transfer(bucket: AsyncS3Bucket, size: int, tmp_path: Path) -> None:
    class OwnError(Exception):
        pass

    def fail(_: int) -> None:
        raise OwnError

    await bucket.upload(LARGE[:size], "there")
    path = tmp_path / "file"
    with pytest.raises(OwnError):
        await bucket.upload(LARGE[:size], "new", fail)
    with pytest.raises(OwnError):
        await bucket.download("there", fail)
    with pytest.raises(OwnError) as caught:
        await bucket.download_file("there", path, fail)
    assert "there" in caught.value.__notes__[0], "a note names the transfer"
    assert list(tmp_path.iterdir()) == []
    assert await open_uploads(bucket) == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_callback_that_cannot_be_called_is_a_type_error(bucket: AsyncS3Bucket) -> None:
    with pytest.raises(TypeError, match="callback"):
        await bucket.upload(b"", "k", 5)  # type: ignore[arg-type]


async def open_uploads(bucket: AsyncS3Bucket) -> list[Any]:
    async with bucket._borrow("list", None) as client:
        response = await client.call("list_multipart_uploads")
    return list(response.get("Uploads", []))


# Refused before anything is sent


@pytest.mark.parametrize("key", ["", "x" * 1025, "a\nb", "../a", "a/../b", "a/..", "\ud800"])
async def test_a_bad_key_is_refused_before_anything_is_sent(key: str, tmp_path: Path) -> None:
    bucket = AsyncS3Bucket("test")  # no credentials, no server: sending would fail otherwise
    for verb in (bucket.download, bucket.exists, bucket.size, bucket.head, bucket.delete, bucket.presigned_url):
        with pytest.raises(ValueError, match="key"):
            await verb(key)
    with pytest.raises(ValueError, match="key"):
        await bucket.upload(b"", key)
    with pytest.raises(ValueError, match="key"):
        await bucket.download_file(key, tmp_path / "file")
    with pytest.raises(ValueError, match="key"):
        bucket.stream(key)


async def _texts() -> AsyncIterator[str]:
    yield "text"


class Texts:
    """Reads text, and does not say so."""

    def read(self, _: int = -1) -> str:
        return "text"


async def test_text_is_refused_before_anything_is_sent(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    async with aiofiles.open(path) as asynchronous:
        with path.open() as plain:
            for sources, cure in (
                (("text",), "encode it"),
                ((io.StringIO("text"), plain, asynchronous), "open it in binary mode"),
                ((_texts(), Texts()), "gave str, not bytes"),
                ((5, None, [b"x"]), "pass bytes, a binary file object"),
                ((memoryview(b"text")[::2],), "make a copy"),
            ):
                for source in sources:
                    with pytest.raises(TypeError, match=cure):
                        await bucket.upload(source, "text")  # type: ignore[arg-type]
    assert not await bucket.exists("text")
    assert await open_uploads(bucket) == []


# What we add


async def test_download_file_replaces_atomically_with_the_umasks_mode(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    await bucket.upload(LARGE, "k")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    calls: list[int] = []
    old = os.umask(0o027)
    try:
        assert await bucket.download_file("k", path, calls.append) == path
    finally:
        os.umask(old)
    assert path.read_bytes() == LARGE
    assert path.stat().st_mode & 0o777 == 0o640
    assert sum(calls) == len(LARGE)
    assert list(tmp_path.iterdir()) == [path]


async def test_a_downloaded_file_is_on_the_disk_before_it_has_its_name(
    bucket: AsyncS3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bucket.upload(LARGE, "k")
    path = tmp_path / "file"
    synced: list[tuple[int, bool]] = []

    def fsync(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    await bucket.download_file("k", path)
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)], "the file, its name, its folder"


async def test_download_file_into_a_folder_stays_in_it(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    await bucket.upload(b"data", "2026/03/file")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert await bucket.download_file("2026/03/file", directory=folder) == folder / "2026/03/file"
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads outside"):
        await bucket.download_file("out/file", directory=folder)
    with pytest.raises(TypeError, match="either"):
        await bucket.download_file("k")
    with pytest.raises(TypeError, match="either"):
        await bucket.download_file("k", "a", directory="b")


async def test_download_file_refuses_what_is_no_regular_file(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    await bucket.upload(b"data", "k")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(FileExistsError):
        await bucket.download_file("k", fifo)
    with pytest.raises(IsADirectoryError):
        await bucket.download_file("k", tmp_path)
    with pytest.raises(FileNotFoundError, match="no-such"):
        await bucket.download_file("k", tmp_path / "no-such" / "file")
    with pytest.raises(errors.KeyNotFoundError):
        await bucket.download_file("missing", tmp_path / "file")
    assert list(tmp_path.iterdir()) == [fifo]


async def test_upload_refuses_a_path_that_is_no_regular_file(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="regular"):
        await bucket.upload(tmp_path / "fifo", "k")
    with pytest.raises(IsADirectoryError):
        await bucket.upload(tmp_path, "k")
    with pytest.raises(FileNotFoundError):
        await bucket.upload(tmp_path / "missing", "k")


async def test_stream_gives_the_bytes_in_order_and_can_be_left_early(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(LARGE, "k")
    assert b"".join([chunk async for chunk in bucket.stream("k")]) == LARGE
    chunks = bucket.stream("k")
    assert LARGE.startswith(await anext(chunks))
    await chunks.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(errors.KeyNotFoundError):
        await anext(bucket.stream("missing"))


async def test_head_tells_size_etag_and_time(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "k")
    info = await bucket.head("k")
    assert (info.key, info.size, info.etag) == ("k", 4, "8d777f385d3dfec8815d20f7496026dc")
    assert abs(info.last_modified.timestamp() - time.time()) < 60


async def test_list_pages_by_itself() -> None:
    keys = sorted(f"k{number}" for number in range(1005))
    async with FaultyS3Server() as server:
        for key in keys:
            server.put("test", key, b"")
        async with S3Session(endpoint_url=server.endpoint_url, access_key_id="i", secret_access_key="s") as session:
            bucket = session.bucket("test")
            assert [item.key async for item in bucket.list()] == keys
            assert len(server.calls("ListObjectsV2")) == 2
            assert [item.key async for item in bucket.list("k100")] == ["k100", *keys[keys.index("k1000") :][:5]]


async def test_delete_needs_no_object(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "k")
    await bucket.delete("k")
    await bucket.delete("k")
    assert not await bucket.exists("k")


async def test_check_says_whether_the_service_is_there(bucket: AsyncS3Bucket, session: S3Session) -> None:
    await bucket.check()
    with pytest.raises(errors.BucketNotFoundError, match="missing"):
        await session.bucket("missing").check()


async def test_presigned_urls_work_without_credentials(bucket: AsyncS3Bucket) -> None:
    await bucket.upload(b"data", "a b")
    url = await bucket.presigned_url("a b", expires=60)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    writer.write(f"GET /{url.split('/', 3)[3]} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
    response = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert response.endswith(b"\r\n\r\ndata")
    with pytest.raises(ValueError, match="expires"):
        await bucket.presigned_url("k", expires=0)


async def test_stale_uploads_are_aborted(bucket: AsyncS3Bucket) -> None:
    async with bucket._borrow("test", None) as client:
        for number in range(3):
            await client.call("create_multipart_upload", f"stale-{number}")
    assert await bucket.abort_stale_uploads(timedelta(days=36500)) == 0
    assert await bucket.abort_stale_uploads(older_than=0) == 3
    assert await open_uploads(bucket) == []


async def test_pending_uploads_are_listed(bucket: AsyncS3Bucket) -> None:
    async with bucket._borrow("test", None) as client:
        ids = [(await client.call("create_multipart_upload", key))["UploadId"] for key in ("a/1", "a/2", "b")]
    found: list[PendingUpload] = [upload async for upload in bucket.list_uploads("a/")]
    assert [(upload.key, upload.upload_id) for upload in found] == [("a/1", ids[0]), ("a/2", ids[1])]
    assert [upload.key async for upload in bucket.list_uploads()] == ["a/1", "a/2", "b"]
    assert [upload async for upload in bucket.list_uploads(older_than=timedelta(days=36500))] == []
    assert await bucket.abort_stale_uploads(older_than=0, prefix="a/") == 2
    assert [upload.key async for upload in bucket.list_uploads()] == ["b"]
    assert await bucket.abort_stale_uploads(older_than=0) == 1
    assert [upload async for upload in bucket.list_uploads()] == []


async def test_verified_downloads_are_compared_with_the_etag(session: S3Session, tmp_path: Path) -> None:
    bucket = session.bucket("test", config=replace(session.config, verify_etag=True))
    for data in (b"", b"small", LARGE):
        await bucket.upload(data, "k")
        assert (await bucket.download("k")).getvalue() == data
        assert (await bucket.download_file("k", tmp_path / "file")).read_bytes() == data


async def test_fits_go_up_and_come_back_in_one_call_each(bucket: AsyncS3Bucket) -> None:
    hdulist = fits.HDUList([fits.PrimaryHDU(np.arange(2_000_000.0).reshape(1000, 2000))])
    up: list[int] = []
    down: list[int] = []
    assert await bucket.upload_fits(hdulist, "a.fits", up.append) == bucket.url("a.fits")
    copy = await bucket.download_fits("a.fits", down.append)
    assert fits.FITSDiff(hdulist, copy).identical
    assert sum(up) == sum(down) == await bucket.size("a.fits")


def test_boto3s_resource_is_real_and_on_the_same_service() -> None:
    bucket = AsyncS3Bucket("test", domock=True)
    try:
        resource = bucket.service_resource
        assert resource.meta.client.meta.endpoint_url == bucket.url("k").removesuffix("/test/k")
        resource.create_bucket(Bucket="other")
        assert {found.name for found in resource.buckets.all()} == {"test", "other"}
        bucket.bucket.upload_fileobj(Fileobj=io.BytesIO(b"data"), Key="k")
        assert bucket.bucket.Object("k").content_length == 4
        bucket.bucket.objects.all().delete()
        assert list(bucket.bucket.objects.all()) == []
        assert bucket.service_resource is resource
    finally:
        bucket.stop_mock()
