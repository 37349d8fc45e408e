"""Exact accounting of bytes, and the user's callback."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .concurrency import task_group

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["BodyProgress", "Callback", "Progress"]

T = TypeVar("T")
# Its result is awaited if possible, and otherwise ignored: `tqdm.update` returns a bool.
Callback = Callable[[int], object]


class Progress:
    """Tells a callback how many bytes were transferred since its last call.

    Parameters
    ----------
    callback : callable or `None`
        A plain function or a coroutine function of one `int`. It runs in the
        task that called the transfer, so its exceptions, and a cancellation of
        its own task, reach the caller.

    Raises
    ------
    TypeError
        If ``callback`` cannot be called.
    """

    def __init__(self, callback: Callback | None) -> None:
        if callback is not None and not callable(callback):
            msg = f"callback must be a function of one int, not {type(callback).__name__}"
            raise TypeError(msg)
        self._callback = callback
        self._pending = 0
        self._called = False
        self._news = asyncio.Event()

    def advance(self, count: int) -> None:
        """Note that ``count`` more bytes were transferred."""
        self._pending += count
        self._news.set()

    async def follow(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in a task, and the callback in this one.

        Returns
        -------
        result
            What ``work`` returned. All bytes have been reported by then.
        """
        if self._callback is None:
            return await work
        async with task_group() as group:
            task = group.create_task(work)
            task.add_done_callback(lambda _: self._news.set())
            while not task.done():
                await self._news.wait()
                self._news.clear()
                await self.report()
        return task.result()

    async def finish(self) -> None:
        """Report what is left; the callback is called at least once."""
        await self.report(even_nothing=not self._called)

    async def report(self, *, even_nothing: bool = False) -> None:
        """Tell the callback now."""
        count, self._pending = self._pending, 0
        if self._callback is not None and (count or even_nothing):
            self._called = True
            result = self._callback(count)
            if inspect.isawaitable(result):
                await result


class BodyProgress:
    """Counts the bytes of one body that is sent; bytes sent twice are counted once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._sent = 0
        self._counted = 0

    def restart(self) -> None:
        """Start the body again from the beginning."""
        self._sent = 0

    def moved(self, count: int) -> None:
        """Note that the next ``count`` bytes of the body were sent."""
        self._sent += count
        if self._sent > self._counted:
            self._progress.advance(self._sent - self._counted)
            self._counted = self._sent

    def complete(self, size: int) -> None:
        """Note that the server has all ``size`` bytes, whichever attempt sent them."""
        self.restart()
        self.moved(size)
