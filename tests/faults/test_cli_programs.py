"""Commands as programs of their own: on terminals, in pipes, interrupted and killed."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from astropy.io import fits

from . import Fault, FaultyS3Server, ReceiveSlowly, SendSlowly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MiB = 1024 * 1024
LARGE = 20 * MiB
PIPE = asyncio.subprocess.PIPE
ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def _programs_heed_interrupts() -> Iterator[None]:
    """Let programs be interrupted, even where the tests run in the background: that makes a shell ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Program:
    """Begins commands on a server."""

    def __init__(self, server: FaultyS3Server, folder: Path) -> None:
        self._env = {
            # An output without a buffer fails earlier than the users'.
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONUNBUFFERED"))},
            "PYTHONPATH": ROOT,
            "S3_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "TERM": "xterm",
            "COLUMNS": "120",
        }
        self._folder = folder

    async def __call__(self, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> Any:
        options.setdefault("stdout", PIPE)
        options.setdefault("stderr", PIPE)
        command = (sys.executable, "-m", "lsst_lfa", *arguments)
        return await asyncio.create_subprocess_exec(*command, cwd=self._folder, env=self._env | (env or {}), **options)

    async def output(self, *arguments: str, data: bytes | None = None, **options: Any) -> tuple[int, str, str]:
        """Run a command to its end, and return its exit code and what it wrote."""
        if data is not None:
            options["stdin"] = PIPE
        process = await self(*arguments, **options)
        out, err = await process.communicate(data)
        return process.returncode, out.decode(), err.decode()

    async def closed(self, streams: str, *arguments: str) -> tuple[int, bool]:
        """Run a command with streams closed, as a shell closes them; return its exit code, and whether it broke."""
        script = f'exec "$@" {streams}'
        command = ("sh", "-c", script, "sh", sys.executable, "-m", "lsst_lfa", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self._folder, env=self._env, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
        return await process.wait(), b"bug" in err or b"Traceback" in out + err

    async def on_terminal(self, *arguments: str, **options: Any) -> tuple[int, str]:
        """Run a command on a terminal, and return its exit code and all that was shown."""
        ours, theirs = pty.openpty()
        process = await self(*arguments, stdout=theirs, stderr=theirs, stdin=theirs, **options)
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            shown = await asyncio.to_thread(read_all, terminal)
        return await process.wait(), shown


def read_all(terminal: Any) -> str:
    pieces: list[bytes] = []
    while True:
        try:
            piece = terminal.read(65536)
        except OSError:  # EIO: the other end was closed
            piece = b""
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)


@asynccontextmanager
async def begun(server: FaultyS3Server, operation: str, key: str, process: Any) -> AsyncIterator[None]:
    """Wait until the server has seen what the process is at; whatever happens, end it."""
    try:
        async with asyncio.timeout(60):
            while not any(seen.key == key for seen in server.calls(operation)):
                await asyncio.sleep(0.02)
        yield
    finally:
        process._transport.close()  # kills it, and does not wait for its pipes


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(LARGE)
    return path


async def test_a_folder_is_listed_once_and_each_of_its_files_requested_once(tmp_path: Path) -> None:
    async with FaultyS3Server() as server:
        for number in range(30):
            server.put("test", f"f/{number}", b"data")
        program = Program(server, tmp_path)
        assert (await program.output("get", "-q", "-r", "s3://test/f", "-o", "f"))[0] == 0
        assert Counter(seen.operation for seen in server.seen) == {"ListObjectsV2": 1, "GetObject": 30}
        assert (await program.output("get", "-r", "s3://test/g", "-o", "g"))[::2] == (
            3,
            "lsst-lfa: bucket test has no folder 'g/'\n",
        )
        assert {path.name for path in tmp_path.iterdir()} == {"f"}


async def test_an_interrupt_leaves_nothing(tmp_path: Path, large: Path) -> None:
    slow = [Fault("UploadPart", ReceiveSlowly(MiB)), Fault("GetObject", SendSlowly(MiB))]
    cases: dict[str, tuple[str, tuple[str, ...], signal.Signals, int]] = {
        "1": ("UploadPart", ("put", large.name, "s3://test/1"), signal.SIGINT, 130),
        "2": ("UploadPart", ("put", large.name, "s3://test/2"), signal.SIGTERM, 143),
        "there": ("GetObject", ("get", "s3://test/there"), signal.SIGTERM, 143),
        "other": ("GetObject", ("cat", "s3://test/other"), signal.SIGINT, 130),
    }
    (tmp_path / "there").write_bytes(b"old")
    async with FaultyS3Server(slow) as server:
        program = Program(server, tmp_path)
        for key in ("there", "other"):
            server.put("test", key, bytes(LARGE))

        async def interrupt(key: str) -> tuple[int, bytes]:
            operation, arguments, number, _ = cases[key]
            process = await program(*arguments)
            async with begun(server, operation, key, process):
                process.send_signal(number)
                _, err = await asyncio.wait_for(process.communicate(), 30)
            return process.returncode, err

        for key, (*_, code) in cases.items():
            assert await interrupt(key) == (code, b"")
        assert not server.uploads
        assert server.objects.keys() == {("test", "there"), ("test", "other")}
    assert (tmp_path / "there").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"large.bin", "there"}


async def test_a_kill_leaves_no_part_of_a_file_and_no_object(tmp_path: Path, large: Path) -> None:
    faults = [Fault("UploadPart", ReceiveSlowly(MiB)), Fault("GetObject", SendSlowly(MiB))]
    async with FaultyS3Server(faults) as server:
        server.put("test", "there", bytes(LARGE))
        program = Program(server, tmp_path)
        put = await program("put", large.name, "s3://test/new")
        get = await program("get", "s3://test/there")
        async with begun(server, "UploadPart", "new", put), begun(server, "GetObject", "there", get):
            for process in (put, get):
                process.kill()
                assert await process.wait() == -signal.SIGKILL
        assert ("test", "new") not in server.objects
        assert len(server.uploads) == 1, "nobody was left to abort it: see `uploads abort`"
    assert {path.name for path in tmp_path.iterdir()} == {"large.bin"}


async def test_a_reader_that_has_seen_enough_ends_a_command_quietly(tmp_path: Path) -> None:
    async with FaultyS3Server() as server:
        server.put("test", "large", bytes(LARGE))
        for number in range(5000):
            server.put("test", f"key/{number:05}-{'x' * 100}", b"")
        program = Program(server, tmp_path)
        ls, cat = await program("ls", "s3://test/key/"), await program("cat", "s3://test/large")
        assert (await ls.stdout.readline()).startswith(b"00000-x")
        assert await cat.stdout.read(10) == bytes(10)
        for process in (ls, cat):
            process.stdout._transport.close()
            err = await asyncio.wait_for(process.stderr.read(), 20)
            assert (await process.wait(), err) == (141, b"")
        assert len(server.calls("ListObjectsV2")) < 5, "not all of it was asked for"


async def test_a_terminal_has_a_bar_with_colours_or_without(tmp_path: Path, large: Path) -> None:
    faults = [Fault("UploadPart", ReceiveSlowly(20 * MiB))]
    async with FaultyS3Server(faults) as server:
        program = Program(server, tmp_path)
        url = f"{server.endpoint_url}/test/large.bin"
        code, shown = await program.on_terminal("put", large.name, "s3://test/")
        assert code == 0
        assert re.search(r"put large\.bin .*\d+%.*\d/21\.0 MB", shown), "part of the way"
        assert f"\r\x1b[2K{url}\r\n" in shown, "above the bar, on a line of its own"
        assert re.search(r"lsst-lfa: 1 file, 21\.0 MB in \d+\.\d s \(\d+\.?\d* MB/s\)\r\n", shown)
        assert "\x1b[38;5" in shown or "\x1b[3" in shown, "colours"
        code, shown = await program.on_terminal("put", large.name, "s3://test/", env={"NO_COLOR": "1"})
        assert code == 0
        assert not re.search(r"\x1b\[[\d;]*3\d", shown), "no colours"
        assert "%" in shown


async def test_names_do_not_command_the_terminal(tmp_path: Path) -> None:
    name = "\x1b[31mred"
    folder = tmp_path / "old" / "test"
    folder.mkdir(parents=True)
    for path in (tmp_path / name, folder / name):
        path.write_bytes(b"data")
    async with FaultyS3Server() as server:
        program = Program(server, tmp_path)
        for arguments in (("put", name, "s3://test/k"), ("spool", "adopt", "old")):
            _, shown = await program.on_terminal(*arguments, env={"NO_COLOR": "1"})
            assert name not in shown
            assert "\\x1b[31mred" in shown


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_streams_are_no_failure(tmp_path: Path, closed: str) -> None:
    async with FaultyS3Server() as server:
        server.put("test", "k", b"data")
        program = Program(server, tmp_path)
        for arguments, code in ((("get", "s3://test/k"), 0), (("stat", "s3://test/gone"), 3), (("sites",), 0)):
            assert await program.closed(closed, *arguments) == (code, False)
    assert (tmp_path / "k").read_bytes() == b"data"


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("ls", "s3://test")], ids=lambda each: each[0])
async def test_an_output_that_is_full_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    async with FaultyS3Server() as server:
        server.put("test", "k", b"data")
        with Path("/dev/full").open("wb") as full:
            process = await Program(server, tmp_path)(*arguments, stdout=full)
        _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"lsst-lfa: [Errno 28] No space left on device\n")


async def test_the_standard_input_goes_up_whatever_it_is(tmp_path: Path) -> None:
    data = os.urandom(20 * MiB + 1)
    async with FaultyS3Server() as server:
        program = Program(server, tmp_path)
        url = f"{server.endpoint_url}/test/stdin"
        assert await program.output("put", "-", "s3://test/stdin", data=data) == (0, f"{url}\n", "")
        assert server.objects["test", "stdin"].data == data
        waiting = await program("put", "-", "s3://test/never", stdin=PIPE)
        waiting.stdin.write(bytes(40 * MiB))  # and then it waits for what never comes
        async with begun(server, "UploadPart", "never", waiting):
            waiting.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(waiting.wait(), 30) == 130
        assert not server.uploads
        assert ("test", "never") not in server.objects


@pytest.mark.parametrize("arguments", [("header",), ("preview", "--hdu", "1")], ids=lambda each: each[0])
async def test_of_a_large_fits_file_only_what_is_needed_is_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.zeros((2000, 2000))), fits.ImageHDU(np.zeros((2, 2)))]).writeto(file)
    async with FaultyS3Server() as server:
        server.put("test", "large.fits", file.getvalue())
        command, *options = arguments
        code, out, err = await Program(server, tmp_path).output(command, "s3://test/large.fits", *options)
        assert (code, out != "") == (0, True), err
        assert server.bytes_sent["GetObject"] < 100_000


async def test_help_loads_nothing_heavy_and_names_are_completed(tmp_path: Path) -> None:
    code = """
import sys
from lsst_lfa._cli import main
main(["--help"])
heavy = {"aiobotocore", "aiohttp", "astropy", "botocore", "matplotlib", "numpy", "rich"}
print(sorted(heavy & sys.modules.keys()))
"""
    async with FaultyS3Server() as server:
        program = Program(server, tmp_path)
        completion = {"_LSST_LFA_COMPLETE": "bash_complete", "COMP_WORDS": "lsst-lfa st", "COMP_CWORD": "1"}
        assert await program.output(env=completion) == (0, "plain,stat\n", "")
        for shell in ("bash", "zsh", "fish"):
            done = await program.output(env={"_LSST_LFA_COMPLETE": f"{shell}_source"})
            assert (done[0], "lsst-lfa" in done[1]) == (0, True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=PIPE, env=os.environ | {"PYTHONPATH": ROOT}
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"
