"""Many items, several in parallel: the failure of one does not stop the others, and is reported at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import click

from lsst_lfa._transfer.concurrency import task_group
from lsst_lfa._transfer.folders import stops_all
from lsst_lfa.errors import LfaError

from .runner import PartlyFailedError, message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .output import Output

__all__ = ["for_each", "tell_failures"]

T = TypeVar("T")
# These errors say nothing about the other items.
_OF_ONE = (LfaError, OSError, ValueError, click.UsageError)


async def for_each(
    output: Output, items: Sequence[T], work: Callable[[T], Awaitable[None]], *, at_once: int = 1
) -> None:
    """Do the work for each item.

    Raises
    ------
    PartlyFailedError
        If some of several failed, after all were tried.
    Exception
        The error of the only item, or one that would affect the others as
        well.
    """
    failures: list[Exception] = []
    slots = asyncio.Semaphore(at_once)

    async def attempt(item: T) -> None:
        try:
            await work(item)
        except BrokenPipeError:
            raise
        except _OF_ONE as error:
            if len(items) == 1 or stops_all(error):
                raise
            failures.append(error)
        finally:
            slots.release()

    async with task_group() as group:
        for item in items:
            await slots.acquire()
            group.create_task(attempt(item))
    tell_failures(output, failures)


def tell_failures(output: Output, failures: Iterable[Exception]) -> None:
    """Say what failed, and raise a `PartlyFailedError` if anything did."""
    failures = tuple(failures)
    for error in failures:
        output.error(message(error))
    if failures:
        raise PartlyFailedError(failures)
