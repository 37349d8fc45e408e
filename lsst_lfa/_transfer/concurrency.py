"""Structured concurrency: threads of our own, groups that fail with one error, clean-up that is not cut short."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

__all__ = ["in_thread", "run_in_thread", "task_group", "uninterrupted"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_MAX_THREADS = 16
_THREAD_GRACE = 2.0


@functools.cache
def _threads(pid: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a forked child has none of its parent's threads
    return ThreadPoolExecutor(_MAX_THREADS, "lsst_lfa")


async def run_in_thread(
    function: Callable[..., T], /, *args: Any, executor: ThreadPoolExecutor | None = None, **kwargs: Any
) -> T:
    """Call ``function`` in a thread of this package's own.

    The event loop's default executor belongs to the user: filled with jobs
    that wait for us, it would never get to ours. What is called must end by
    itself; what may wait for long (a pipe) gets an ``executor`` of its own.
    """
    raised: list[TimeoutError] = []

    def call() -> T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            # A future cannot hold one: whoever awaits it would wait for ever.
            raise RuntimeError("StopIteration was raised in a thread") from error
        except TimeoutError as error:
            raised.append(error)
            raise

    try:
        return await asyncio.get_running_loop().run_in_executor(executor or _threads(os.getpid()), call)
    except TimeoutError:
        if not raised:
            raise
    # A future makes another of it, which does not name the file.
    raise raised[0]


async def in_thread(
    function: Callable[..., T], /, *args: Any, executor: ThreadPoolExecutor | None = None, **kwargs: Any
) -> T:
    """Call ``function`` in a thread, and wait for its end even if cancelled.

    A thread cannot be stopped. After a cancellation it is given two seconds,
    then it is left behind: what it works on must stay valid until it ends.
    """
    return await uninterrupted(run_in_thread(function, *args, executor=executor, **kwargs), grace=_THREAD_GRACE)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """`asyncio.TaskGroup`, but it raises its first error itself, not a group of them.

    A cancellation from outside is re-raised as the object that came, by which
    cancel scopes (anyio's) recognise their own.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    cancellation: asyncio.CancelledError | None = None
    try:
        async with _Group() as group:
            try:
                yield group
                # Not left to the group's end: a task that fails there leaves a
                # cancellation of ours uncounted for, before Python 3.13.
                while group.running:
                    await asyncio.wait(group.running)
            except asyncio.CancelledError as error:
                cancellation = error
                raise
        return
    except BaseExceptionGroup as errors:
        first = _first(errors)
    if task is not None and task.cancelling() > before:
        # Before Python 3.13 a group with errors forgets that it was cancelled too.
        raise cancellation or asyncio.CancelledError
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


async def uninterrupted(work: Coroutine[Any, Any, T], *, grace: float | None) -> T:
    """Run ``work`` to its end, also when the caller is cancelled meanwhile.

    After a cancellation it has ``grace`` seconds left, then it is cancelled
    too; with `None` it is work that bounds itself. The CancelledError that
    came is raised when ``work`` has ended.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            if cancellation is None and grace is not None:
                asyncio.get_running_loop().call_later(grace, task.cancel)
            cancellation = cancellation or error
    if cancellation is not None:
        if not task.cancelled() and task.exception() is not None:
            log.debug("ended with an error after a cancellation", exc_info=task.exception())
        raise cancellation
    return task.result()
