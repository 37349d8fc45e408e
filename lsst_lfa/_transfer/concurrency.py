"""Structured concurrency: threads of our own, groups that fail with one error, clean-up that is not cut short.

How many requests run in parallel is decided elsewhere: in `tuning`, from what
`lanes` measures.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import queue
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

__all__ = [
    "OwnThread",
    "Turnstile",
    "finish_in_thread",
    "in_thread",
    "run_in_thread",
    "task_group",
    "threads",
    "uninterrupted",
]

T = TypeVar("T")

log = logging.getLogger(__name__)

_MAX_THREADS = 16
_THREAD_GRACE = 2.0


@functools.cache
def _threads(purpose: str, pid: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a forked child has none of its parent's
    return ThreadPoolExecutor(_MAX_THREADS, f"lsst_lfa-{purpose}")


def threads(purpose: str) -> ThreadPoolExecutor:
    """Return the threads for one purpose, because a disk that hangs must not hold up hashing."""
    return _threads(purpose, os.getpid())


class OwnThread(Executor):
    """One thread, which starts with its first job.

    The interpreter does not wait for it at exit, as it does for the threads of
    a `ThreadPoolExecutor`: a thread that reads from a silent pipe never ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._begun = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - it is passed to whoever waits
                    future.set_exception(error)

        self._jobs.put(job)
        if not self._begun:
            self._begun = True
            threading.Thread(target=_work, args=(self._jobs, sys.stdin), name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Let the thread end after its pending jobs, without waiting for it."""
        self._jobs.put(None)


def _work(
    jobs: queue.SimpleQueue[Callable[[], None] | None],
    _stdin: object,  # kept: the interpreter closes it at exit, and aborts if a thread is still reading it
) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # and what it gave, before the next one is awaited


def _submit(executor: Executor | None, function: Callable[..., T], args: Any, kwargs: Any) -> Future[T]:
    def call() -> T:
        try:
            return function(*args, **kwargs)
        except StopIteration as error:
            # A future cannot hold a StopIteration: awaiting it would never end.
            raise RuntimeError("StopIteration was raised in a thread") from error

    return (executor or threads("work")).submit(call)


async def run_in_thread(
    function: Callable[..., T], /, *args: Any, executor: Executor | None = None, **kwargs: Any
) -> T:
    """Call ``function`` in one of this package's own threads; a cancellation does not wait for it to end.

    The event loop's default executor belongs to the user: if it is full of
    jobs that wait for us, ours would never run. The function must end by
    itself; one that may block for long (on a pipe) gets its own ``executor``.
    """
    job = _submit(executor, function, args, kwargs)
    await _ended(job, None)
    # Not with a future of the loop: that would replace a TimeoutError by another one, which does not name the file.
    return job.result()


async def in_thread(
    function: Callable[..., T],
    /,
    *args: Any,
    executor: Executor | None = None,
    stop: Callable[[], None] = lambda: None,
    grace: float | None = _THREAD_GRACE,
    **kwargs: Any,
) -> T:
    """Call ``function`` in a thread, and wait for it to end even if cancelled.

    A thread cannot be stopped. After a cancellation ``stop`` is called, which
    may ask it to end early, and it has ``grace`` seconds left. Then it is left
    behind, and the data that it works on must stay valid until it ends. With
    `None` it is never left behind, because it works on data that are not ours,
    and ends soon. A job that no thread has started before the cancellation
    never starts.
    """
    job = _submit(executor, function, args, kwargs)
    try:
        await _ended(job, None)
    except asyncio.CancelledError:
        if not job.cancel():
            stop()
            with suppress(asyncio.CancelledError):  # the first one counts
                await uninterrupted(_ended(job, grace), grace=None)
            _log_late(job)
        raise
    return job.result()


async def finish_in_thread(function: Callable[..., T], /, *args: Any, executor: Executor, limit: float) -> T | None:
    """Call ``function`` in a thread, whatever happens; after so many seconds, stop waiting for it.

    For closing things: neither a cancellation nor busy threads prevent the
    call.
    """
    job = _submit(executor, function, args, {})
    await uninterrupted(_ended(job, limit), grace=None)
    return job.result() if job.done() else None


async def _ended(job: Future[Any], limit: float | None) -> None:
    """Wait for a thread's job, and leave it alone."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(ended.set)

    job.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await ended.wait()


def _log_late(future: asyncio.Future[Any] | Future[Any]) -> None:
    if future.done() and not future.cancelled() and future.exception() is not None:
        log.debug("ended with an error after a cancellation", exc_info=future.exception())


class Turnstile:
    """Lets one task pass per turn of the event loop.

    Making a request, or parsing a response, takes a millisecond. A hundred
    tasks that are ready at the same time would otherwise block the loop for a
    hundred of them.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __call__(self) -> None:
        async with self._lock:
            await asyncio.sleep(0)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Open an `asyncio.TaskGroup` that raises its first error itself, not a group of errors.

    A cancellation from outside is re-raised as the same object, because cancel
    scopes (of anyio) recognise theirs by identity.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    cancellation: asyncio.CancelledError | None = None
    try:
        async with _Group() as group:
            try:
                yield group
                # Not left to the group's end: before Python 3.13, a task that fails there leaves our cancellation
                # uncounted.
                while group.running:
                    await asyncio.wait(group.running)
            except asyncio.CancelledError as error:
                cancellation = error
                raise
        return
    except BaseExceptionGroup as errors:
        first = _first(errors)
    if task is not None and task.cancelling() > before:
        # Before Python 3.13 a group with errors forgets that it was also cancelled.
        raise cancellation or asyncio.CancelledError
    # Outside the except clause: the group must not become its context.
    raise first


class _Group(asyncio.TaskGroup):
    """A group that knows which of its tasks are still running."""

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
    """Run ``work`` to its end, even if the caller is cancelled.

    After a cancellation it has ``grace`` seconds left, then it is cancelled as
    well; `None` is for work that limits its own time. The CancelledError is
    raised again when ``work`` has ended.
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
        _log_late(task)
        raise cancellation
    return task.result()
