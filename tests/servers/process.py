"""Programs that run in the background of the tests, and end with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .ready import EXTRA_PATH

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

__all__ = ["Daemon"]

LOG_TAIL_LINES = 30
STOP_TIMEOUT = 20.0
"""Seconds a killed process gets to disappear; a disk that flushes may hold it for a while."""
_GUARD = Path(__file__).with_name("_guard.py")


class Daemon:
    """A program in the foreground of its own process group, which ends with the test run at the latest.

    Parameters
    ----------
    command : `~collections.abc.Sequence` [`str`]
        The program and its arguments.
    folder : `~pathlib.Path`
        Working and home folder; the output is appended to ``{name}.log`` in it.
    name : `str`, optional
        Name for messages and the log file; that of the program if not given.
    """

    def __init__(self, command: Sequence[str], folder: Path, *, name: str | None = None) -> None:
        self.name = name or Path(command[0]).name
        self.log = folder / f"{self.name}.log"
        # Nothing of the caller's environment but the PATH: credentials, proxies or a site's configuration in it
        # must not decide how a server under test behaves.
        path = f"{os.environ.get('PATH', os.defpath)}:{EXTRA_PATH}"
        environment = {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: the terminal's Ctrl-C is for the test run, which then stops the servers.
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status of the program, None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send SIGHUP, SIGINT or SIGTERM to the program and all that it started.

        Parameters
        ----------
        number : `signal.Signals`
            The signal.
        """
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for the program to end by itself; kill it if it does not.

        Parameters
        ----------
        seconds : `float`
            Time limit.

        Returns
        -------
        status : `int`
            Exit status.
        """
        try:
            return self._process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the program and all that it started, as ``kill -9`` does; it is gone when this returns."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT)

    def log_tail(self) -> str:
        """Return the end of the log.

        Returns
        -------
        tail : `str`
            The last 30 lines under a heading that names the file.
        """
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"--- end of {self.log} ---", *lines])
