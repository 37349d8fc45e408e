"""Lines to a server: what they are like, how they are run, how they are told to change."""

from __future__ import annotations

import json
import math
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOOPBACK", "LineSpec", "order", "run_line"]

LOOPBACK = "loopback"
"""The title of having no line between."""
_PROGRAM = Path(__file__).with_name("_line.py")
_START_TIMEOUT = 10.0
_REPLY_TIMEOUT = 5.0


class LineSpec(NamedTuple):
    """What a line is like.

    Attributes
    ----------
    delay_ms : `float`
        Milliseconds each way. A new connection takes a round trip before its first byte, as a handshake does.
    rate_mb : `float`
        MB/s of each connection, in each direction.
    total_mb : `float`
        MB/s of all connections together, in each direction.
    """

    delay_ms: float
    rate_mb: float
    total_mb: float = math.inf

    @property
    def title(self) -> str:
        """The line in words."""
        together = "" if math.isinf(self.total_mb) else f", {self.total_mb:g} in all"
        return f"{self.delay_ms:g} ms, {self.rate_mb:g} MB/s each{together}"


@contextmanager
def run_line(folder: Path, spec: LineSpec, target: int) -> Iterator[int]:
    """Run a line to a port on 127.0.0.1, and give the line's own port there.

    It forwards bytes as they are, e.g. TLS. Its log is left in ``folder``.
    """
    # Not where a peer's own environment measures: that has no servers.
    from tests.servers.process import Daemon
    from tests.servers.ready import free_ports, wait_until

    (port,) = free_ports(1)
    numbers = (port, target, spec.delay_ms / 1e3, spec.rate_mb * 1e6, spec.total_mb * 1e6)
    # -P: modules beside the program would hide the standard library's of the same name.
    command = [sys.executable, "-P", str(_PROGRAM), *map(str, numbers)]
    daemon = Daemon(command, folder, name=f"line-{port}")
    try:
        wait_until(lambda: _responds(port), spec.title, seconds=_START_TIMEOUT, daemons=[daemon])
        yield port
    finally:
        daemon.kill()


def _responds(port: int) -> bool:
    try:
        order(port)
    except OSError:
        return False
    return True


def order(port: int, **wanted: Any) -> dict[str, Any]:
    """Tell a line to change, and return its state. It blocks for well under a millisecond.

    Parameters
    ----------
    port : `int`
        The line's.
    **wanted
        ``rate``, bytes per second of each connection from now on, and ``drop=True``, which resets the connection that
        moved most since the last time.

    Returns
    -------
    state : `dict`
        ``time``, as `time.monotonic` has it in every process; the bytes that arrived in each direction, ``up`` and
        ``down``; and ``dropped``, how many connections were reset now.

    Raises
    ------
    OSError
        If there is no such line, or it does not reply within 5 s.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_REPLY_TIMEOUT)
        asking.connect(("127.0.0.1", port))
        asking.send(json.dumps(wanted).encode())
        state: dict[str, Any] = json.loads(asking.recv(1024))
        return state
