"""Structured concurrency: groups that fail with one error, clean-up that is not cut short."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

__all__ = ["in_thread", "task_group", "uninterrupted"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """`asyncio.TaskGroup`, but it raises its first error itself, not a group of them."""
    task = asyncio.current_task()
    cancels = task.cancelling() if task is not None else 0
    try:
        async with _Group() as group:
            yield group
            # Not left to the group's end: a task that fails there leaves a
            # cancellation of ours uncounted for, before Python 3.13.
            while group.running:
                await asyncio.wait(group.running)
        return
    except BaseExceptionGroup as errors:
        first = _first(errors)
    if task is not None and task.cancelling() > cancels:
        # Before Python 3.13 a group with errors forgets that it was cancelled too.
        raise asyncio.CancelledError
    # Outside the except clause: the group must not become its context.
    raise first


class _Group(asyncio.TaskGroup):
    """A group that knows which of its tasks still run."""

    def __init__(self) -> None:
        super().__init__()
        self.running: set[asyncio.Task[Any]] = set()

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def uninterrupted(work: Coroutine[Any, Any, T], *, grace: float) -> T:
    """Run ``work`` to its end, also when the caller is cancelled meanwhile.

    After a cancellation it has ``grace`` seconds left, then it is cancelled
    too. The caller's CancelledError is raised when ``work`` has ended.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not cancelled:
                asyncio.get_running_loop().call_later(grace, task.cancel)
            cancelled = True
    if cancelled:
        if not task.cancelled() and task.exception() is not None:
            log.debug("ended with an error after a cancellation", exc_info=task.exception())
        raise asyncio.CancelledError
    return task.result()


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread, and wait for its end even if cancelled.

    A thread cannot be stopped; were it left behind, it would go on reading a
    file that its owner believes to be free. It is given two seconds.
    """
    return await uninterrupted(asyncio.to_thread(function, *args, **kwargs), grace=2.0)
