"""Which file is sent next, and when: oldest first, with pauses while S3 fails. No I/O."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._announcing import Ticket
    from ._decisions import Pace

__all__ = ["SendQueue", "Waiting"]


@dataclass(eq=False, slots=True)
class Waiting:
    """A waiting file.

    Attributes
    ----------
    sidecar : `str`
        Its sidecar.
    sequence : `int`
        Order of publishing.
    size : `int`
        Bytes.
    ticket : `Ticket` or `None`
        Its place in the order of events, if this process announces it.
    failures : `int`
        How often it failed by itself.
    """

    sidecar: str
    sequence: int
    size: int
    ticket: Ticket | None = None
    failures: int = 0


class SendQueue:
    """The waiting files.

    While S3 fails, only one file is tried, followed by a pause.

    Parameters
    ----------
    pace : `Pace`
        The length of the pause.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._files: dict[str, Waiting] = {}
        self._due: list[tuple[int, str]] = []
        self._later: list[tuple[float, int, str]] = []
        self._failures = 0
        self._paused_until = 0.0
        self._probing = False
        self.busy: set[str] = set()
        """Sidecars of the files that this process is working on."""

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self._files.values()))

    def __contains__(self, sidecar: str) -> bool:
        return sidecar in self._files

    def add(self, waiting: Waiting) -> None:
        """Add a file, which is due when `push` or `postpone` says so."""
        self._files[waiting.sidecar] = waiting

    def push(self, waiting: Waiting) -> None:
        """Make a file due."""
        heapq.heappush(self._due, (waiting.sequence, waiting.sidecar))

    def postpone(self, waiting: Waiting, when: float) -> None:
        """Make a file due at a time."""
        heapq.heappush(self._later, (when, waiting.sequence, waiting.sidecar))

    def forget(self, sidecar: str) -> None:
        """Drop a file."""
        self._files.pop(sidecar, None)

    def pop(self, now: float) -> tuple[Waiting, bool] | None:
        """Return the oldest file that is due, and whether it is a probe; `None` if none is due."""
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._due, heapq.heappop(self._later)[1:])
        trouble = self._failures > 0
        if trouble and (self._probing or now < self._paused_until):
            return None
        while self._due:
            waiting = self._files.get(heapq.heappop(self._due)[1])
            if waiting is None:
                continue
            if waiting.sidecar in self.busy:
                self.postpone(waiting, now + self._pace.busy)
                continue
            self._probing = trouble
            return waiting, trouble
        return None

    def next_time(self, now: float) -> float | None:
        """Return when to check again, if nothing happens before."""
        times = [when for when, _, _ in self._later[:1]]
        if self._failures and now < self._paused_until:
            times.append(self._paused_until)
        return min(times, default=None)

    def failed(self, now: float) -> None:
        """Note that S3 fails, for any file."""
        self._failures += 1
        self._paused_until = now + self._pace.pause_after(self._failures, random.random())  # noqa: S311 - not a secret

    def worked(self) -> None:
        """Note that S3 works."""
        self._failures, self._paused_until = 0, 0.0

    def probed(self) -> None:
        """Note that a probe is over."""
        self._probing = False
