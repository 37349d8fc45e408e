"""Hashing bytes in memory, off the event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from .concurrency import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["hash_views"]

# Below this it takes less time than a thread.
_INLINE = 128 * 1024
# Hashed in one go: a cancelled upload stops hashing between two of these.
_BLOCK = 8 * 1024 * 1024


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None:
        """Take bytes in."""


async def hash_views(views: Sequence[memoryview], *hashes: _Hash) -> None:
    """Update hashes with bytes; in a thread, unless it is quick.

    Parameters
    ----------
    views : sequence of `memoryview`
        The bytes, which may be the caller's: when this ends, for whatever
        reason, no thread reads them any more.
    *hashes
        Objects of `hashlib`.
    """
    stopped = threading.Event()

    def work() -> None:
        for view in views:
            for start in range(0, view.nbytes, _BLOCK):
                if stopped.is_set():
                    return
                with view[start : start + _BLOCK] as block:
                    for each in hashes:
                        each.update(block)

    if sum(view.nbytes for view in views) <= _INLINE:
        work()
    else:
        await in_thread(work, stop=stopped.set, grace=None)
