"""The background task: sends files that S3 did not accept, oldest first, and the events that are still due."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lsst_lfa._transfer.concurrency import task_group
from lsst_lfa.errors import LfaError

from ._decisions import Pace, Step, concerns_all, next_step
from ._delivery import DamagedError, OlderError, deliver
from ._hourly_log import HourlyLog
from ._large_file import large_file
from ._queue import SendQueue, Waiting
from ._sending import KeyLocks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool import Entry, Spool

    from ._announcing import Announcer, Ticket
    from ._large_file import LargeFile

__all__ = ["Drain"]

log = logging.getLogger(__name__)

_WORKERS: Final = 2
"""Files that are sent in parallel."""
_PACE: Final = Pace()
_TURN: Final = 250
"""Files that are entered in one turn of the event loop."""


class _LaterError(Exception):
    """The file must wait, because its event comes first."""


class Drain:
    """Sends the files in the spool of one bucket.

    Parameters
    ----------
    bucket : `AsyncS3Bucket`
        Their destination.
    spool : `Spool` or `None`
        Their location; without one, only events wait here.
    component : `str`
        The component whose events are ours.
    announcer : `Announcer`
        Sends them.
    on_stored : callable
        Awaited with each file that S3 has.
    next_sequence : callable
        Returns the next place in the order of publishing.
    on_left : callable, optional
        Called with the sidecar of each file that could not be sent, and the
        reason.
    pace : `Pace`, optional
        How long it waits.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        spool: Spool | None,
        component: str,
        announcer: Announcer,
        *,
        on_stored: Callable[[LargeFile], Awaitable[None]],
        next_sequence: Callable[[], int],
        on_left: Callable[[str, Exception], None] = lambda _sidecar, _error: None,
        pace: Pace = _PACE,
    ) -> None:
        self._bucket = bucket
        self._spool = spool
        self._component = component
        self._announcer = announcer
        self._on_stored = on_stored
        self._next_sequence = next_sequence
        self._on_left = on_left
        self._pace = pace
        self._queue = SendQueue(pace)
        self._announcing_failures = 0
        self._news = asyncio.Event()
        self._event_news = asyncio.Event()
        self._unannounced: set[Waiting] = set()
        self._abandoned: set[str] = set()
        self.changed = asyncio.Event()
        """Set on every change; cleared by the task that waits."""
        self.publications = 0
        """Number of files that are being published."""
        self.hourly = HourlyLog(pace.hour)
        self.locks = KeyLocks()

    @property
    def busy(self) -> set[str]:
        """Sidecars of the files that this process is working on."""
        return self._queue.busy

    @property
    def waiting(self) -> set[str]:
        """Sidecars of the files that wait."""
        return {waiting.sidecar for waiting in self._queue}

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting: no file, and no event."""
        return not self._queue and not self.publications and self._announcer.idle

    async def open(self) -> int:
        """Find and announce files that earlier processes left, and return the highest place in the order."""
        if self._spool is None:
            return 0
        await self._spool.open(self._bucket.name)
        highest = await self._rescan()
        for waiting in self._queue:
            if waiting.ticket is not None and waiting.ticket.announce == "safe":
                await self._announce_left(waiting, waiting.ticket)
        return highest

    async def run(self) -> None:
        """Work until cancelled."""
        async with task_group() as group:
            group.create_task(self._announce_for_ever())
            if self._spool is not None:
                group.create_task(self._rescan_for_ever())
                for _ in range(_WORKERS):
                    group.create_task(self._work_for_ever())

    def add(self, sidecar: str, sequence: int, size: int, ticket: Ticket | None, delay: float = 0.0) -> None:
        """Add a waiting file."""
        if ticket is not None and ticket.over:
            ticket = None
        waiting = Waiting(sidecar, sequence, size, ticket)
        self._queue.add(waiting)
        if delay:
            self._postpone(waiting, delay)
        else:
            self._queue.push(waiting)
        self._tell()

    def forget(self, waiting: Waiting) -> None:
        """Note that a file is no longer waiting."""
        self._queue.forget(waiting.sidecar)
        self._unannounced.discard(waiting)
        self._tell()

    def kick(self) -> None:
        """Continue at once: S3 has just worked."""
        self._queue.worked()
        self._tell()

    async def prune(self) -> None:
        """Remove the folders in which no file waits any more."""
        if self._spool is not None:
            await self._spool.prune(self._bucket.name)

    def published(self) -> None:
        """Note that a `publish` has ended: an event may be due."""
        self._event_news.set()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self.changed.set()

    # Finding

    async def _rescan_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pace.rescan)
            await self._rescan()

    async def _rescan(self) -> int:
        assert self._spool is not None  # noqa: S101 - for the type checker
        try:
            known = self.waiting | self.busy | self._abandoned
            found = await self._spool.scan(self._bucket.name, known)
        except OSError as error:
            self.hourly.warning("scan", "cannot look through %s: %s", self._spool, error)
            return 0
        for number, each in enumerate(found, 1):
            if each.sidecar in self.busy or each.sidecar in self._queue:
                continue
            ours = each.component == self._component
            ticket = None
            if ours and self._announcer.active and each.announce != "never":
                ticket = self._announcer.enter(each.sequence, each.announce)
            if ticket is not None or not each.stored or each.announce == "never":
                self.add(each.sidecar, each.sequence, each.size, ticket, 0.0 if ours else self._pace.others)
            if number % _TURN == 0:
                await asyncio.sleep(0)
        return found[-1].sequence if found else 0

    async def _announce_left(self, waiting: Waiting, ticket: Ticket) -> None:
        """Announce a file whose process ended after it was safe, and before it was announced."""
        assert self._spool is not None  # noqa: S101 - for the type checker
        entry = None
        try:
            entry = await self._spool.claim(waiting.sidecar)
            if entry is not None and entry.record.to_announce:
                await self._announce(entry, ticket)
        except (OSError, ValueError, _LaterError) as error:
            log.debug("not announced now: %s: %s", waiting.sidecar, error)
        finally:
            if ticket.file is None:  # another process has it
                await self._announcer.leave(ticket)
                waiting.ticket = None
            if entry is not None:
                await entry.release()

    # Announcing

    async def _announce_for_ever(self) -> None:
        """Send the events that are due, when no file is being published; again after a failure."""
        while True:
            failures = self._announcing_failures
            pause = self._pace.pause_after(failures, random.random()) if failures else None  # noqa: S311
            try:
                async with asyncio.timeout(pause):
                    await self._event_news.wait()
            except TimeoutError:
                pass
            self._event_news.clear()
            if self.publications == 0 and self._announcer.due:
                await self._announcer.flush()
                self._announcing_failures = self._announcing_failures + 1 if self._announcer.due else 0
            self._wake_announced()

    def _wake_announced(self) -> None:
        """Continue with the files whose events have been sent in the meantime."""
        for waiting in [each for each in self._unannounced if each.ticket is None or each.ticket.over]:
            self._unannounced.discard(waiting)
            self._queue.push(waiting)
        self._tell()

    async def _announce(self, entry: Entry, ticket: Ticket) -> None:
        """Announce a file in the spool; raise _LaterError if that must wait."""
        if not ticket.over:
            ticket.file = self._file(entry)
            if self.publications == 0:
                await self._announcer.flush()
                self._event_news.set()  # others may have been sent with it
        if not ticket.over:
            raise _LaterError
        await entry.note(announced=True, sync=True)

    def _file(self, entry: Entry) -> LargeFile:
        record = entry.record
        path = None if record.stored else entry.payload
        return large_file(record, self._bucket.url(record.key), stored=record.stored, path=path)

    # Sending

    async def _work_for_ever(self) -> None:
        while True:
            waiting, probe = await self._next()
            try:
                await self._work_on(waiting)
            finally:
                if probe:
                    self._queue.probed()
                self._tell()

    async def _next(self) -> tuple[Waiting, bool]:
        now = asyncio.get_running_loop().time
        while (found := self._queue.pop(now())) is None:
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._queue.next_time(now())):
                    await self._news.wait()
            except TimeoutError:
                continue
        return found

    async def _work_on(self, waiting: Waiting) -> None:
        assert self._spool is not None  # noqa: S101 - for the type checker
        self.busy.add(waiting.sidecar)  # nobody else in this process has it
        entry = None
        try:
            entry = await self._spool.claim(waiting.sidecar)
            if entry is None:
                self._on_left(waiting.sidecar, BlockingIOError("another process is working on it"))
                self._postpone(waiting, self._pace.locked)
            else:
                await self._take_steps(entry, waiting)
        except LfaError as error:  # first, because some are also OSErrors
            self._failed(waiting, error)
        except FileNotFoundError as error:
            await self._abandon(waiting, error if entry is not None else None)
        except (ValueError, DamagedError) as error:
            await self._abandon(waiting, error)
        except _LaterError:
            self._unannounced.add(waiting)
            self._event_news.set()
        except OlderError:
            self._postpone(waiting, self._pace.busy)
        except OSError as error:
            self.hourly.warning("disk", "cannot process %s; it will be tried again later: %s", waiting.sidecar, error)
            self._on_left(waiting.sidecar, error)
            self._postpone(waiting, self._pace.rescan)
        except Exception as error:
            # A bug. It must not keep the other files from being sent.
            log.exception("cannot send %s; it will be tried again in an hour", waiting.sidecar)
            self._on_left(waiting.sidecar, error)
            self._postpone(waiting, self._pace.hour)
        finally:
            self.busy.discard(waiting.sidecar)
            if entry is not None:
                await entry.release()

    async def _take_steps(self, entry: Entry, waiting: Waiting) -> None:
        assert self._spool is not None  # noqa: S101 - for the type checker
        while True:
            step = next_step(entry.record, ours=waiting.ticket is not None)
            if step is Step.ANNOUNCE and waiting.ticket is not None:
                await self._announce(entry, waiting.ticket)
            elif step is Step.SEND:
                await self._send(entry, waiting)
            else:
                if step is Step.REMOVE:
                    await entry.remove()
                    self._spool.count(-waiting.size)
                self.forget(waiting)
                return

    async def _send(self, entry: Entry, waiting: Waiting) -> None:
        assert self._spool is not None  # noqa: S101 - for the type checker
        record = entry.record
        key = await deliver(self._bucket, self._spool, self.locks, entry)
        self._queue.worked()
        if key != record.key:
            log.warning("s3://%s/%s has other bytes: the new ones are %s", record.bucket, record.key, key)
            await entry.note(stored=True, key=key, announced=False, sync=True)
            if (waiting.ticket is None or waiting.ticket.over) and record.component == self._component:
                waiting.ticket = self._announcer.enter(self._next_sequence(), record.announce)
        else:
            await entry.note(stored=True, sync=record.to_announce)
        await entry.drop_payload()
        await self._on_stored(replace(self._file(entry), stored=True, path=None))

    def _postpone(self, waiting: Waiting, delay: float) -> None:
        self._queue.postpone(waiting, asyncio.get_running_loop().time() + delay)

    def _failed(self, waiting: Waiting, error: LfaError) -> None:
        self.hourly.warning(
            type(error).__name__, "%d files wait in %s; S3 did not accept one: %s", len(self._queue), self._spool, error
        )
        self._on_left(waiting.sidecar, error)
        if concerns_all(error):
            self._queue.failed(asyncio.get_running_loop().time())
            self._queue.push(waiting)
        else:
            waiting.failures += 1
            self._postpone(waiting, self._pace.pause_of_one(waiting.failures))

    async def _abandon(self, waiting: Waiting, error: Exception | None) -> None:
        """Give up a file that is gone or damaged; what is left of it stays in the folder."""
        if error is not None:
            log.error("a file in the spool cannot be sent, and is left there: %s", error)
        if waiting.ticket is not None and waiting.ticket.file is None:
            await self._announcer.leave(waiting.ticket)
        if error is not None:
            self._abandoned.add(waiting.sidecar)
            self._on_left(waiting.sidecar, error)
        self.forget(waiting)
