"""Exit codes, messages, and what is said: whatever happens, no traceback."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from lsst_lfa import errors
from lsst_lfa._cli.output import Output, human_size, printable
from lsst_lfa._cli.runner import PartlyFailedError, exit_code, message, run

if TYPE_CHECKING:
    from pathlib import Path

    from lsst_lfa import MockS3Server
    from tests.unit.command_line import Shell


def service_error(kind: type[errors.ServiceError]) -> errors.ServiceError:
    return kind("text", {"Error": {}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LfaError("x"), 1),
        (errors.IntegrityError("x"), 1),
        (OSError("disk"), 1),
        (RuntimeError("bug"), 1),
        (click.UsageError("x"), 2),
        (errors.ConfigurationError("x"), 2),
        (ValueError("x"), 2),
        (service_error(errors.KeyNotFoundError), 3),
        (service_error(errors.BucketNotFoundError), 3),
        (FileNotFoundError("x"), 3),
        (service_error(errors.AccessDeniedError), 4),
        (service_error(errors.KeyExistsError), 4),
        (service_error(errors.QuotaExceededError), 4),
        (errors.MissingCredentialsError("x"), 4),
        (PermissionError("x"), 4),
        (errors.UnreachableError("x"), 5),
        (errors.CertificateError("x"), 5),
        (errors.TransferTimeoutError("x"), 5),
        (service_error(errors.UnavailableError), 5),
        (PartlyFailedError([FileNotFoundError(), FileNotFoundError()]), 3),
        (PartlyFailedError([FileNotFoundError(), PermissionError()]), 1),
        (PartlyFailedError([ValueError()]), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_each_error_of_the_tree_ends_in_a_code_of_the_table() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        error = service_error(kind) if issubclass(kind, errors.ServiceError) else kind("x")
        assert exit_code(error) in {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("options", "level"), [({"quiet": True}, "ERROR"), ({"verbose": 2}, "DEBUG"), ({}, "WARNING")])
def test_what_is_logged_is_decided_for_the_command_only(options: dict[str, Any], level: str) -> None:
    package = logging.getLogger("lsst_lfa")
    before = package.level
    levels = []

    async def work() -> None:
        levels.append(logging.getLevelName(package.level))

    assert run(Output(**options), work) == 0
    assert levels == [level]
    assert package.level == before


def test_messages_have_the_notes_and_say_when_it_is_a_bug() -> None:
    error = errors.LfaError("what failed")
    error.add_note("a note")
    assert message(error) == "what failed\na note"
    assert message(KeyError("k")) == "KeyError: 'k'. This is a bug: --debug shows where"
    assert message(TimeoutError()) == "TimeoutError"
    assert message(click.UsageError("wrong")) == "wrong"


def test_a_bug_shows_its_traceback_only_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise KeyError("k")

    assert run(Output(), fail) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert run(Output(debug=True), fail) == 1
    assert "in fail" in capsys.readouterr().err


def test_an_interrupt_and_a_closed_pipe_are_told_as_shells_do(capfd: pytest.CaptureFixture[str]) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert run(Output(), interrupt) == 130
    assert run(Output(), cancelled) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("later", "cleaned"), [(0.0, True), (1.1, False)])
def test_a_signal_that_comes_twice_at_once_is_one_but_a_later_one_ends_the_cleanup(
    number: signal.Signals, code: int, later: float, *, cleaned: bool
) -> None:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(later)
            os.kill(os.getpid(), number)
            for _ in range(10):
                await asyncio.sleep(0.001)
            done.append("cleaned up")

    try:
        assert run(Output(), work) == code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, former)
    assert bool(done) is cleaned


def test_options_stand_before_the_command_or_after_it(lfa: Shell) -> None:
    for arguments in (("-v", "ls", "s3://test"), ("ls", "s3://test", "-v"), ("-v", "ls", "-v", "s3://test")):
        assert lfa(*arguments).code == 0
    assert lfa("--debug", "stat", "s3://test/gone").err.count("Traceback") >= 1
    assert lfa("stat", "--debug", "s3://test/gone").err.count("Traceback") >= 1
    assert "Traceback" not in lfa("stat", "s3://test/gone").err


def test_help_and_version(lfa: Shell) -> None:
    shown = lfa("--help").out
    for name in ("put", "get", "cat", "ls", "stat", "rm", "share"):
        assert f"\n  {name} " in shown
        assert lfa(name, "--help").code == 0
    assert "..." not in shown.partition("\nCommands")[2], "each line is whole"
    assert lfa("--version").out.startswith("lsst-lfa, version ")
    assert lfa("nonsense").code == 2
    assert lfa().code == 2
    assert lfa("ls", "--nonsense").code == 2


def test_no_credentials_no_server_no_permission_each_has_its_code(
    lfa: Shell, server: MockS3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"data")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for arguments in (("put", "a", "s3://test/"), ("rm", "s3://test/a"), ("share", "s3://test/a")):
        done = lfa(*arguments)
        assert (done.code, done.out) == (4, "")
        assert "AWS_ACCESS_KEY_ID" in done.err, "what to set"
    assert lfa("ls", "s3://test").code == 0, "what anybody may read"
    done = lfa("stat", "s3://test/a", "--profile", "nobody")
    assert (done.code, "nobody" in done.err) == (2, True)
    assert server.endpoint_url


def test_secrets_in_urls_are_not_shown(lfa: Shell, server: MockS3Server) -> None:
    url = server.endpoint_url.replace("://", "://user:hunter2@")
    for arguments in (("stat", f"{url}/test/gone"), ("get", f"{url}/test/gone"), ("ls", f"{url}/test/gone")):
        done = lfa("-vv", *arguments)
        assert done.code == 3
        assert "hunter2" not in done.out + done.err


def test_without_the_extra_it_says_what_to_install() -> None:
    code = 'import sys; sys.modules["click"] = None; from lsst_lfa._cli import main; sys.exit(main(["ls"]))'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "lsst-lfa: click is not installed. Do: pip install 'lsst-lfa[cli]'\n"


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        (("--help",), {"asyncio", "botocore", "aiohttp", "rich", "lsst_lfa._bucket"}),
        (("ls", "s3://test"), {"astropy", "numpy", "boto3", "moto", "rich", "matplotlib", "PIL"}),
    ],
)
def test_a_command_loads_only_what_it_needs(lfa: Shell, command: tuple[str, ...], unwanted: set[str]) -> None:
    assert lfa(*command).code == 0
    code = f"import sys; from lsst_lfa._cli import main; main({command}); sys.exit(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    loaded = set(done.stderr.split())
    assert "lsst_lfa._cli.group" in loaded
    assert not unwanted & loaded


@pytest.mark.parametrize(
    "start",
    [
        "runpy.run_module('lsst_lfa', run_name='__main__')",
        "metadata.entry_points(group='console_scripts', name='lsst-lfa')['lsst-lfa'].load()()",
    ],
    ids=["module", "script"],
)
def test_a_process_does_not_search_its_modules_for_garbage_before_it_ends(start: str) -> None:
    code = f"""
import atexit, gc, runpy
from importlib import metadata
atexit.register(lambda: print(gc.get_freeze_count()))
{start}
"""
    program = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) > 1000


def test_numbers_and_names_as_people_read_them() -> None:
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 99_940: "99.9 kB", 123_456: "123 kB", 10**9: "1.0 GB"}
    assert {size: human_size(size) for size in sizes} == sizes
    assert human_size(999_999) == "1.0 MB", "never 1000 kB"
    assert human_size(5 * 10**15) == "5000.0 TB"
    assert printable("a\nb\x1b[m é \udce9") == "a\\nb\\x1b[m é \\udce9"
