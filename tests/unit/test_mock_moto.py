"""What the mock S3 server uses of moto's internals: isolation, no environment, names that may disappear."""

from __future__ import annotations

import builtins
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from moto import mock_aws
from moto.backends import get_backend
from moto.moto_server import werkzeug_app
from moto.s3 import models

from lsst_lfa import MockS3Server
from lsst_lfa._mock import moto as ours

if TYPE_CHECKING:
    from collections.abc import Iterator

MiB = 1 << 20


def request(server: MockS3Server, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection(server.endpoint_url.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    result = response.status, response.read()
    connection.close()
    return result


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def server() -> Iterator[MockS3Server]:
    with MockS3Server() as server:
        server.create_bucket("bucket")
        yield server


# Who may ask


@pytest.mark.parametrize("authorization", [None, "Basic bm9ib2R5", "AWS4-HMAC-SHA256 nonsense"])
def test_unsigned_requests_are_served(server: MockS3Server, authorization: str | None) -> None:
    headers: dict[str, Any] = {"Authorization": authorization} if authorization else {}
    assert request(server, "PUT", "/bucket/key", b"data", **headers)[0] == 200
    assert request(server, "GET", "/bucket/key", **headers) == (200, b"data")
    assert request(server, "HEAD", "/bucket/key", **headers) == (200, b"")


@pytest.mark.parametrize("host", ["bucket.localhost", "s3.example.org", "bucket.s3.amazonaws.com"])
def test_bucket_is_taken_from_the_path_whatever_the_host(server: MockS3Server, host: str) -> None:
    request(server, "PUT", "/bucket/key", b"data")
    assert request(server, "GET", "/bucket/key", Host=host) == (200, b"data")


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", "nowhere"])
def test_buckets_are_the_same_in_every_region(server: MockS3Server, region: str) -> None:
    credential = f"AWS4-HMAC-SHA256 Credential=x/20260101/{region}/s3/aws4_request, SignedHeaders=host, Signature=0"
    status, listing = request(server, "GET", "/", Authorization=credential, User_Agent=f"region/{region}")
    assert status == 200
    assert b"<Name>bucket</Name>" in listing


# Beside moto's own users


def test_moto_in_the_same_process_has_its_own_buckets(server: MockS3Server) -> None:
    import boto3

    with mock_aws():
        server.create_bucket("bucket")
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="key", Body=b"theirs")
        assert models.s3_backends.bucket_accounts["bucket"][1] == "123456789012"
        client.delete_object(Bucket="bucket", Key="key")
        client.delete_bucket(Bucket="bucket")
        assert "bucket" not in models.s3_backends.bucket_accounts
        assert request(server, "HEAD", "/bucket")[0] == 200


def test_server_keeps_serving_after_moto_has_erased_it(server: MockS3Server) -> None:
    request(server, "PUT", "/bucket/key", b"data")
    with mock_aws():
        assert request(server, "GET", "/bucket/key")[0] == 404
        server.create_bucket("bucket")
        assert request(server, "PUT", "/bucket/key", b"data")[0] == 200
    server.create_bucket("bucket")
    assert request(server, "PUT", "/bucket/key", b"data")[0] == 200


def test_moto_in_the_same_process_keeps_its_settings() -> None:
    code = """
import boto3
from lsst_lfa import MockS3Server
from moto import mock_aws
with MockS3Server() as server, mock_aws():
    server.create_bucket("bucket")
    options = {"region_name": "us-east-1"}
    assert boto3.client("sts", **options).get_caller_identity()["Account"] == "111122223333"
    client = boto3.client("s3", **options)
    client.create_bucket(Bucket="bucket")
    where = {"Bucket": "bucket", "Key": "key"}
    where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": client.upload_part(**where, PartNumber=number, Body=b"small")["ETag"]}
        for number in (1, 2)
    ]
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert client.list_objects_v2(Bucket="bucket", MaxKeys=1)["Contents"][0]["Size"] == 10
"""
    run("-c", code, S3_UPLOAD_PART_MIN_SIZE="1", MOTO_ACCOUNT_ID="111122223333")


# What is left


def test_stopped_server_leaves_nothing_in_memory_or_on_disk() -> None:
    with MockS3Server() as server:
        server.create_bucket("bucket")
        (storage,) = ours._open
        before = open_files()
        for _ in range(2):
            request(server, "PUT", "/bucket/a", bytes(6 * MiB))
        upload = re.search(rb"(?<=<UploadId>)\w+", request(server, "POST", "/bucket/b?uploads")[1])
        assert upload
        part = f"/bucket/b?partNumber=1&uploadId={upload[0].decode()}"
        assert request(server, "PUT", part, bytes(6 * MiB))[0] == 200
        assert open_files() > before
        assert instances(storage.account_id) >= {"FakeBucket", "FakeKey", "FakeMultipart"}
    assert not instances(storage.account_id)
    assert open_files() < before
    for service in ("s3", "iam"):
        assert storage.account_id not in get_backend(service)
    assert "bucket" not in models.s3_backends.bucket_accounts
    assert not ours._open


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def instances(account_id: str) -> set[str]:
    models_of_moto = [value for value in vars(models).values() if isinstance(value, type)]
    listed = itertools.chain(*(getattr(model, "instances_tracked", ()) for model in models_of_moto))
    listed_before = itertools.chain(*(getattr(model, "instances", ()) for model in models_of_moto))
    mine = [one for one in (*listed, *listed_before) if getattr(one, "account_id", None) == account_id]
    return {type(one).__name__ for one in mine}


# The environment

HOSTILE = {
    "AWS_CA_BUNDLE": "/nowhere/ca.pem",
    "AWS_CONFIG_FILE": "{broken}",
    "AWS_DATA_PATH": "/nowhere/models",
    "AWS_DEFAULTS_MODE": "nonsense",
    "AWS_DEFAULT_REGION": "mars-north-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_PROFILE": "nobody",
    "AWS_SHARED_CREDENTIALS_FILE": "{broken}",
    "FLASK_DEBUG": "0",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "INITIAL_NO_AUTH_ACTION_COUNT": "0",
    "MOTO_ACCOUNT_ID": "111122223333",
    "MOTO_ALLOW_NONEXISTENT_REGION": "true",
    "MOTO_DISABLE_GLOBAL_CORS": "true",
    "MOTO_ENABLE_ISO_REGIONS": "true",
    "MOTO_ENABLE_RECORDING": "true",
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_MAX_FORM_MEMORY_SIZE": "1",
    "MOTO_PRETTIFY_RESPONSES": "true",
    "MOTO_RECORDER_FILEPATH": "{recording}",
    "MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS": "false",
    "MOTO_S3_CUSTOM_ENDPOINTS": "http://127.0.0.1,http://bucket.localhost",
    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": "1",
    "MOTO_S3_DEFAULT_MAX_KEYS": "1",
    "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true",
    "S3_UPLOAD_PART_MIN_SIZE": "1",
    "TEST_PROXY_MODE": "true",
    "TEST_SERVER_MODE": "true",
}


def hold_conversation(*arguments: str, **environment: str) -> list[Any]:
    record: list[Any] = json.loads(run("-m", "tests.unit.s3_conversation", *arguments, **environment))
    return record


@pytest.fixture(scope="module")
def undisturbed() -> list[Any]:
    record = hold_conversation()
    statuses = {(entry[0], entry[1]): entry[2] for entry in record if isinstance(entry, list)}
    for method, path, status in (
        ("GET", "/bucket/a", 200),
        ("GET", "/bucket/missing", 404),
        ("POST", "/bucket", 204),
        ("GET", "/bucket/from-a-form", 200),
        ("POST", "/bucket/parts?uploadId=*", 400),
    ):
        assert statuses[method, path] == status
    assert 0 in record  # no files for small objects
    return record


@pytest.mark.parametrize("imported_before", [(), ("moto",)])
@pytest.mark.parametrize("min_part_size", ["1", "100000000"])
def test_environment_changes_nothing(
    tmp_path: Path, undisturbed: list[Any], imported_before: tuple[str, ...], min_part_size: str
) -> None:
    broken, recording = tmp_path / "broken", tmp_path / "recording"
    broken.write_text("no section", "ascii")
    environment = {name: value.format(broken=broken, recording=recording) for name, value in HOSTILE.items()}
    environment["S3_UPLOAD_PART_MIN_SIZE"] = min_part_size
    if min_part_size == "1":
        del environment["AWS_DATA_PATH"]  # with it, botocore would not come to read the configuration file here
    assert hold_conversation(*imported_before, **environment) == undisturbed
    assert not recording.exists()


class _Spy(type(os.environ)):  # type: ignore[misc]
    """The environment, but it notes what the servers' threads read."""

    def __init__(self, environ: os._Environ[str]) -> None:
        self.__dict__ |= vars(environ)
        self.read: set[str] = set()

    def _note(self, name: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.read.add(name)

    def __getitem__(self, name: str) -> str:
        self._note(name)
        return str(super().__getitem__(name))

    def __contains__(self, name: object) -> bool:
        self._note(str(name))
        return bool(super().__contains__(name))


def test_requests_read_no_environment_variable(server: MockS3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = _Spy(os.environ)
    monkeypatch.setattr(os, "environ", spy)
    thread = threading.Thread(target=lambda: os.environ.get("PATH"))
    thread.start()
    thread.join()
    assert spy.read == {"PATH"}
    for method, path in (
        ("GET", "/"),
        ("PUT", "/bucket/key"),
        ("GET", "/bucket/key"),
        ("HEAD", "/bucket/missing"),
        ("GET", "/bucket/missing"),
        ("GET", "/missing"),
        ("PUT", "/bucket2"),
        ("GET", "/bucket?list-type=2"),
        ("GET", "/bucket"),
        ("GET", "/bucket?versions"),
        ("GET", "/bucket?uploads"),
        ("POST", "/bucket/key?uploads"),
        ("DELETE", "/bucket/key"),
        ("DELETE", "/bucket2"),
    ):
        request(server, method, path)
    assert spy.read == {"PATH"}


# Names of moto's that may go


@pytest.fixture
def fresh_application(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the next server set moto up again, and the one after this test as well."""
    monkeypatch.setattr(models.FakeMultipart, "complete", models.FakeMultipart.complete)
    ours._application.cache_clear()
    yield
    ours._application.cache_clear()


def use(server: MockS3Server) -> None:
    """Do what must work whatever is missing."""
    server.create_bucket("bucket")
    assert request(server, "PUT", "/bucket/key", bytes(6 * MiB))[0] == 200
    assert request(server, "GET", "/bucket/key") == (200, bytes(6 * MiB))
    assert request(server, "GET", "/bucket/missing")[0] == 404
    assert request(server, "GET", "/missing")[0] == 404
    for key in ("a", "b"):
        request(server, "PUT", f"/bucket/{key}", b"data")
    assert request(server, "GET", "/bucket?list-type=2")[1].count(b"<Key>") == 3
    assert request(server, "DELETE", "/bucket/key")[0] == 204


def use_shared(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), MockS3Server() as one, MockS3Server() as other:
        assert "share their buckets" in caplog.text
        use(one)
        use(other)
        request(one, "PUT", "/bucket/shared", b"data")
        assert request(other, "GET", "/bucket/shared") == (200, b"data")
        one.stop()
        assert request(other, "GET", "/bucket/shared") == (200, b"data")
    with MockS3Server() as later:
        assert b"<Name>" not in request(later, "GET", "/")[1]


def test_without_the_table_of_bucket_names_servers_share_their_buckets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backends = get_backend("s3")
    # moto finds it elsewhere; we do not.
    monkeypatch.setattr(type(backends), "bucket_accounts", {}, raising=False)
    monkeypatch.delitem(vars(backends), "bucket_accounts")
    use_shared(caplog)


def test_where_the_environment_chooses_the_account_servers_share_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fresh_application: None
) -> None:
    from moto.core import responses

    monkeypatch.setattr(builtins, "os", os, raising=False)
    monkeypatch.delattr(responses, "os")
    with MockS3Server() as server:  # nothing chooses
        use(server)
    assert not caplog.text
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
    use_shared(caplog)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("moto.settings", "os"),
        ("moto.core.responses", "os"),
        ("moto.core.utils", "Session"),
        ("moto.moto_server.werkzeug_app", "DISABLE_GLOBAL_CORS"),
        ("moto.s3.models", "S3_UPLOAD_PART_MIN_SIZE"),
        ("moto.s3.models", "FakeMultipart"),
    ],
)
def test_server_works_without_a_global_name(
    monkeypatch: pytest.MonkeyPatch, fresh_application: None, module: str, name: str
) -> None:
    names = vars(sys.modules[module])
    if name not in names:
        return  # this release has already done without it
    # moto finds it among the built-in names; we do not.
    monkeypatch.setattr(builtins, name, names[name], raising=False)
    monkeypatch.delitem(names, name)
    with MockS3Server() as server:
        use(server)


def test_server_works_where_a_module_is_gone(monkeypatch: pytest.MonkeyPatch, fresh_application: None) -> None:
    for module in ("moto.settings", "moto.core.responses", "moto.core.utils"):
        monkeypatch.delitem(sys.modules, module)
    with MockS3Server() as server:
        use(server)


def test_server_works_where_parts_are_put_together_elsewhere(
    monkeypatch: pytest.MonkeyPatch, fresh_application: None
) -> None:
    upload = models.FakeMultipart
    monkeypatch.setattr(upload.__mro__[1], "complete", upload.complete, raising=False)
    monkeypatch.delattr(upload, "complete")
    with MockS3Server() as server:
        use(server)


def test_files_are_closed_where_moto_lists_no_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("instances_tracked", "instances"):
        # moto finds one by the metaclass; we do not.
        monkeypatch.setattr(type(models.FakeKey), name, [], raising=False)
        for model in (models.FakeKey, models.FakeMultipart, models.FakeBucket):
            if name in vars(model):
                monkeypatch.delattr(model, name)
    with MockS3Server() as server:
        use(server)
        request(server, "PUT", "/bucket/key", bytes(6 * MiB))
        request(server, "POST", "/bucket/upload?uploads")
        bucket = next(iter(ours._open)).buckets["bucket"]
        objects = [*bucket.keys.values(), *bucket.multiparts.values()]
    assert len(objects) == 4
    assert all(one.disposed for one in objects if isinstance(one, models.FakeKey))


def test_server_works_with_werkzeugs_own_request_handler() -> None:
    code = """
from moto.moto_server import werkzeug_app
vars(werkzeug_app).pop("MotoRequestHandler", None)
from http.client import HTTPConnection
from lsst_lfa import MockS3Server
with MockS3Server() as server:
    server.create_bucket("bucket")
    connection = HTTPConnection(server.endpoint_url.removeprefix("http://"), timeout=20)
    connection.request("PUT", "/bucket/key", b"data")
    assert connection.getresponse().status == 200
    connection.close()
"""
    run("-W", "error", "-c", code)


@pytest.mark.skipif(not hasattr(werkzeug_app, "MotoRequestHandler"), reason="this release of moto drops such names")
def test_metadata_may_have_underscores_in_its_names(server: MockS3Server) -> None:
    connection = HTTPConnection(server.endpoint_url.removeprefix("http://"), timeout=20)
    connection.request("PUT", "/bucket/key", b"data", {"x-amz-meta-a_b": "1"})
    assert connection.getresponse().read() == b""
    connection.close()
    connection.request("HEAD", "/bucket/key")
    assert connection.getresponse().getheader("x-amz-meta-a_b") == "1"
    connection.close()
