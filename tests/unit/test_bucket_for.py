"""Access: by any URL, by profiles, without credentials, with the bucket in the host."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import AsyncS3Bucket, S3Session, bucket_for, download_url, errors
from lsst_lfa._urls import parse_profile

if TYPE_CHECKING:
    from pathlib import Path

    from lsst_lfa import MockS3Server

VARIABLE = "LSST_RESOURCES_S3_PROFILE_summit"
CREDENTIALS: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "secret"}


@pytest.fixture
async def stored(bucket: AsyncS3Bucket) -> bytes:
    await bucket.upload(b"data", "a/b c.fits")
    return b"data"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Write AWS's configuration file."""

    def write(text: str) -> None:
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    return write


@pytest.fixture
async def seen() -> Any:
    """Serve nothing, and note the heads of requests."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, seen: Any) -> list[str]:
    """Send requests to a proxy, which notes their heads."""
    endpoint_url, heads = seen
    monkeypatch.setenv("HTTP_PROXY", endpoint_url)
    return heads  # type: ignore[no-any-return]


# URLs


async def test_every_verb_works_on_an_objects_url(bucket: AsyncS3Bucket, stored: bytes) -> None:
    async with bucket_for(bucket.url("a/b c.fits")) as (found, key):
        assert type(found) is AsyncS3Bucket
        assert (found.name, key) == ("test", "a/b c.fits")
        assert await found.read(key) == stored
        await found.upload(b"new", "a/new")
    assert await bucket.read("a/new") == b"new"


async def test_a_url_without_a_host_is_at_the_environments_endpoint(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, stored: bytes
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    async with bucket_for("s3://test/a/b c.fits") as (bucket, key):
        assert await bucket.read(key) == stored


@pytest.mark.parametrize("form", ["{scheme}://{host}", " {scheme}://{host}/ ", "{scheme}://key%2Fid:se%2Fcret@{host}"])
async def test_a_profile_of_lsst_resources(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, configure: Any, stored: bytes, form: str
) -> None:
    scheme, _, host = server.endpoint_url.partition("://")
    monkeypatch.setenv(VARIABLE, form.format(scheme=scheme, host=host))
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    configure("[profile summit]\naws_access_key_id = profile-id\naws_secret_access_key = profile-secret\n")
    async with bucket_for("s3://summit@test/a/b c.fits") as (bucket, key):
        assert await bucket.read(key) == stored
        url = await bucket.presigned_url(key)
        assert ("key%2Fid" if "@" in form else "profile-id") in url
        assert "cret" not in f"{bucket!r} {bucket.url(key)}"
    assert (await download_url("s3://summit@test/a/b c.fits")).getvalue() == stored


async def test_a_profile_of_aws(
    server: MockS3Server, monkeypatch: pytest.MonkeyPatch, configure: Any, stored: bytes
) -> None:
    configure(
        f"[profile summit]\nendpoint_url = {server.endpoint_url}\n"
        "aws_access_key_id = profile-id\naws_secret_access_key = profile-secret\n"
    )
    async with bucket_for("s3://summit@test/a/b c.fits") as (bucket, key):
        assert await bucket.read(key) == stored
        assert "profile-id" in await bucket.presigned_url(key)
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    async with bucket_for("s3://nobody@test/a/b c.fits") as (bucket, key):
        with pytest.raises(errors.ConfigurationError, match="nobody"):
            await bucket.read(key)


@pytest.mark.parametrize(
    "value",
    [
        "host",
        "ftp://host",
        "https://id:top/secret@host",
        "https://id@host",
        "https://:top-secret@host",
        "https://id:top-secret@",
        "https://id:top-secret@host/a@b",
    ],
)
async def test_a_profile_that_is_no_url_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=VARIABLE) as caught:
        await download_url("s3://summit@test/key")
    assert "top" not in str(caught.value)


def test_a_profile_has_both_credentials_or_none() -> None:
    assert parse_profile("v", "https://a%40b:c%3Ad@host:1/") == ("https://host:1", "a@b", "c:d")
    assert parse_profile("v", "https://host") == ("https://host", None, None)


async def test_what_names_no_bucket_is_refused(bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    presigned = await bucket.presigned_url("key")
    for url in (presigned, (tmp_path / "a").as_uri(), "nothing"):
        with pytest.raises(ValueError, match=r"download_url|must be") as caught:
            async with bucket_for(url):
                pass
        assert "Signature" not in str(caught.value)


# Files and waiting


async def test_a_file_is_downloaded_by_its_url(tmp_path: Path) -> None:
    path = tmp_path / "a b%.fits"
    path.write_bytes(b"data")
    counts: list[int] = []
    file = await download_url(path.as_uri(), counts.append)
    assert (file.tell(), file.getvalue(), counts) == (0, b"data", [4])
    with pytest.raises(FileNotFoundError):
        await download_url((tmp_path / "missing").as_uri())


@pytest.mark.parametrize("kind", ["object", "presigned", "file"])
async def test_an_object_that_is_not_there_yet_is_waited_for(bucket: AsyncS3Bucket, tmp_path: Path, kind: str) -> None:
    key = f"late-{kind}"
    path = tmp_path / "late"
    urls = {"object": bucket.url(key), "presigned": await bucket.presigned_url(key), "file": path.as_uri()}
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(FileNotFoundError):
        await download_url(urls[kind], wait=0.3)
    assert 0.3 <= loop.time() - start < 5

    async def store() -> None:
        await asyncio.sleep(0.4)
        path.write_bytes(b"data") if kind == "file" else await bucket.upload(b"data", key)

    async with asyncio.TaskGroup() as group:
        group.create_task(store())
        file = await download_url(urls[kind], wait=30)
    assert file.getvalue() == b"data"


async def test_what_no_waiting_helps_is_told_at_once(bucket: AsyncS3Bucket) -> None:
    for wait in (-1, math.nan):
        with pytest.raises(ValueError, match="wait"):
            await asyncio.wait_for(download_url(bucket.url("k"), wait=wait), 20)
    with pytest.raises(errors.BucketNotFoundError):
        await asyncio.wait_for(download_url(f"{bucket._endpoint_url}/nowhere/k", wait=100), 20)


# Without credentials


async def test_an_anonymous_session_signs_nothing(server: MockS3Server, seen: Any, stored: bytes) -> None:
    async with S3Session(endpoint_url=server.endpoint_url, anonymous=True) as session:
        bucket = session.bucket("test")
        assert await bucket.read("a/b c.fits") == stored
        assert [item.key async for item in bucket.list("a/b")] == ["a/b c.fits"]
        with pytest.raises(errors.MissingCredentialsError, match="anonymous"):
            await bucket.presigned_url("a/b c.fits")
        assert [item.key for item in bucket.bucket.objects.filter(Prefix="a/b")] == ["a/b c.fits"]
    endpoint_url, heads = seen
    async with S3Session(endpoint_url=endpoint_url, anonymous=True) as session:
        for verb in (session.bucket("test").read("key"), session.bucket("test").upload(b"data", "key")):
            with pytest.raises(errors.AccessDeniedError):
                await verb
    assert len(heads) == 2
    assert not any("authorization" in head.lower() for head in heads)


async def test_environment_credentials_are_not_used_anonymously(monkeypatch: pytest.MonkeyPatch, seen: Any) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoint_url, heads = seen
    for anonymous, signed in ((True, False), (None, True), (False, True)):
        heads.clear()
        async with S3Session(endpoint_url=endpoint_url, anonymous=anonymous) as session:
            with pytest.raises(errors.AccessDeniedError):
                await session.bucket("test").read("key")
        assert ("authorization" in heads[0].lower()) is signed


async def test_where_there_are_no_credentials_a_url_is_read_without(bucket: AsyncS3Bucket, stored: bytes) -> None:
    assert (await download_url(bucket.url("a/b c.fits"))).getvalue() == stored
    with pytest.raises(errors.MissingCredentialsError):
        await S3Session(endpoint_url=bucket._endpoint_url).bucket("test").read("a/b c.fits")


NOT_FOUND = "No credentials were found, so the request was anonymous: set AWS_ACCESS_KEY_ID"


async def test_a_refusal_says_that_there_were_no_credentials(seen: Any) -> None:
    endpoint_url, _ = seen
    url = f"{endpoint_url}/test/key"
    with pytest.raises(errors.AccessDeniedError, match=NOT_FOUND):
        await download_url(url)
    async with bucket_for(url) as (bucket, key):
        for verb in (bucket.head(key), bucket.upload(b"data", key), anext(bucket.list()), bucket.read(key, 1, 2)):
            with pytest.raises(errors.AccessDeniedError, match=NOT_FOUND):
                await verb
    async with S3Session(endpoint_url=endpoint_url, anonymous=True) as session:
        with pytest.raises(errors.AccessDeniedError, match="The session is anonymous: use a session with"):
            await session.bucket("test").download(key)
    async with S3Session(endpoint_url=endpoint_url, **CREDENTIALS) as session:
        with pytest.raises(errors.AccessDeniedError) as caught:
            await session.bucket("test").download(key)
        assert "anonymous" not in str(caught.value)


def test_anonymous_and_credentials_contradict() -> None:
    with pytest.raises(ValueError, match="anonymous"):
        S3Session(anonymous=True, **CREDENTIALS)


# Addressing


@pytest.mark.parametrize(
    ("argument", "profile", "in_host"),
    [
        (None, None, False),
        ("path", "virtual", False),
        ("virtual", None, True),
        (None, "virtual", True),
        (None, "path", False),
    ],
)
async def test_the_bucket_is_where_the_argument_or_the_profile_puts_it(
    configure: Any, proxy: list[str], *, argument: Any, profile: str | None, in_host: bool
) -> None:
    if profile is not None:
        configure(f"[default]\ns3 =\n    addressing_style = {profile}\n")
    host = "test.s3.example/key" if in_host else "s3.example/test/key"
    async with S3Session(endpoint_url="http://s3.example", addressing_style=argument, **CREDENTIALS) as session:
        bucket = session.bucket("test")
        assert (await bucket.presigned_url("key")).startswith(f"http://{host}?")
        with pytest.raises(errors.AccessDeniedError):
            await bucket.upload(b"data", "key")
        assert proxy[0].startswith(f"PUT http://{host} ")
        assert bucket.url("key") == "http://s3.example/test/key", "whatever the style is"
        style = bucket.service_resource.meta.client.meta.config.s3["addressing_style"]
        assert style == ("virtual" if in_host else "path")


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="addressing_style"):
        S3Session(addressing_style="host")  # type: ignore[arg-type]
