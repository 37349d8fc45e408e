"""The command line against the server: FITS, checks, the spool, pending uploads."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits

from lsst_lfa import LargeFileAnnex, S3Session
from tests.unit.command_line import Shell

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Service

pytestmark = pytest.mark.usefixtures("environment")
REAL = pytest.mark.servers("seaweedfs", "ceph")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


def image() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(900, 1100, (500, 600)).astype("u2")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, name="SCI")]).writeto(file)
    return file.getvalue()


def test_a_file_is_described_and_shown(shell: Shell, service: Service, name: str, tmp_path: Path) -> None:
    service.client.put_object(Bucket=name, Key="a b/image.fits", Body=image())
    primary, science = shell("header", f"s3://{name}/a b/image.fits", "--json").json
    assert (primary["name"], science["name"], science["shape"]) == ("PRIMARY", "SCI", [600, 500])
    ran = shell("preview", f"{service.endpoint_url}/{name}/a b/image.fits")
    assert (ran.code, ran.out) == (0, "image.png\n"), ran.err
    assert (tmp_path / "image.png").read_bytes().startswith(b"\x89PNG")


def test_a_service_that_works_passes_every_check(shell: Shell, service: Service, name: str) -> None:
    ran = shell("check", f"s3://{name}", "--write", "--json")
    states = {line["check"]: line["state"] for line in ran.json}
    assert ran.code == 0, ran.out
    assert states.pop("TLS") == ("OK" if service.scheme == "https" else "not tried")
    assert set(states.values()) == {"OK"}
    assert service.keys(name) == []


@REAL
@pytest.mark.parametrize(("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")])
def test_credentials_that_are_not_accepted_are_4(
    shell: Shell, name: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    ran = shell("check", f"s3://{name}", "--write", "--json")
    states = {line["check"]: line["state"] for line in ran.json}
    assert ran.code == 4
    assert (states["latency"], states["credentials"], states["bucket"]) == ("OK", "failed", "not tried")


@REAL
@pytest.mark.schemes("https")
def test_a_certificate_that_is_not_trusted_is_told(shell: Shell, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    ran = shell("check", f"s3://{name}", "--json")
    found = {line["check"]: line for line in ran.json}
    assert ran.code == 5
    assert (found["connection"]["state"], found["TLS"]["state"]) == ("OK", "failed")
    assert "AWS_CA_BUNDLE" in found["TLS"]["message"]


@REAL
@pytest.mark.schemes("https")
def test_an_url_without_tls_is_told(shell: Shell, service: Service, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", service.endpoint_url.replace("https:", "http:"))
    ran = shell("check", f"s3://{name}", "--json")
    assert ran.code == 2
    assert "the server expects TLS. Use an https://" in ran.out


def test_what_waits_in_a_spool_is_sent(shell: Shell, service: Service, name: str, tmp_path: Path) -> None:
    async def publish() -> None:
        async with S3Session(endpoint_url="http://127.0.0.1:1", access_key_id="id", secret_access_key="key") as nowhere:
            annex = LargeFileAnnex(nowhere.bucket(name), "GC", 1, spool=tmp_path / "spool", upload_timeout=0.01)
            for number in range(3):
                await annex.publish(b"data" * number, generator="image", key=f"2026/{number}.fits")
            await annex.aclose()

    asyncio.run(publish())
    assert {row["state"] for row in shell("spool", "list", "spool", "--json").json} == {"waiting"}
    ran = shell("spool", "drain", "spool")
    assert ran.code == 0, ran.err
    assert service.keys(name) == [f"2026/{number}.fits" for number in range(3)]
    assert service.content(name, "2026/2.fits") == b"datadata"
    assert shell("spool", "list", "spool", "--json").out == ""


@REAL
def test_pending_uploads_are_listed_and_aborted(shell: Shell, service: Service, name: str) -> None:
    for key in ("a/1 +ü", "b"):
        service.client.create_multipart_upload(Bucket=name, Key=key)
    listed: list[dict[str, Any]] = shell("uploads", "list", f"s3://{name}", "--json").json
    assert {row["key"] for row in listed} == {"a/1 +ü", "b"}
    assert shell("uploads", "abort", f"s3://{name}", "--older-than", "1h").code == 0
    assert set(service.uploads(name)) == {"a/1 +ü", "b"}
    assert shell("uploads", "abort", f"s3://{name}/a/", "--older-than", "0s").code == 0
    assert service.uploads(name) == ["b"]
    assert shell("uploads", "abort", "--bucket", name, "--older-than", "0s").code == 0
    assert service.uploads(name) == []
