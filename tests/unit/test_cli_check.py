"""`check`: a line for each thing, its cure, and the exit code of the worst."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import MockS3Server, errors
from lsst_lfa._cli.checks import Finding, annex_bucket, clock, credential_source, run_checks, worst
from lsst_lfa._cli.targets import Places
from lsst_lfa.sites import SITES, Site
from tests.faults import Fault, FaultyS3Server, Silence, Status

from .command_line import Ran, Shell, in_bucket, point_at

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["endpoint", "connection", "TLS", "clock", "latency", "credentials", "bucket", "write"]


@pytest.fixture
def shell(server: MockS3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    point_at(server, monkeypatch)
    return Shell(capsys)


def states(ran: Ran) -> dict[str, str]:
    return {line["check"]: line["state"] for line in ran.json}


def test_a_service_that_works(shell: Shell, server: MockS3Server) -> None:
    ran = shell("check", "s3://test", "--write", "--json")
    assert ran.code == 0
    assert states(ran) == dict.fromkeys(NAMES, "OK") | {"TLS": "not tried"}
    assert {line["check"] for line in ran.json if "seconds" in line} == {"connection", "clock", "latency", "write"}
    assert in_bucket(server, "test", _keys) == []


async def _keys(bucket: object) -> list[str]:
    return [item.key async for item in bucket.list("lsst-lfa-check")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("operation", ["PutObject", "GetObject"])
async def test_a_write_that_fails_leaves_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    async with FaultyS3Server([Fault(operation, Status(500, "InternalError"))]) as faulty:
        monkeypatch.setenv("S3_ENDPOINT_URL", faulty.endpoint_url)
        findings = [finding async for finding in run_checks(Places(), "s3://test", write=True, limit=5.0)]
        assert [(each.name, each.state) for each in findings[-2:]] == [("bucket", "OK"), ("write", "failed")]
        assert len(faulty.calls("DeleteObject")) == 1
        assert faulty.calls("DeleteObject")[0].key == faulty.calls("PutObject")[0].key


def test_people_get_a_line_for_each(shell: Shell) -> None:
    ran = shell("check", "--bucket", "test")
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in lines] == NAMES
    assert lines[-1] == "write       not tried  --write does"
    assert "accepted" in lines[5]


def test_without_a_bucket_the_rest_is_checked(shell: Shell) -> None:
    ran = shell("check", "--json")
    assert ran.code == 0
    assert [name for name, state in states(ran).items() if state == "not tried"] == ["TLS", "bucket", "write"]


def test_a_missing_bucket_is_3(shell: Shell) -> None:
    ran = shell("check", "s3://nowhere", "--write", "--json")
    assert ran.code == 3
    assert states(ran) == dict.fromkeys(NAMES, "OK") | {"TLS": "not tried", "bucket": "failed", "write": "not tried"}


def test_missing_credentials_are_4_and_the_network_is_checked_all_the_same(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    ran = shell("check", "s3://test", "--write", "--json")
    assert ran.code == 4
    found = states(ran)
    assert (found["latency"], found["credentials"], found["bucket"]) == ("OK", "failed", "not tried")
    assert "AWS_ACCESS_KEY_ID" in ran.json[5]["message"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Listen, and say nothing; the second connection waits."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("endpoint", "failing", "code"),
    [
        ("http://127.0.0.1:1", "connection", 5),
        ("http://no-such-host.invalid", "connection", 5),
        ("https://{mock}", "TLS", 2),
        ("http://[::1]:1", "connection", 5),
    ],
)
def test_what_fails_first_is_named_and_what_needs_it_is_not_tried(  # noqa: PLR0917
    shell: Shell, server: MockS3Server, monkeypatch: pytest.MonkeyPatch, endpoint: str, failing: str, code: int
) -> None:
    mock = server.endpoint_url.removeprefix("http://")
    monkeypatch.setenv("S3_ENDPOINT_URL", endpoint.format(mock=mock))
    ran = shell("check", "s3://test", "--write", "--json")
    found = states(ran)
    assert (ran.code, found[failing]) == (code, "failed")
    assert found["credentials"] == "OK", "they are looked for"
    later = NAMES[NAMES.index(failing) + 1 :]
    assert {found[name] for name in later if name != "credentials"} == {"not tried"}


def test_a_server_that_says_nothing_is_5(shell: Shell, silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{silent_port}")
    ran = shell("check", "s3://test", "--timeout", "0.5", "--json")
    assert ran.code == 5
    assert (states(ran)["connection"], states(ran)["service"]) == ("OK", "failed")
    assert "no response within 0.5 s" in ran.json[3]["message"]


@pytest.mark.fast_clock
@pytest.mark.parametrize(("limit", "state"), [(1.0, "failed"), (30.0, "OK")])
async def test_a_bucket_that_takes_its_time(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, limit: float, state: str
) -> None:
    async with FaultyS3Server([Fault("ListObjectsV2", Silence(seconds=5))]) as slow:
        monkeypatch.setenv("S3_ENDPOINT_URL", slow.endpoint_url)
        findings = [finding async for finding in run_checks(Places(), "s3://test", write=False, limit=limit)]
        assert next(each.state for each in findings if each.name == "bucket") == state


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "soon"])
def test_a_timeout_that_is_none_is_2(shell: Shell, seconds: str) -> None:
    ran = shell("check", "s3://test", "--timeout", seconds)
    assert ran.code == 2
    assert "--timeout" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--site", "mars"], "Known sites: base"),
        (["--site", "summit"], "S3_ENDPOINT_URL"),
        (["key"], "is not a URL"),
        (["s3://b@d bucket"], "bucket='d bucket'"),
    ],
)
def test_wrong_settings_are_2(shell: Shell, arguments: list[str], said: str) -> None:
    ran = shell("check", *arguments)
    assert ran.code == 2
    first, *others = ran.out.splitlines()
    assert first.startswith("endpoint    failed     ")
    assert said in first
    assert all(line.split(maxsplit=1)[1].startswith("not tried") for line in others)


@pytest.mark.parametrize(
    ("proxy", "failing", "code", "said"),
    [
        ("http://user:sekrit@127.0.0.1:1", "connection", 5, "the proxy 127.0.0.1:1"),
        ("http://user:sekrit@127.0.0.1:port", "endpoint", 2, "HTTPS_PROXY"),
        ("socks5://user:sekrit@127.0.0.1", "endpoint", 2, "HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_fails_is_named_without_its_password(  # noqa: PLR0917
    shell: Shell, monkeypatch: pytest.MonkeyPatch, proxy: str, failing: str, code: int, said: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    ran = shell("check", "s3://test", "--json")
    assert ran.code == code
    found = {line["check"]: line for line in ran.json}
    assert (found[failing]["state"], said in found[failing]["message"]) == ("failed", True)
    assert "sekrit" not in ran.out + ran.err


def test_quiet_says_only_what_failed(shell: Shell) -> None:
    assert shell("check", "s3://test", "-q").out == ""
    (line,) = shell("check", "s3://nowhere", "-q").out.splitlines()
    assert line.startswith("bucket      failed")


def test_the_secret_is_not_told(shell: Shell, server: MockS3Server) -> None:
    ran = shell("check", "s3://test", "--write", "-vv")
    assert server.secret_access_key not in ran.out + ran.err


@pytest.mark.parametrize(
    ("skew", "state", "said"),
    [
        (None, "not tried", "does not tell"),
        (0.4, "OK", "within 2 s"),
        (-30, "OK", "30 s behind"),
        (100, "OK", "100 s ahead of the server; is it kept by NTP"),
        (-901, "failed", "Set the clock"),
    ],
)
def test_a_clock_that_is_off_is_told(skew: float | None, state: str, said: str) -> None:
    found = clock(skew)
    assert found.state == state
    assert said in found.message


def test_the_worst_is_the_highest_code() -> None:
    found = [Finding("a", "failed", "", errors.ConfigurationError("x")), Finding("b", "OK", "")]
    assert worst(found[1:]) is None
    unreachable = errors.UnreachableError("y")
    assert worst([*found, Finding("c", "failed", "", unreachable)]) is unreachable


def test_the_bucket_of_a_site_is_that_of_its_annex() -> None:
    assert annex_bucket(SITES["summit"], SITES) == "rubinobs-lfa-cp"
    assert annex_bucket(SITES["usdf"], SITES) == "rubin:rubinobs-lfa-cp"
    assert annex_bucket(Site("x", None, "lab", mirrors=("gone",)), SITES) == "rubinobs-lfa-lab"


def test_where_the_credentials_are_from_is_told() -> None:
    assert credential_source({"AWS_ACCESS_KEY_ID": "x"}, "summit") == "by the profile summit"
    assert credential_source({"AWS_ACCESS_KEY_ID": "x", "AWS_PROFILE": "y"}, None) == "in AWS_ACCESS_KEY_ID"
    assert credential_source({"AWS_PROFILE": "y"}, None) == "by AWS_PROFILE=y"
    assert "files" in credential_source({}, None)
