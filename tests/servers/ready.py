"""What a server needs before it can run, and how to tell that it does: programs, ports, waiting."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .process import Daemon

__all__ = ["EXTRA_PATH", "MissingProgramError", "ServerStartError", "find_program", "free_ports", "wait_until"]

EXTRA_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
"""Debian keeps daemons here, and leaves it out of an ordinary user's PATH."""
_handed_out: set[int] = set()


class ServerStartError(RuntimeError):
    """A server, or a tool that prepares it, did not come up."""


class MissingProgramError(ServerStartError):
    """A program is not installed; the message says how to install it."""


def find_program(name: str, install: str) -> str:
    """Find a program beside this interpreter, on PATH, or among the system's daemons.

    Parameters
    ----------
    name : `str`
        The program's name.
    install : `str`
        The command that installs it, for the message.

    Returns
    -------
    path : `str`
        Absolute path of the program.

    Raises
    ------
    MissingProgramError
        If it is not installed.
    """
    # Beside the interpreter first: a virtual environment need not be activated to be used.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), EXTRA_PATH])
    found = shutil.which(name, path=places)
    if found is None:
        message = f"the program {name!r} is not installed; install it with: {install}"
        raise MissingProgramError(message)
    return str(Path(found).absolute())


def free_ports(count: int) -> list[int]:
    """Choose loopback ports that nobody listens on, no port twice in one run.

    They lie below the range from which the kernel takes the ports of outgoing connections. Else, while a server is
    down, a client that tries to reach it could be given the server's own port: it would be connected to itself, and
    the server could not come back.

    Parameters
    ----------
    count : `int`
        How many.

    Returns
    -------
    ports : `list` [`int`]
        The ports.

    Raises
    ------
    ServerStartError
        If there are not enough.
    """
    lowest_outgoing = 32768
    with contextlib.suppress(OSError):
        lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(10000, lowest_outgoing)) or list(range(61000, 65536))
    random.shuffle(candidates)
    ports: list[int] = []
    for port in candidates:
        if len(ports) == count:
            break
        if port in _handed_out:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    if len(ports) < count:
        message = f"no {count} free ports on 127.0.0.1"
        raise ServerStartError(message)
    _handed_out.update(ports)
    return ports


def wait_until(ready: Callable[[], bool], what: str, *, seconds: float, daemons: Sequence[Daemon] = ()) -> None:
    """Wait until a condition holds, and no longer than its processes live.

    Parameters
    ----------
    ready : `~collections.abc.Callable`
        Called every 50 ms; takes nothing, returns `bool`.
    what : `str`
        What is awaited, for the message.
    seconds : `float`
        Time limit.
    daemons : `~collections.abc.Sequence` [`Daemon`]
        Processes that must run on; their logs' ends go into the message.

    Raises
    ------
    ServerStartError
        If the time is over or a process has ended.
    """
    total_timeout = time.monotonic() + seconds
    while True:
        dead = [daemon for daemon in daemons if not daemon.running]
        if not dead and ready():
            return
        if dead or time.monotonic() > total_timeout:
            fault = f"{dead[0].name} ended with status {dead[0].status}" if dead else f"no response in {seconds:g} s"
            logs = "\n".join(daemon.log_tail() for daemon in dead or daemons)
            message = f"{what} did not come up: {fault}\n{logs}"
            raise ServerStartError(message)
        time.sleep(0.05)
