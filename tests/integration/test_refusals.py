"""Every refusal of the server has its own error class, which says what is wrong and what to do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from lsst_lfa import AsyncS3Bucket, errors
from tests.integration.samples import MiB, sample
from tests.servers import Credentials

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from typing import Any

    from lsst_lfa import S3Session
    from tests.integration.conftest import Service

# The mock verifies no signatures.
VERIFYING = pytest.mark.servers("seaweedfs", "ceph")


async def _list(bucket: AsyncS3Bucket) -> list[object]:
    return [item async for item in bucket.list()]


def verbs(bucket: AsyncS3Bucket, folder: Path) -> dict[str, Coroutine[Any, Any, object]]:
    """Return every operation that sends a request, on a key called "key"."""
    return {
        "upload": bucket.upload(b"x", "key"),
        "upload in parts": bucket.upload(sample(17 * MiB), "key"),
        "download": bucket.download("key"),
        "download_file": bucket.download_file("key", folder / "file"),
        "stream": anext(bucket.stream("key")),
        "head": bucket.head("key"),
        "exists": bucket.exists("key"),
        "size": bucket.size("key"),
        "list": _list(bucket),
        "delete": bucket.delete("key"),
        "check": bucket.check(),
        "stale": bucket.abort_stale_uploads(3600),
    }


async def refused(work: Coroutine[Any, Any, object], kind: type[errors.LfaError], *said: str) -> errors.LfaError:
    """Make sure that it fails with exactly this class, and that the message has these words."""
    with pytest.raises(errors.LfaError) as caught:
        await work
    assert type(caught.value) is kind, repr(caught.value)
    for each in said:
        assert each in str(caught.value)
    return caught.value


@VERIFYING
async def test_wrong_secret(service: Service, name: str, tmp_path: Path) -> None:
    wrong = Credentials(service.server.access_key_id, "not-the-secret")
    async with service.session(wrong) as session:
        for verb, work in verbs(session.bucket(name), tmp_path).items():
            error = await refused(
                work, errors.WrongSecretError, name, service.endpoint_url, "AWS_SECRET_ACCESS_KEY", "SignatureDoesNot"
            )
            assert isinstance(error, PermissionError), verb
            assert isinstance(error, ClientError)
            assert error.response["Error"]["Code"] == "SignatureDoesNotMatch"
            assert "not-the-secret" not in str(error)


@VERIFYING
async def test_unknown_key_id(service: Service, name: str, tmp_path: Path) -> None:
    async with service.session(Credentials("nobodyaccess", "a-secret")) as session:
        for work in verbs(session.bucket(name), tmp_path).values():
            error = await refused(
                work, errors.UnknownKeyIdError, name, service.endpoint_url, "AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"
            )
            assert isinstance(error, PermissionError)
            assert "a-secret" not in str(error)


async def test_no_credentials(service: Service, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", service.endpoint_url)
    if service.server.ca_file is not None:
        monkeypatch.setenv("AWS_CA_BUNDLE", service.server.ca_file)
    bucket = AsyncS3Bucket(name)
    for work in verbs(bucket, tmp_path).values():
        error = await refused(work, errors.MissingCredentialsError, name, service.endpoint_url, "Set AWS_ACCESS_KEY_ID")
        assert isinstance(error, PermissionError)


async def test_missing_bucket(service: Service, session: S3Session, tmp_path: Path) -> None:
    bucket = session.bucket("test-missing")
    for verb, work in verbs(bucket, tmp_path).items():
        error = await refused(
            work, errors.BucketNotFoundError, "test-missing", service.endpoint_url, "NoSuchBucket", "with create()"
        )
        assert isinstance(error, FileNotFoundError), verb
    assert list(tmp_path.iterdir()) == []


async def test_missing_key(service: Service, name: str, bucket: AsyncS3Bucket, tmp_path: Path) -> None:
    missing = {"download", "download_file", "stream", "head", "size"}
    works = verbs(bucket, tmp_path)
    for verb in missing:
        error = await refused(
            works.pop(verb), errors.KeyNotFoundError, f"s3://{name}/key", service.endpoint_url, "key is correct"
        )
        assert isinstance(error, FileNotFoundError)
        assert isinstance(error, ClientError)
        assert error.response["Error"]["Code"] == "NoSuchKey"
    assert await works.pop("exists") is False
    assert await works.pop("delete") is None
    for work in works.values():
        work.close()
    assert list(tmp_path.iterdir()) == []


@VERIFYING
async def test_somebody_elses_bucket(
    service: Service, somebody: Credentials, session: S3Session, name: str, tmp_path: Path
) -> None:
    service.client.put_object(Bucket=name, Key="key", Body=b"mine")
    service.client.put_object(Bucket=name, Key="private", Body=b"mine")
    async with service.session(somebody) as other:
        bucket = other.bucket(name)
        for verb, work in verbs(bucket, tmp_path).items():
            error = await refused(
                work, errors.AccessDeniedError, name, service.endpoint_url, "AccessDenied", "belongs to another account"
            )
            assert isinstance(error, PermissionError), verb
        await refused(bucket.exists("no-such-key"), errors.AccessDeniedError, name)
        # SeaweedFS knows no owners: who may not use such a name may not make a bucket of it either.
        taken = errors.BucketTakenError if service.server.name == "ceph" else errors.AccessDeniedError
        await refused(bucket.create(), taken, name)
        # There it is; whether this user may write to it, the upload itself shows.
        await refused(other.bucket(name, create=True).upload(b"x", "key"), errors.AccessDeniedError, name)
    assert service.content(name, "key") == b"mine"
    assert service.keys(name) == ["key", "private"]
    assert list(tmp_path.iterdir()) == []


async def test_refused_source_can_be_used_again(session: S3Session, bucket: AsyncS3Bucket) -> None:
    source = io.BytesIO(b"head" + sample(17 * MiB))
    source.seek(4)
    await refused(session.bucket("test-missing").upload(source, "key"), errors.BucketNotFoundError)
    assert source.tell() == 4
    await bucket.upload(source, "key")
    assert await bucket.size("key") == 17 * MiB
