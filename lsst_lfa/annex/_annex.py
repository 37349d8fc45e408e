"""`LargeFileAnnex`: publishes and announces files, and loses none."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from lsst_lfa import sites
from lsst_lfa._public import public
from lsst_lfa._spool import Spool
from lsst_lfa._transfer.concurrency import uninterrupted

from ._adopting import Adoption
from ._announcing import Announcer
from ._component import Component
from ._decisions import Pace
from ._drain import Drain
from ._life import Life
from ._publication import Publication, Publisher
from ._sending import KeyLocks
from ._site_bucket import SiteBucket
from ._stored import StoredCallback

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.time import Time

    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool import Record
    from lsst_lfa._spool.record import Announce, IfExists
    from lsst_lfa._transfer.sources import Uploadable

    from ._announcing import Event
    from ._large_file import LargeFile

__all__ = ["LargeFileAnnex"]

_CLOSE_GRACE: Final = 1.0


@public
class LargeFileAnnex:
    """Publishes large files: stores them, announces them, and loses none.

    Creating an annex is synchronous, does no I/O and needs no running event
    loop.

    Parameters
    ----------
    bucket : `AsyncS3Bucket`
        The destination, of either class: `lsst_lfa.AsyncS3Bucket` or
        `lsst_lfa.salobj.AsyncS3Bucket`. The annex does not close it.
    salname : `str`
        Name of the SAL component, such as ``GenericCamera``.
    salindex : `int` or `str`, optional
        Its index; 0 or `None` for a component without one.
    event : optional
        The topic ``largeFileObjectAvailable``, or any object with the same
        ``set_write``. Without one, nothing is announced.
    spool : `Spool`, `str` or `pathlib.Path`, optional
        Where files that S3 did not accept wait. It should be on a volume that
        outlives the container. Without a spool, `publish` raises an error for
        such a file, which is lost.
    upload_timeout : `float`, optional
        How long `publish` waits for S3, in seconds, if the spool has the file.
    announce : {"safe", "stored"}, optional
        Whether to announce a file as soon as it is safe, or only when S3 has
        it. With "stored", a late event is sent in the background, in the order
        of publishing, and never while a file is being published.
    on_stored : callable, optional
        Called with each `LargeFile` that S3 has acknowledged, by the process
        that sent it. A function or a coroutine function: `publish` waits for
        it, and so does the next file in the background. What it raises is
        logged.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Each file is announced at least once, by one event with the final URL and
    all seven fields of the topic. It is announced again only if a process
    ended between sending the event and recording that it was sent; or if it
    turns out later that the key is taken, in which case a second event has the
    file's actual URL.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        salname: str,
        salindex: int | str | None = None,
        *,
        event: Event | None = None,
        spool: Spool | str | os.PathLike[str] | None = None,
        upload_timeout: float = 10.0,
        announce: Announce = "safe",
        on_stored: Callable[[LargeFile], object] | None = None,
    ) -> None:
        if not upload_timeout > 0:
            msg = f"upload_timeout is {upload_timeout!r}; it must be a number of seconds above 0"
            raise ValueError(msg)
        if announce not in {"safe", "stored"}:
            msg = f'announce is {announce!r}; it must be "safe" or "stored"'
            raise ValueError(msg)
        self._component = Component(salname, salindex)
        self.bucket = bucket
        self.salname = salname
        self.salindex = salindex
        self.spool = Spool(spool) if isinstance(spool, (str, os.PathLike)) else spool
        self._event = event
        self._upload_timeout = upload_timeout
        self._announce: Announce = announce
        self._on_stored = StoredCallback(on_stored)
        self._life: Life | None = None
        self._site_bucket: SiteBucket | None = None
        self._pace = Pace()
        self._last_sequence = 0
        self._keys = KeyLocks()

    @classmethod
    def for_site(
        cls,
        salname: str,
        salindex: int | str | None = None,
        *,
        site: str | None = None,
        domock: bool = False,
        event: Event | None = None,
        spool: Spool | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Create an annex for the bucket of a site, which the annex opens and closes itself.

        Parameters
        ----------
        salname, salindex, event, spool, **options
            See the class.
        site : `str`, optional
            The site; by default ``LSST_SITE``. See `lsst_lfa.sites`.
        domock : `bool`, optional
            Use a mock S3 server, for simulation and tests.

        Raises
        ------
        ConfigurationError
            If the site is unknown, or ``S3_ENDPOINT_URL`` conflicts with it.
        """
        site_bucket = SiteBucket(sites.current(site, domock=domock), domock=domock)
        annex = cls(site_bucket.bucket, salname, salindex, event=event, spool=spool, **options)
        annex._site_bucket = site_bucket
        return annex

    @property
    def component(self) -> str:
        """``salname:salindex``, or ``salname`` for a component without an index."""
        return str(self._component)

    def __repr__(self) -> str:
        return f"LargeFileAnnex({self.bucket!r}, {self.component!r}, spool={self.spool!r})"

    async def start(self) -> None:
        """Start sending files that earlier processes left, in the background. Idempotent; `publish` calls it."""
        await self._start(again=False)

    async def publish(
        self,
        source: Uploadable | Any,
        *,
        generator: str,
        suffix: str = ".fits",
        date: Time | str | None = None,
        other: object = None,
        stem: str | None = None,
        key: str | None = None,
        event_generator: str | None = None,
        id: str = "",  # noqa: A002 - the topic's name for it
        mime_type: str | None = None,
        version: float = 1.0,
        if_exists: IfExists = "keep",
    ) -> LargeFile:
        """Publish a file. When this returns, the file is safe, whatever happens next.

        The file goes to S3 and to the spool at the same time. It is announced
        when S3 has it or, if S3 fails or does not accept it within
        ``upload_timeout``, when the spool has it (but see ``announce``); it is
        then sent from the spool, in the background. Events are sent in the
        order in which `publish` was called, so this may wait for older files
        that are being published.

        Parameters
        ----------
        source : file, bytes-like, path, async iterable, or `~astropy.io.fits.HDUList`
            See `AsyncS3Bucket.upload`. A path is hard-linked into the spool
            where possible: do not modify the file in place afterwards;
            replacing or deleting it is fine.
        generator, date, other, stem, suffix
            See `lsst_lfa.salobj.AsyncS3Bucket.make_key`. ``date`` is the
            current time by default.
        key : `str`, optional
            The key, instead of one that is built from these.
        event_generator : `str`, optional
            The event's generator: by default ``salname:salindex``.
        id : `str`, optional
            An identifier for consumers, such as the image's name.
        mime_type : `str`, optional
            By default guessed from the key's suffix. Also used as the object's
            content type.
        version : `float`, optional
            The version of the file's format.
        if_exists : {"keep", "overwrite", "error"}, optional
            What to do if the key exists. With "keep", identical data count as
            a success, and different data are stored under a key with ``_r1``,
            ``_r2``, ... before the suffix. "overwrite" replaces the object;
            but whoever has read the old data is not told, and an archive may
            refuse the new data. "error" raises FileExistsError for different
            data; if that is discovered only in the background, it acts as
            "keep".

        Returns
        -------
        file : `LargeFile`
            The published file, and whether S3 already has it.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid. Nothing was read.
        FileExistsError
            If the key holds different data, with ``if_exists="error"``.
        NotStoredError
            If the file could be stored neither in S3 nor in the spool; the
            message gives both causes.
        SourceChangedError
            If the source changed while it was read. Exceptions raised by
            reading it propagate unchanged.
        """
        key = self._component.key(generator, date=date, other=other, stem=stem, suffix=suffix, key=key)
        record = self._component.describe(
            self.bucket.name,
            key,
            event_generator=event_generator,
            file_id=id,
            mime_type=mime_type,
            version=version,
            if_exists=if_exists,
        )
        life = await self._start()
        return await self._publish(
            life, replace(record, sequence=self._next_sequence(), announce=self._announced(self._announce)), source
        )

    def _announced(self, when: Announce) -> Announce:
        return when if self._event is not None else "never"

    async def _publish(self, life: Life, record: Record, source: Any) -> LargeFile:
        ticket = life.announcer.enter(record.sequence, record.announce)
        publication = Publication(life.publisher, record, ticket)
        life.drain.publications += 1
        try:
            # Files with the same key one by one: the key of the second depends on the outcome of the first.
            async with self._keys.of(record.key):
                return await publication.run(source)
        except BaseException:
            if ticket.file is None and not publication.handed_over:
                await uninterrupted(life.announcer.leave(ticket), grace=None)
            raise
        finally:
            life.drain.publications -= 1
            life.drain.published()

    async def wait_stored(self, timeout: float | None = 60.0) -> bool:  # noqa: ASYNC109 - it returns False
        """Wait until all files are in S3 and announced.

        Parameters
        ----------
        timeout : `float` or `None`, optional
            Maximum seconds to wait.

        Returns
        -------
        stored : `bool`
            Whether everything is done; `False` if time ran out.
        """
        life = await self._start()
        try:
            async with asyncio.timeout(timeout):
                while not life.drain.idle:
                    life.drain.changed.clear()
                    await life.drain.changed.wait()
        except TimeoutError:
            return False
        await life.drain.prune()
        return True

    async def adopt(self, folder: str | os.PathLike[str] | None = None, *, announce: bool = False) -> int:
        """Take over files that older software left as ``{folder}/{bucket}/{key}``, and send them.

        Parameters
        ----------
        folder : `str` or `pathlib.Path`, optional
            The folder; by default the spool's own. Files in another folder are
            moved: each is removed when the spool has it.
        announce : `bool`, optional
            Whether to announce them as well. By default they are not, because
            they are older than files that have already been announced.

        Returns
        -------
        count : `int`
            Number of files that were taken over. Others are logged, and left
            in place.

        Raises
        ------
        ValueError
            If there is no spool.
        """
        if self.spool is None:
            msg = "adopt needs a spool, and this annex has none"
            raise ValueError(msg)
        life = await self._start()
        adoption = Adoption(
            self.spool,
            life.drain,
            life.announcer,
            bucket=self.bucket.name,
            component=self.component,
            announce=self._announced(self._announce) if announce else "never",
        )
        return await adoption.run(self.spool.folder if folder is None else folder)

    async def aclose(self) -> None:
        """Stop. Idempotent; `start` or `publish` starts the annex again.

        Files that are being published are made safe first, in the spool if
        there is one. Files that wait in the spool stay there.
        """
        life = self._life
        if life is not None and life.here:
            await life.close(self._upload_timeout + _CLOSE_GRACE)
        if self._site_bucket is not None:
            await self._site_bucket.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _start(self, *, again: bool = True) -> Life:
        """Open; after an end that came meanwhile, only ``again`` if told so."""
        while True:
            life = self._life
            if life is None or not life.usable:
                if self._site_bucket is not None:
                    self._site_bucket.renew()
                    self.bucket = self._site_bucket.bucket
                life = self._life = self._begin()
            closing = life.closing
            await life.open()
            if not life.closing or not (again or closing):
                return life
            await life.ended()

    def _begin(self) -> Life:
        announcer = Announcer(self._event, self._pace.event)
        drain = Drain(
            self.bucket,
            self.spool,
            self.component,
            announcer,
            on_stored=self._on_stored,
            next_sequence=self._next_sequence,
            pace=self._pace,
        )
        publisher = Publisher(
            self.bucket, self.spool, announcer, drain, upload_timeout=self._upload_timeout, on_stored=self._on_stored
        )
        return Life(publisher, self._seen_sequence)

    def _next_sequence(self) -> int:
        """Return the next place in the order: by the clock, but never backwards."""
        self._last_sequence = max(self._last_sequence + 1, time.time_ns())
        return self._last_sequence

    def _seen_sequence(self, sequence: int) -> None:
        self._last_sequence = max(self._last_sequence, sequence)
