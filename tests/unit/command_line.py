"""The command line in this process, as a shell would run it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lsst_lfa import MockS3Server, S3Session
from lsst_lfa._cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    import pytest

    from lsst_lfa import AsyncS3Bucket

__all__ = ["Ran", "Shell", "in_bucket", "point_at", "start"]


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Runs commands."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        self._capsys.readouterr()
        code = main([str(each) for each in arguments])
        return Ran(code, *self._capsys.readouterr())


def point_at(server: MockS3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name a server, and its credentials."""
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    monkeypatch.delenv("LSST_SITE", raising=False)
    monkeypatch.delenv("LSST_LFA_SITES", raising=False)


def in_bucket(server: MockS3Server, name: str, work: Callable[[AsyncS3Bucket], Coroutine[Any, Any, Any]]) -> Any:
    """Do something with a bucket, outside of any command."""

    async def run() -> Any:
        async with S3Session.for_mock(server) as session:
            return await work(session.bucket(name))

    return asyncio.run(run())


@contextmanager
def start(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process of its own, which does not outlive the context."""
    # A job in the background ignores SIGINT, and so would the command; with a handler here it does not inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "lsst_lfa", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()
