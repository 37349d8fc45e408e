"""The choice of the S3 server that the integration tests run against, and what the run says of it."""

from __future__ import annotations

import asyncio
import time
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.servers import S3Server

# No example is a failure for how long it takes: machines differ, and are busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

SERVERS = ("moto", "seaweedfs", "ceph")
LOOPS = ("asyncio", "uvloop")


def make_server(config: pytest.Config, folder: Path, *, https: bool = True) -> S3Server:
    """Make the server that was chosen, not started.

    Parameters
    ----------
    config : `pytest.Config`
        Has the choice.
    folder : `~pathlib.Path`
        The server's own.
    https : `bool`, optional
        Serve https too, where the server can.
    """
    from tests.servers import CephServer, CertificateAuthority, MotoServer, SeaweedServer

    name = config.getoption("server")
    if name == MotoServer.name:
        return MotoServer(folder)
    tls = CertificateAuthority(folder / "tls").valid() if https else None
    return CephServer(folder, tls=tls) if name == CephServer.name else SeaweedServer(folder, tls=tls)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=LOOPS, default="asyncio", help="event loop of all tests")
    parser.addoption("--server", choices=SERVERS, default="moto", help="S3 server of the integration tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers(*names): run this test against these servers only")
    config.addinivalue_line("markers", "schemes(*names): run this test over these schemes only, http or https")
    config.addinivalue_line("markers", "fast_clock: wait for no timer where nothing can happen before it")
    config.stash[_BEGAN] = time.monotonic()
    if config.getoption("loop") == "uvloop":
        import uvloop

        with warnings.catch_warnings():
            # A policy, though deprecated since Python 3.14: it reaches `asyncio.run` too, in all threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    from tests.clock import FastClockLoop

    return {"fast": FastClockLoop} if _has_fast_clock(config, item) else {"chosen": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _jobs_are_counted(request: pytest.FixtureRequest) -> Iterator[None]:
    from tests.clock import JOBS

    with JOBS.counted() if _has_fast_clock(request.config, request.node) else nullcontext():
        yield


def _has_fast_clock(config: pytest.Config, item: pytest.Item) -> bool:
    """Tell whether a test's loop has such a clock; uvloop's cannot."""
    return item.get_closest_marker("fast_clock") is not None and config.getoption("loop") == "asyncio"


def pytest_report_header(config: pytest.Config) -> str:
    return f"S3 server: {_version(config)}; event loop: {config.getoption('loop')}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed = len(terminalreporter.stats.get("passed", ()))
    seconds = time.monotonic() - config.stash[_BEGAN]
    terminalreporter.write_line(f"{_version(config)}: {passed} tests passed in {seconds:.0f} s")


_BEGAN = pytest.StashKey[float]()


def _version(config: pytest.Config) -> str:
    from pathlib import Path

    from tests.servers import MissingProgramError

    try:
        return make_server(config, Path(), https=False).version
    except MissingProgramError as error:
        raise pytest.UsageError(str(error)) from None
