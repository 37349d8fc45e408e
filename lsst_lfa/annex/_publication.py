"""One file being published: it is sent to S3 and to the spool at the same time, until it is safe in one of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from lsst_lfa._spool import NotKeptError
from lsst_lfa._transfer.concurrency import Turnstile, uninterrupted
from lsst_lfa.errors import LfaError, NotStoredError, SourceChangedError, TransferTimeoutError

from ._decisions import Outcome, Verdict, decide
from ._large_file import large_file
from ._reading import Sink, open_reading
from ._sending import KeyTakenError, Sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool import Entry, Record, Spool
    from lsst_lfa._spool.spool import Taken

    from ._announcing import Announcer, Ticket
    from ._drain import Drain
    from ._large_file import LargeFile
    from ._reading import Digest, Reading

__all__ = ["Publication", "Publisher"]

log = logging.getLogger(__name__)

_UPLOADS: Final = 6


@dataclass
class Publisher:
    """State that all publications of an annex share, from its start to its end.

    Attributes
    ----------
    tasks : `set` [`asyncio.Task`]
        These are awaited only when the annex is closed: abandoned uploads
        clean up after themselves, and files are closed.
    hurry : `asyncio.Event`
        Set when it is enough that files are safe, in S3 or in the spool.
    slots : `asyncio.Semaphore`
        For the uploads: many in parallel are no faster, and each costs
        the event loop a few milliseconds when it starts, and when it fails.
    turn : `Turnstile`
        For steps that cost as much, so that each has its own turn of the event
        loop.
    """

    bucket: S3Bucket
    spool: Spool | None
    announcer: Announcer
    drain: Drain
    upload_timeout: float
    on_stored: Callable[[LargeFile], Awaitable[None]]
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_UPLOADS))
    turn: Turnstile = field(default_factory=Turnstile)

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Let a task continue by itself."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Publication:
    """One call of `LargeFileAnnex.publish`.

    Parameters
    ----------
    publisher : `Publisher`
        The shared state.
    record : `Record`
        What is known about the file so far.
    ticket : `Ticket`
        Its place in the order of events.
    """

    def __init__(self, publisher: Publisher, record: Record, ticket: Ticket) -> None:
        self._publisher = publisher
        self._record = record
        self._ticket = ticket
        self._entry: Entry | None = None
        self._not_kept: NotKeptError | None = None
        self._taken: list[Taken] = []
        self._sink: Sink | None = None
        self._reading: Reading | None = None
        self._asked = record.key
        self._sending = self._new_sending()
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self.handed_over = False
        """Whether the background now has the file, and its event."""
        self._refused = False

    async def run(self, source: Any) -> LargeFile:
        """Publish it; see `LargeFileAnnex.publish`."""
        deadline = asyncio.get_running_loop().time() + self._publisher.upload_timeout
        safe = False
        try:
            await self._publisher.turn()
            await self._reserve()
            self._reading = await open_reading(source, spooled=self._entry is not None)
            file = await self._publish(deadline)
            safe = True
        finally:
            await uninterrupted(self._clean_up(safe=safe), grace=None)
        return file

    async def _publish(self, deadline: float) -> LargeFile:
        assert self._reading is not None  # noqa: S101 - for the type checker
        self._start("reading", self._reading.run(self._sink))
        try:
            return await self._race(deadline)
        except (KeyTakenError, NotStoredError):
            self._refused = True
            raise

    async def _race(self, deadline: float) -> LargeFile:
        assert self._reading is not None  # noqa: S101 - for the type checker
        twin = await self._find_twin() if self._taken else None
        if twin is not None:
            return await self._conclude_twin(twin)
        if self._sink is not None:
            self._start("keeping", self._keep())
        # A file that replaces a waiting file must not come before it.
        if not (self._taken and self._record.if_exists == "overwrite"):
            self._start("sending", self._send(self._reading))
        verdict = await self._wait_until_safe(deadline)
        if verdict is Verdict.LOST:
            raise self._lost()
        return await (self._conclude_stored() if verdict is Verdict.STORED else self._conclude_kept())

    def _start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tasks[name] = asyncio.create_task(work)

    async def _digest(self) -> Digest:
        digest: Digest = await asyncio.shield(self._tasks["reading"])
        return digest

    async def _send(self, reading: Reading) -> None:
        async with self._publisher.slots:
            await self._sending.send(reading, self._digest)

    # Keeping

    async def _reserve(self) -> None:
        spool = self._publisher.spool
        if spool is None:
            return
        try:
            self._entry, self._taken = await spool.reserve(self._record)
        except NotKeptError as error:
            self._give_up_spool(error)
            return
        self._publisher.drain.busy.add(str(self._entry.sidecar))
        self._sink = Sink(spool, self._entry.new_file())
        if self._entry.record.key != self._record.key:
            self._record = replace(self._record, key=self._entry.record.key)
            self._sending = self._new_sending()

    def _new_sending(self) -> Sending:
        record, publisher = self._record, self._publisher
        return Sending(
            publisher.bucket,
            publisher.drain.locks,
            self._asked,
            record.key,
            if_exists=record.if_exists,
            mime_type=record.mime_type,
        )

    def _give_up_spool(self, error: NotKeptError) -> None:
        self._not_kept = error
        self._publisher.drain.hourly.warning("spool", "%s: files go to S3 directly", error)

    async def _keep(self) -> None:
        """Commit the file to the spool."""
        spool, entry, sink = self._publisher.spool, self._entry, self._sink
        assert spool is not None  # noqa: S101 - for the type checker
        assert entry is not None  # noqa: S101 - as above
        assert sink is not None  # noqa: S101 - as above
        digest = await self._kept_digest(sink)
        if digest is None or sink.error is not None:
            raise sink.error or NotKeptError
        try:
            await entry.commit(sink.file, digest.size, digest.md5)
        except OSError as error:
            raise spool.not_kept(error) from error
        spool.count(digest.size)

    async def _kept_digest(self, sink: Sink) -> Digest | None:
        """Wait until everything is read; `None` if the spool accepts no more, and the upload reads the rest."""
        reading, failed = self._tasks["reading"], asyncio.ensure_future(sink.failed.wait())
        try:
            await asyncio.wait({reading, failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        return await self._digest() if reading.done() else None

    async def _find_twin(self) -> Taken | None:
        """Return the file that waits under the same key with the same data, if there is one."""
        assert self._sink is not None  # noqa: S101 - for the type checker
        digest = await self._kept_digest(self._sink)
        if digest is None:
            return None
        for each in self._taken:
            if (each.record.byte_size, each.record.check_sum) == digest:
                return each
        if self._record.if_exists == "error":
            msg = f"{self._taken[0].sidecar} waits to be sent under the same key, with different data"
            raise KeyTakenError(msg)
        return None

    # Waiting

    async def _wait_until_safe(self, deadline: float) -> Verdict:
        loop, hurry = asyncio.get_running_loop(), self._publisher.hurry
        self._start("hurry", hurry.wait())
        while True:
            time_up = loop.time() >= deadline or hurry.is_set()
            verdict = decide(self._outcome("sending"), self._outcome("keeping"), time_up=time_up)
            if verdict is not Verdict.WAIT:
                await self._publisher.turn()
                return verdict
            running = {task for task in self._tasks.values() if not task.done()}
            await asyncio.wait(
                running, timeout=None if time_up else deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )

    def _outcome(self, name: str) -> Outcome:
        reading = self._tasks["reading"]
        if reading.done():
            reading.result()  # the caller must be told what is wrong with the source
        task = self._tasks.get(name)
        if task is None:
            return Outcome.FAILED
        if not task.done():
            return Outcome.PENDING
        error = task.exception()
        if isinstance(error, KeyTakenError):
            raise error
        if isinstance(error, NotKeptError) and self._not_kept is None:
            self._give_up_spool(error)
        return Outcome.DONE if error is None else Outcome.FAILED

    def _send_error(self) -> BaseException | None:
        task = self._tasks.get("sending")
        return task.exception() if task is not None and task.done() else None

    def _lost(self) -> BaseException:
        cause = self._send_error()
        if not isinstance(cause, LfaError) or isinstance(cause, SourceChangedError):
            return cause or AssertionError("lost without an error")
        kept = f"and {self._not_kept}" if self._not_kept is not None else "and there is no spool, so nothing was kept"
        error = NotStoredError(f"s3://{self._record.bucket}/{self._record.key} was not published: {cause}; {kept}")
        error.transient = cause.transient
        error.__cause__ = cause
        return error

    # Concluding

    def _file(self, *, stored: bool, error: BaseException | None = None) -> LargeFile:
        record, entry = self._record, self._entry
        path = entry.payload if entry is not None and not stored else None
        known = error if isinstance(error, LfaError) else None
        return large_file(record, self._publisher.bucket.url(record.key), stored=stored, path=path, error=known)

    async def _conclude_stored(self) -> LargeFile:
        digest = await self._digest()
        self._record = replace(
            self._record, key=self._sending.key, byte_size=digest.size, check_sum=digest.md5, stored=True
        )
        file = self._file(stored=True)
        if self._record.announce == "safe":
            await self._publisher.announcer.announce(self._ticket, file)
        else:
            await self._publisher.announcer.announce_if_next(self._ticket, file)
        if not self._ticket.over:
            await self._note(stored=True, key=self._sending.key)
        await self._publisher.on_stored(file)
        self._publisher.drain.kick()
        return file

    async def _conclude_kept(self) -> LargeFile:
        assert self._entry is not None  # noqa: S101 - for the type checker
        error = self._send_error()
        if error is None:
            error = TransferTimeoutError(
                f"S3 did not accept s3://{self._record.bucket}/{self._record.key} within "
                f"{self._publisher.upload_timeout:g} s: it is in the spool, and will be sent from there"
            )
            error.transient = True
        elif not isinstance(error, LfaError):
            log.error("the upload of %s failed in an unforeseen way", self._record.key, exc_info=error)
        self._record = replace(self._entry.record, key=self._sending.key)
        if self._entry.record.key != self._sending.key:
            await self._note(key=self._sending.key)
        file = self._file(stored=False, error=error)
        if self._record.announce == "safe":
            await self._publisher.announcer.announce(self._ticket, file)
            if self._ticket.over:
                await self._note(announced=True, sync=True)
        return file

    async def _conclude_twin(self, twin: Taken) -> LargeFile:
        """Announce again a file that was published before, and waits in the spool."""
        record = replace(
            twin.record, generator=self._record.generator, id=self._record.id, version=self._record.version
        )
        path = twin.sidecar.with_name(twin.sidecar.name.removesuffix(".lfa.jsonl"))
        file = large_file(record, self._publisher.bucket.url(record.key), stored=False, path=path)
        if self._record.announce == "safe":
            await self._publisher.announcer.announce(self._ticket, file)
        else:
            await self._publisher.announcer.leave(self._ticket)  # it is announced when S3 has it
        return file

    async def _note(self, **changes: Any) -> None:
        """Record a change in the sidecar; if that fails, the file will be sent or announced again after a crash."""
        if self._entry is not None and self._entry.record.safe:
            try:
                await self._entry.note(**changes)
            except OSError as error:
                log.warning("cannot record %s in %s: %s", changes, self._entry.sidecar, error)

    # Cleaning up

    async def _clean_up(self, *, safe: bool) -> None:
        await self._stop_tasks(wait_for_upload=self._entry is None)
        if self._reading is not None:
            self._reading.finish(safe=safe)
        if self._sink is not None:
            self._sink.file.retire()
        if self._entry is not None:
            await self._settle_entry(self._entry)
        if self._sink is not None:
            # Releasing a large file's blocks takes the disk a while, and happens when the last descriptor is closed.
            closing = asyncio.ensure_future(self._sink.file.discard())
            self._publisher.leave(closing)
            if self._sink.error is not None:  # a full disk has its room back when this returns
                await asyncio.wait({closing})

    async def _stop_tasks(self, *, wait_for_upload: bool) -> None:
        sending = self._tasks.pop("sending", None)
        if sending is not None and not sending.done():
            sending.cancel()
            if wait_for_upload:  # it may use the caller's memory
                await asyncio.wait({sending})
            else:
                self._publisher.leave(sending)
        running = {task for task in self._tasks.values() if not task.done()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in (*self._tasks.values(), *([sending] if sending is not None and sending.done() else ())):
            if not task.cancelled():
                task.exception()  # it was retrieved

    async def _settle_entry(self, entry: Entry) -> None:
        """Remove the file if it is done, or hand the remaining work over to the background."""
        publisher, record, sidecar = self._publisher, entry.record, str(entry.sidecar)
        done = self._record.stored and self._ticket.over
        try:
            if done or self._refused or not record.safe:
                await entry.remove_and_release()
            elif record.stored:
                await entry.drop_payload()
        except OSError as error:
            publisher.drain.hourly.warning("disk", "cannot remove %s; it will be tried again later: %s", sidecar, error)
            done = False
        await entry.release()
        publisher.drain.busy.discard(sidecar)
        if record.safe and (done or self._refused) and publisher.spool is not None:
            publisher.spool.count(-record.byte_size)
        elif record.safe:
            self.handed_over = True
            if self._ticket.file is None and record.announce == "safe":  # it was cancelled
                self._ticket.file = large_file(
                    record, publisher.bucket.url(record.key), stored=record.stored, path=entry.payload
                )
            publisher.drain.add(sidecar, record.sequence, record.byte_size, self._ticket)
