"""Events in the order of publishing: one for each file, and never an older file's after a newer one's."""

from __future__ import annotations

import asyncio
import bisect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from lsst_lfa._spool.record import Announce

    from ._large_file import LargeFile

__all__ = ["Announcer", "Event", "Ticket"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 3
"""How often an event may fail before the next file's may overtake it."""


class Event(Protocol):
    """The topic of the event, as in salobj."""

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> Any:
        """Write the event."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A file's place in the order.

    Attributes
    ----------
    sequence : `int`
        The order.
    announce : {"safe", "stored", "never"}
        When it may be announced.
    file : `LargeFile` or `None`
        The file to announce, once it may be announced.
    over : `bool`
        Whether it no longer needs an event: it was sent, or never will be.
    failures : `int`
        How often ``set_write`` refused it.
    told : `bool`
        Whether a failure was logged.
    """

    sequence: int
    announce: Announce
    file: LargeFile | None = None
    over: bool = False
    failures: int = 0
    told: bool = False


class Announcer:
    """Sends the events of one component.

    Parameters
    ----------
    event : `Event` or `None`
        The topic; without one, nothing is sent.
    timeout : `float` or `None`, optional
        Seconds that its ``set_write`` may take.
    """

    def __init__(self, event: Event | None, timeout: float | None = None) -> None:
        self._event = event
        self._timeout = timeout
        self._queue: list[Ticket] = []
        self._turn = asyncio.Condition()

    @property
    def active(self) -> bool:
        """Whether there is a topic."""
        return self._event is not None

    @property
    def due(self) -> bool:
        """Whether there is an event that may be sent."""
        return bool(self._ready())

    @property
    def idle(self) -> bool:
        """Whether no file still needs an event, now or later."""
        return not self._queue

    def enter(self, sequence: int, announce: Announce) -> Ticket:
        """Reserve a place in the order."""
        ticket = Ticket(sequence, announce)
        if announce == "never" or self._event is None:
            ticket.over = True
        else:
            bisect.insort(self._queue, ticket, key=lambda each: each.sequence)
        return ticket

    async def leave(self, ticket: Ticket) -> None:
        """Give up the place: there will be no event."""
        async with self._turn:
            self._drop(ticket)
            self._turn.notify_all()

    async def announce(self, ticket: Ticket, file: LargeFile) -> None:
        """Send a file's event, after those of all older files.

        It waits for older files that are being published. What ``set_write``
        raises is logged, and the event is sent at the next chance.
        """
        ticket.file = file
        if ticket.over:
            return
        async with self._turn:
            self._turn.notify_all()
            await self._turn.wait_for(lambda: ticket.over or ticket in self._ready())
            if not ticket.over:
                await self._send_up_to(ticket)
            self._turn.notify_all()

    async def announce_if_next(self, ticket: Ticket, file: LargeFile) -> None:
        """Send a file's event if no other is due before it; otherwise leave it to `flush`."""
        ticket.file = file
        if not ticket.over and self._queue[0] is ticket:
            await self.announce(ticket, file)

    async def flush(self) -> None:
        """Send the events that are due, oldest first."""
        async with self._turn:
            ready = self._ready()
            if ready:
                await self._send_up_to(ready[-1])
            self._turn.notify_all()

    def _ready(self) -> list[Ticket]:
        """Return the files that may be announced, and need not wait for an older one."""
        ready: list[Ticket] = []
        stored_wait = False
        for ticket in self._queue:
            if ticket.file is None and ticket.announce == "safe":
                break  # it will be safe before long
            if ticket.file is None:
                stored_wait = True
            elif ticket.announce == "safe" or not stored_wait:
                ready.append(ticket)
        return ready

    async def _send_up_to(self, last: Ticket) -> None:
        failed: list[Ticket] = []
        for ticket in [each for each in self._ready() if each.sequence <= last.sequence]:
            if await self._send(ticket):
                self._drop(ticket)
                for each in failed:
                    self._give_up(each)
                failed.clear()
            elif ticket.failures < _PATIENCE:
                return
            else:
                failed.append(ticket)

    async def _send(self, ticket: Ticket) -> bool:
        assert self._event is not None  # noqa: S101 - for the type checker
        assert ticket.file is not None  # noqa: S101 - as above
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                await self._event.set_write(**ticket.file.event_fields(), force_output=True)
        except Exception:  # noqa: BLE001 - whatever it is: it is the topic's, and must not lose the file
            # Where it takes too long, the topic is to blame, not this event: no other would fare better.
            ticket.failures = 0 if limit.expired() else ticket.failures + 1
            self._log_failure(ticket)
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            ticket.failures += 1  # it is the topic that was cancelled, not we
            self._log_failure(ticket)
            return False
        return True

    def _log_failure(self, ticket: Ticket) -> None:
        level = logging.DEBUG if ticket.told else logging.WARNING
        ticket.told = True
        assert ticket.file is not None  # noqa: S101 - for the type checker
        log.log(level, "the event of %s could not be sent; it will be tried again", ticket.file.url, exc_info=True)

    def _give_up(self, ticket: Ticket) -> None:
        log.error("the event of %s was refused, while that of a newer file was sent: giving it up", ticket.file)
        self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        ticket.over = True
        if ticket in self._queue:
            self._queue.remove(ticket)
