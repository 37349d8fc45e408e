"""Runs a command: its signals, its errors, and the exit code that reports them."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from lsst_lfa import errors

from .output import discard_output, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from .output import Output

__all__ = ["FAILED", "NotFoundError", "PartlyFailedError", "ToldError", "exit_code", "message", "run"]

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5
_BY_SIGNAL: Final = 128  # as shells have it
_TOGETHER: Final = 1.0
"""Seconds in which signals are one."""


class NotFoundError(Exception):
    """A file or folder is there, but what was asked for is not in it."""


# The first that fits.
_CODES: Final[dict[tuple[type[BaseException], ...], int]] = {
    (errors.UnreachableError, errors.TransferTimeoutError, errors.UnavailableError): UNREACHABLE,
    (FileNotFoundError, errors.UploadNotFoundError, NotFoundError): NOT_FOUND,
    (PermissionError, FileExistsError, errors.QuotaExceededError, errors.TooLargeError): REFUSED,
    (errors.ConfigurationError, click.UsageError, ValueError): USAGE,
}
# What a message says all of; of other exceptions their type says more.
_EXPECTED: Final = (errors.LfaError, OSError, ValueError, click.ClickException, NotFoundError)


class PartlyFailedError(Exception):
    """Some items of many failed; each failure was reported already.

    Parameters
    ----------
    failures : iterable of exceptions
        Why.
    """

    def __init__(self, failures: Iterable[BaseException]) -> None:
        super().__init__("some failed")
        self.failures = tuple(failures)


class ToldError(Exception):
    """A failure that was reported already: the exit code is that of its cause."""


class _StoppedError(BaseException):
    """A signal ended the command, after it cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code(error: BaseException) -> int:
    """Return the exit code for what went wrong; for many failures, the one that they have in common, if any.

    If one file of many cannot be stored, that does not count as wrong usage.
    """
    if isinstance(error, ToldError) and error.__cause__ is not None:
        return exit_code(error.__cause__)
    if isinstance(error, PartlyFailedError):
        codes = {exit_code(each) for each in error.failures}
        return codes.pop() if len(codes) == 1 and USAGE not in codes else FAILED
    return next((code for kinds, code in _CODES.items() if isinstance(error, kinds)), FAILED)


def message(error: BaseException) -> str:
    """Return the message for an error."""
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if not isinstance(error, _EXPECTED):
        text = f"{type(error).__name__}: {text}. This is a bug: --debug shows where"
    return "\n".join([text or type(error).__name__, *getattr(error, "__notes__", ())])


def run(output: Output, work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a command to its end, and return its exit code. Ctrl-C and SIGTERM let it clean up first."""
    try:
        with _logging(output), asyncio.Runner() as runner:
            runner.run(_attended(work()))
        output.flush()
    except BrokenPipeError:
        return _closed_pipe()
    except KeyboardInterrupt:
        return _interrupted(output, signal.SIGINT)
    except _StoppedError as stopped:
        return _interrupted(output, stopped.number)
    except ModuleNotFoundError:
        raise  # the extra is not installed, or not all of it: `main` says what to do
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - all errors end in a message
        if output.debug:
            traceback.print_exception(error)
        if not isinstance(error, (PartlyFailedError, ToldError)):
            output.error(message(error))
        return exit_code(error)
    return 0


async def _attended(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; a signal that would end the process cancels it, as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        assert task is not None  # noqa: S101 - for the type checker
        task.cancel()

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for number in numbers:
        loop.add_signal_handler(number, _once_a_second(stop), number)
    interrupt = signal.getsignal(signal.SIGINT)
    if callable(interrupt):  # asyncio's: the first one cancels the task, the next one ends the loop as it is
        signal.signal(signal.SIGINT, _once_a_second(interrupt))
    try:
        await work
    except asyncio.CancelledError:
        if received:
            raise _StoppedError(received[0]) from None
        raise
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        if callable(interrupt):
            signal.signal(signal.SIGINT, interrupt)


def _once_a_second(handler: Callable[..., Any]) -> Callable[..., None]:
    """Overlook a signal that comes twice: a terminal and a parent process may both send it, and it stops a cleanup."""
    last = -_TOGETHER

    def handle(*arguments: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TOGETHER:
            last = now
            handler(*arguments)

    return handle


def _interrupted(output: Output, number: int) -> int:
    output.note("interrupted")
    return _BY_SIGNAL + number


def _closed_pipe() -> int:
    """Whoever read the output has seen enough: end as other programs do."""
    discard_output()
    return _BY_SIGNAL + signal.SIGPIPE


class _Formatter(logging.Formatter):
    """Escapes what would command a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


@contextmanager
def _logging(output: Output) -> Iterator[None]:
    """Show what the package logs: warnings, or more; for the command only, which may run in somebody else's process."""
    level = logging.ERROR if output.quiet else {0: logging.WARNING, 1: logging.INFO}.get(output.verbose, logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("lsst-lfa: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    package = logging.getLogger("lsst_lfa")
    before = package.level
    package.setLevel(level)
    try:
        yield
    finally:
        package.setLevel(before)
