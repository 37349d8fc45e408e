"""Uploads, downloads and listings by the command line, on real servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.samples import sample
from tests.unit.command_line import Shell

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service

MiB = 1024 * 1024


@pytest.fixture
def lfa(service: Service, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """Return what runs commands on the server, in an empty folder."""
    monkeypatch.setenv("S3_ENDPOINT_URL", service.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", service.server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", service.server.secret_access_key)
    if service.server.ca_file is not None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(service.server.ca_file))
    monkeypatch.chdir(tmp_path)
    return Shell(capfd)


def test_files_go_up_and_come_back(lfa: Shell, service: Service, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "night"
    (folder / "deep").mkdir(parents=True)
    files = {"large.bin": sample(20 * MiB), "empty": b"", "deep/ü +%2F x.fits": b"data"}
    for file, data in files.items():
        (folder / file).write_bytes(data)
    urls = {f"{service.endpoint_url}/{name}/p/night/{file}" for file in files}
    done = lfa("put", "night", f"s3://{name}/p/")
    assert (done.code, set(done.lines), done.err) == (0, urls, "")
    assert [each["skipped"] for each in lfa("put", "night", f"s3://{name}/p/", "--json").json] == [True] * 3
    assert lfa("ls", f"s3://{name}").lines == ["p/"]
    assert lfa("ls", f"s3://{name}/p/night").lines == ["deep/", "empty", "large.bin"]
    assert re.search(r"^  21\.0 MB  20\S+Z  large\.bin$", lfa("ls", "-l", f"s3://{name}/p/night/").out, re.MULTILINE)
    assert lfa("get", "-r", f"s3://{name}/p/night", "-o", "back").code == 0
    assert {path: (tmp_path / "back" / path).read_bytes() for path in files} == files
    assert [each["skipped"] for each in lfa("get", *urls, "-o", "night", "--json").json].count(True) == 2
    assert lfa("put", "--if-none-match", "night/empty", f"s3://{name}/p/night/large.bin").code == 4
    (facts,) = lfa("stat", "--json", f"s3://{name}/p/night/large.bin").json
    assert (facts["size"], facts["content_type"]) == (20 * MiB, "application/octet-stream")
    assert sorted(lfa("rm", "-r", f"s3://{name}/p").lines) == sorted(f"p/night/{file}" for file in files)
    assert lfa("ls", "-r", f"s3://{name}") == (0, "", "")


@pytest.mark.servers("seaweedfs", "ceph")  # moto verifies no signatures
def test_a_shared_url_works_and_what_is_wrong_has_its_code(
    lfa: Shell, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"data")
    assert lfa("put", "a", f"s3://{name}/").code == 0
    assert lfa("cat", f"s3://{name}/a").out == "data"
    link = lfa("share", f"s3://{name}/a", "--expires", "10m").out.strip()
    assert lfa("get", f"s3://{name}/gone").code == 3
    assert lfa("ls", "s3://no-such-bucket-anywhere").code == 3
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    done = lfa("ls", f"s3://{name}")
    assert done.code == 4
    assert "hunter2" not in done.err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert lfa("get", link, "-o", "shared").code == 0
    assert (tmp_path / "shared").read_bytes() == b"data"
    assert lfa("get", f"s3://{name}/a", "-o", "b").code == 4, "anonymous, and not for anybody"
