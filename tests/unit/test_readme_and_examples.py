"""The README's blocks, the guides and the examples run as they are; what they say about the code is true."""

from __future__ import annotations

import ast
import codeop
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa import S3Session, TransferConfig, errors
from lsst_lfa._cli import main

if TYPE_CHECKING:
    from lsst_lfa import MockS3Server

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "examples").glob("*.md"))
PAGES = [README, *GUIDES, *sorted((ROOT / ".github").glob("*.md"))]
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "s": 1}

by_name = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def words(page: Path) -> list[str]:
    return page.read_text().split()


def table(page: Path, head: str) -> list[list[str]]:
    """Return the cells of a table, by the line at its head."""
    lines = page.read_text().partition(f"\n{head}")[2].partition("\n\n")[0].splitlines()[2:]
    assert lines, "no such table"
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.fixture
def newcomer(server: MockS3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be in an empty folder, with a service that the environment names."""
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.chdir(tmp_path)


async def run(block: str, name: str, namespace: dict[str, Any]) -> None:
    code = compile(block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.isawaitable(result):
        await result


@pytest.mark.usefixtures("newcomer")
@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
async def test_each_block_of_the_readme_runs_by_itself(number: int) -> None:
    await run(blocks(README, "python")[number], f"README.md, block {number + 1}", {"__name__": "__readme__"})


@pytest.mark.usefixtures("newcomer")
@pytest.mark.parametrize("guide", GUIDES, ids=[guide.name for guide in GUIDES])
async def test_the_blocks_of_a_guide_run_in_their_order(guide: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__guide__"}
    for number, block in enumerate(blocks(guide, "python"), 1):
        await run(block, f"{guide.name}, block {number}", namespace)


@pytest.mark.usefixtures("newcomer")
def test_the_shell_blocks_of_the_command_line_guide_run_in_their_order(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "lsst-lfa"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m lsst_lfa "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    for line in "".join(blocks(ROOT / "examples" / "command_line.md", "sh")).splitlines():
        if line.startswith("lsst-lfa ") and "|" not in line:  # in this process, which is faster
            assert main(shlex.split(line, comments=True)[1:]) == 0, line
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, timeout=60)
    assert capfd.readouterr().err == ""


@by_name
def test_every_block_can_be_pasted_into_a_console(page: Path) -> None:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for block in blocks(page, "python"):
        lines: list[str] = []
        for line in [*block.splitlines(), ""]:
            lines.append(line)
            if compiler("\n".join(lines)) is not None:
                lines = []
        assert not lines, "a statement without its end"


@by_name
def test_every_block_is_in_a_language_that_is_tested_or_shown(page: Path) -> None:
    found = sum(len(blocks(page, language)) for language in ("python", "sh", "diff", "toml", "text"))
    assert page.read_text().count("```") == 2 * found


def test_the_guide_to_operations_shows_each() -> None:
    shown = "".join(blocks(ROOT / "examples" / "operations.md", "python"))
    names = "upload upload_fits head read download open stream fits_headers download_fits copy list delete_many"
    for name in (*names.split(), "upload_folder", "download_folder", "bucket_for", "download_url"):
        assert f"{name}(" in shown


def test_ci_runs_the_commands_of_the_readme_and_of_contributing() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    runs = re.findall(r'^run "[^"]+" (\S+) "([^"]+)"', ci, re.MULTILINE)
    assert len(runs) == ci.count("\nrun ")
    for page, pattern in runs:
        assert re.search(f"^{pattern}", (ROOT / page).read_text(), re.MULTILINE), "the whole line, from its start"
    for block in blocks(README, "sh"):
        assert block.count("\n") == 1
        assert any(re.match(pattern, block) for page, pattern in runs if page == "README.md"), "CI runs it"


def test_contributing_says_where_the_tests_of_every_module_are() -> None:
    rows = table(ROOT / ".github" / "CONTRIBUTING.md", "| Modules | Tested in |")
    elsewhere = {name for row in rows for name in names(row[0])}
    tests = {path.stem for folder in ("unit", "faults") for path in (ROOT / "tests" / folder).glob("test_*.py")}
    for row in rows:
        assert tests.issuperset(re.findall(r"(test_\w+)\.py", row[1])), row
    for path in (ROOT / "lsst_lfa").rglob("*.py"):
        package, module = path.parent.name, path.stem
        by_name = (f"test_{module.lstrip('_')}", f"test_{package.lstrip('_')}_{module.lstrip('_')}")
        found = any(test.startswith(by_name) for test in tests)
        assert found or not elsewhere.isdisjoint({module, package}) or module.startswith("__"), path


def test_contributing_has_every_module_of_the_top_level_in_its_layer() -> None:
    rows = table(ROOT / ".github" / "CONTRIBUTING.md", "| Layer | Modules |")
    found = sorted(name for row in rows for name in names(row[1]))
    here = [path for path in (ROOT / "lsst_lfa").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert found == sorted(path.stem for path in here)


def test_the_readme_is_a_page() -> None:
    assert len(words(README)) <= 900
    assert README.read_text().count("![") == 1


@by_name
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, link


def test_the_readme_links_every_guide() -> None:
    assert {guide.name for guide in GUIDES} == set(
        re.findall(r"^- \[.*\]\(examples/(\w+\.md)\)", README.read_text(), re.MULTILINE)
    )


def default(cell: str) -> object:
    """Read a default as the guide writes it: ``16 MiB``, ``0.25 s``, ``None`` in backticks."""
    number, _, unit = cell.partition(" ")
    return float(number) * UNITS[unit] if unit else ast.literal_eval(cell.strip("`"))


def test_the_configuration_guide_has_every_field_of_a_transfer_config() -> None:
    rows = table(ROOT / "examples" / "configuration.md", "| Field | Default |")
    assert {name: default(cell) for (name,), cell in ((names(row[0]), row[1]) for row in rows)} == {
        field.name: field.default for field in fields(TransferConfig)
    }


def test_the_configuration_guide_has_every_argument_of_a_session() -> None:
    rows = table(ROOT / "examples" / "configuration.md", "| Argument | Default |")
    assert {name: default(row[1]) for row in rows for name in names(row[0])} == {
        name: parameter.default for name, parameter in inspect.signature(S3Session).parameters.items()
    }


def test_the_guide_to_errors_has_the_whole_tree() -> None:
    rows = table(ROOT / "examples" / "errors.md", "| Error | Is also |")
    assert sorted(name for row in rows for name in names(row[0])) == errors.__all__
    for row in rows:
        (name,) = names(row[0])
        bases = {base.__name__ for base in getattr(errors, name).__mro__[1:]}
        assert bases.issuperset(names(row[1]))


def test_the_readme_and_the_guide_have_the_same_numbers() -> None:
    head = "| | lsst_lfa |"
    measured = table(ROOT / "examples" / "benchmarks.md", head)
    shown = table(README, head)
    # The guide has one more column, and more rows.
    assert all(row in [each[: len(row)] for each in measured] for row in shown)


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


def test_csc_exposures() -> None:
    done = run_example("examples/csc_exposures.py")
    assert done.returncode == 0, done.stderr
    assert "10 of 10 exposures stored and announced" in done.stdout
    assert re.search(r"largest jitter: [\d.]+ ms", done.stdout)


def test_script() -> None:
    done = run_example("examples/script.py")
    assert done.returncode == 0, done.stderr
    assert "fetched EXPTIME: 30.0" in done.stdout
