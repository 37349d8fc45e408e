"""Credentials that cannot be obtained, or sent, raise one error of ours, as soon as a client is opened."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, errors
from tests.faults import Fault, FaultyS3Server, Raw, RefusingHost, Silence

if TYPE_CHECKING:
    from pathlib import Path

ROLE = """
[profile p]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = q
[profile q]
aws_access_key_id = a
aws_secret_access_key = b
"""
GRANTED = b"""<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ROLE</AccessKeyId>
<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>"""
DENIED = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not this role</Message></Error></ErrorResponse>"


def http(status: int, body: bytes) -> Raw:
    return Raw(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


async def opening(**arguments: Any) -> errors.LfaError:
    with pytest.raises(errors.LfaError) as caught:
        async with S3Session(endpoint_url="http://127.0.0.1:1", **arguments):
            pass
    return caught.value


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    return file


def process(said: object) -> str:
    return f"credential_process = echo '{said if isinstance(said, str) else json.dumps(said)}'"


@pytest.mark.parametrize(
    "profile",
    [
        "region = x",
        "aws_access_key_id = x",
        "credential_process = /no/such/program",
        "credential_process = false",
        process("hello"),
        process([]),
        process({"Version": 2}),
        process({"Version": 1}),
        process({"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "soon"}),
        process({"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "2020-01-01T00:00:00Z"}),
        process({"Version": 1, "AccessKeyId": "", "SecretAccessKey": ""}),
        "role_arn = arn:aws:iam::123456789012:role/x",
        "role_arn = arn:aws:iam::123456789012:role/x\nweb_identity_token_file = /no/such/file",
        "sso_start_url = https://x.invalid\nsso_account_id = 1\nsso_region = us-east-1\nsso_role_name = r",
    ],
)
async def test_a_profile_without_usable_credentials(config: Path, profile: str) -> None:
    config.write_text(f"[profile p]\n{profile}\n")
    error = await opening(profile="p")
    assert type(error) is errors.MissingCredentialsError
    assert isinstance(error, PermissionError)
    assert not error.transient


@pytest.mark.parametrize(
    "profile",
    [
        "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = none",
        "sso_start_url = https://x\nsso_account_id = 1",
        "sso_session = none\nsso_account_id = 1\nsso_role_name = r",
    ],
)
async def test_a_profile_that_is_wrong(config: Path, profile: str) -> None:
    config.write_text(f"[profile p]\n{profile}\n")
    assert type(await opening(profile="p")) is errors.ConfigurationError


async def test_no_credentials_at_all() -> None:
    assert type(await opening()) is errors.MissingCredentialsError


async def test_an_unknown_profile_is_named() -> None:
    error = await opening(profile="nobody")
    assert type(error) is errors.ConfigurationError
    assert "nobody" in str(error)


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])
@pytest.mark.parametrize("content", [b"\0\xff", b"a = b\n", b"[default]\nregion = \xfc\n", b"[a]\n[a]\nb=1\nb=2\n"])
async def test_a_broken_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, content: bytes
) -> None:
    file = tmp_path / "broken"
    file.write_bytes(content)
    monkeypatch.setenv(variable, str(file))
    error = await opening(access_key_id="a", secret_access_key="b")
    assert type(error) is errors.ConfigurationError
    assert str(file) in str(error)


async def test_a_section_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    file.write_text("[default]\ns3 = path\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    error = await opening(access_key_id="a", secret_access_key="b")
    assert type(error) is errors.ConfigurationError
    assert '"s3 = path"' in str(error)


@pytest.mark.parametrize("wrong", ["a\nb", " a", "ü", "a\r\nx-amz-acl: public-read"])
@pytest.mark.parametrize("which", ["access_key_id", "secret_access_key", "session_token"])
async def test_credentials_that_cannot_be_sent_are_not_shown(which: str, wrong: str) -> None:
    error = await opening(**{"access_key_id": "a", "secret_access_key": "b", which: wrong})
    assert type(error) is errors.ConfigurationError
    assert which.replace("_", " ") in str(error).lower()
    assert wrong not in str(error).replace(" a", "", 1) or wrong == " a"


async def test_empty_credentials_are_none() -> None:
    assert type(await opening(access_key_id="", secret_access_key="")) is errors.MissingCredentialsError


@pytest.mark.parametrize(("region", "signed_for"), [(None, "us-east-1"), ("eu-x-1", "eu-x-1")])
async def test_a_role_is_assumed_in_the_sessions_region(
    config: Path, monkeypatch: pytest.MonkeyPatch, region: str | None, signed_for: str
) -> None:
    config.write_text(ROLE)
    async with FaultyS3Server([Fault("*", http(200, GRANTED))]) as sts, FaultyS3Server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint_url)
        async with S3Session(endpoint_url=server.endpoint_url, profile="p", region=region) as session:
            await session.bucket("test").check()
        assert f"/{signed_for}/sts/" in sts.seen[0].headers["authorization"]
        assert (
            f"=ROLE/{server.seen[0].headers['authorization'].partition('/')[2][:8]}"
            in (server.seen[0].headers["authorization"])
        )
        assert server.seen[0].headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (http(403, DENIED), "not this role"),
        (http(200, b"<html>"), "ResponseParserError"),
        (http(500, b""), "500"),
    ],
)
async def test_what_sts_refuses_is_not_the_buckets_doing(
    config: Path, monkeypatch: pytest.MonkeyPatch, action: Raw, says: str
) -> None:
    config.write_text(ROLE)
    async with FaultyS3Server([Fault("*", action)]) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint_url)
        error = await opening(profile="p")
    assert type(error) is errors.MissingCredentialsError
    assert says in str(error)
    assert "bucket" not in str(error)


async def test_sts_is_not_waited_for_long(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(ROLE)
    start = time.monotonic()
    async with FaultyS3Server([Fault("*", Silence())]) as sts:
        with RefusingHost() as refusing:
            for url in (sts.endpoint_url, refusing.endpoint_url):
                monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
                assert type(await opening(profile="p", connect_timeout=0.1)) is errors.MissingCredentialsError
    assert time.monotonic() - start < 10
