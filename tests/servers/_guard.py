"""Run one command for as long as the pipe on standard input stays open.

Started as a script by `process.Daemon`, never imported. The kernel closes the pipe when the test run ends, however
it ends, so not even SIGKILL leaves a server behind. The "parent death signal" of Linux would not do: it follows the
thread that started the process, and a test may well restart a server from a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

COMMAND_NOT_RUN = 127
"""Exit status when the command could not be started, as a shell has it."""


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if there is anybody left in it.

    Parameters
    ----------
    group : `int`
        The group's number.
    number : `int`
        The signal's number.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def kill_when_abandoned(group: int) -> None:
    """Wait until the pipe is closed, then end the command and all that it started.

    Parameters
    ----------
    group : `int`
        Number of the command's process group.
    """
    while os.read(0, 1024):
        pass
    signal_group(group, signal.SIGKILL)


def main() -> int:
    """Run the command given as arguments and pass its exit status on.

    Returns
    -------
    status : `int`
        Exit status; negative for the number of the signal that ended the command.
    """
    try:
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return COMMAND_NOT_RUN
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: signal_group(child.pid, received))
    threading.Thread(target=kill_when_abandoned, args=(child.pid,), daemon=True).start()
    # The command is reaped here, so that no zombie is left where nobody adopts orphans, as in a container.
    status = child.wait()
    # Workers outlive a main process that is killed, and go on serving requests.
    signal_group(child.pid, signal.SIGKILL)
    return status


if __name__ == "__main__":
    sys.exit(main())
