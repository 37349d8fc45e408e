"""The README's blocks and the examples run as they are."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", PYTHON, ids=[f"block {number}" for number in range(1, len(PYTHON) + 1)])
async def test_python_blocks(block: str, server: MockS3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    (tmp_path / "README.md").write_text("a file to upload")
    monkeypatch.chdir(tmp_path)
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, {"__name__": "__readme__"})
    if inspect.isawaitable(result):
        await result


async def test_the_guide_to_the_verbs(server: MockS3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its blocks run one after another: each has what those before it made."""
    guide = (ROOT / "examples" / "verbs.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert guide.count("```") == 2 * len(blocks)
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__guide__"}
    for number, block in enumerate(blocks, 1):
        code = compile(block, f"verbs.md, block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
    shown = "".join(blocks)
    verbs = "upload upload_fits head read download open stream fits_headers download_fits copy list delete_many"
    for verb in (*verbs.split(), "upload_folder", "download_folder", "bucket_for", "download_url"):
        assert f"{verb}(" in shown


def test_every_block_is_python_or_one_line_of_shell() -> None:
    assert README.count("```") == 2 * (len(PYTHON) + len(SHELL))
    assert all(block.count("\n") == 1 for block in SHELL)
    ci = (ROOT / ".ci" / "run").read_text()
    for block, pattern in zip(SHELL, ("fits_roundtrip", "pytest", "apt-get update"), strict=True):
        assert re.search(pattern, block)
        assert pattern in ci, "CI runs it"


def run_example(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **(env or {})},
    )


def test_fits_roundtrip_on_the_embedded_mock() -> None:
    done = run_example("examples/fits_roundtrip.py", "--copies", "60")
    assert done.returncode == 0, done.stderr
    assert "headers and data of 60 HDU(s) are equal" in done.stdout
    assert "/rubinobs-lfa-summit-atcamera/" in done.stdout
    assert "MB/s" in done.stdout
    assert "upload: " in done.stderr, "the progress bar"


def test_fits_roundtrip_on_a_server(server: MockS3Server, tmp_path: Path) -> None:
    from astropy.io import fits

    path = tmp_path / "file.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU([[1, 2], [3, 4]])]).writeto(path)
    env = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    options = ("--endpoint-url", server.endpoint_url, "--bucket", "test")
    done = run_example("examples/fits_roundtrip.py", str(path), *options, env=env)
    assert done.returncode == 0, done.stderr
    assert f"{server.endpoint_url}/test/" in done.stdout
    assert "2 HDU(s)" in done.stdout


def test_fits_roundtrip_says_what_is_wrong() -> None:
    done = run_example("examples/fits_roundtrip.py", "no-such-file.fits")
    assert done.returncode == 1
    assert "no-such-file.fits" in done.stderr
    assert "Traceback" not in done.stderr


def test_csc_loop() -> None:
    done = run_example("examples/csc_loop.py")
    assert done.returncode == 0, done.stderr
    assert re.search(r"largest jitter: [\d.]+ ms idle, [\d.]+ ms during 5 uploads", done.stdout)


def test_script() -> None:
    done = run_example("examples/script.py")
    assert done.returncode == 0, done.stderr
    assert "fetched EXPTIME: 30.0" in done.stdout
