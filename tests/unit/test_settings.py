"""What reaches a client of the mock from its user's environment: nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiobotocore
import botocore

from lsst_lfa import S3Session
from lsst_lfa._client.settings import Settings
from tests.faults import FaultyS3Server
from tests.faults.harness import CONFIG

if TYPE_CHECKING:
    import pytest

    from lsst_lfa import MockS3Server

GARBAGE = "garbage \n \xfc://:"
CHANGING = {"x-amz-date", "authorization", "host", "amz-sdk-invocation-id", "range", "if-match"}


def names() -> set[str]:
    """Return the variables that botocore, aiohttp and ssl ask for."""
    found = {"BOTO_CONFIG", "S3_ENDPOINT_URL", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NETRC"}
    for scheme in ("http", "https", "all", "no"):
        found |= {f"{scheme}_proxy", f"{scheme}_proxy".upper()}
    for package in (botocore, aiobotocore):
        for file in Path(str(package.__file__)).parent.glob("*.py"):
            found |= set(re.findall(r"""["'](AWS_[A-Z0-9_]+)["']""", file.read_text()))
    return found | {f"AWS_ENDPOINT_URL_{service}" for service in ("S3", "STS", "SSO")}


class Stand:
    """Stands where a mock server would, to see what it gets."""

    access_key_id = "MOCK"
    secret_access_key = "mock"

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url


async def requests() -> list[dict[str, str]]:
    """Return the headers of what a client of the mock sends."""
    async with FaultyS3Server(buckets=["test"]) as server:
        session = S3Session.for_mock(cast("MockS3Server", Stand(server.endpoint_url)), CONFIG)
        async with session:
            bucket = session.bucket("test")
            await bucket.upload(b"data", "k")
            await bucket.download("k")
            await bucket.size("k")
            assert [info.key async for info in bucket.list()] == ["k"]
        seen = [dict(each.headers, operation=each.operation, query=str(each.query)) for each in server.seen]
        assert all("=MOCK/" in each["authorization"] and "/us-east-1/s3/" in each["authorization"] for each in seen)
    return [{name: value for name, value in each.items() if name not in CHANGING} for each in seen]


async def test_a_mocks_client_hears_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = await requests()
    broken = tmp_path / "config"
    broken.write_text("no section, and no end of it")
    assert len(names()) > 40
    for name in names():
        monkeypatch.setenv(name, GARBAGE)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(broken))
    assert await requests() == expected
    assert os.environ["AWS_PROFILE"] == GARBAGE


async def test_nor_of_a_configuration_that_is_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = await requests()
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = eu-x-1\nca_bundle = /none\nendpoint_url = http://elsewhere.invalid\n"
        "request_checksum_calculation = when_supported\nuse_fips_endpoint = true\ndefaults_mode = auto\n"
        "s3 =\n  addressing_style = virtual\n  payload_signing_enabled = false\n  use_accelerate_endpoint = true\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "default")
    assert await requests() == expected


def test_settings_show_no_secret() -> None:
    keys: dict[str, Any] = {"access_key_id": "CANARY", "secret_access_key": "CANARY", "session_token": "CANARY"}
    settings = Settings(endpoint_url="http://h", **keys)
    assert "CANARY" not in repr(settings)
