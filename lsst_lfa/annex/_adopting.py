"""Takes files that older software left in a folder into the spool."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from lsst_lfa import naming
from lsst_lfa._spool import NotKeptError, Record
from lsst_lfa._transfer.concurrency import in_thread

from ._large_file import guess_mime_type
from ._reading import Sink, hash_file

if TYPE_CHECKING:
    import os

    from lsst_lfa._spool import Entry, Spool
    from lsst_lfa._spool.record import Announce

    from ._announcing import Announcer
    from ._drain import Drain
    from ._reading import Digest

__all__ = ["Adoption"]

log = logging.getLogger(__name__)


class Adoption:
    """Takes over files of one bucket; see `LargeFileAnnex.adopt`.

    Parameters
    ----------
    spool, drain, announcer
        Keeps them, sends them, and announces them.
    bucket : `str`
        Their destination.
    component : `str`
        The component whose event announces them.
    announce : {"safe", "stored", "never"}
        When to announce them.
    """

    def __init__(
        self, spool: Spool, drain: Drain, announcer: Announcer, *, bucket: str, component: str, announce: Announce
    ) -> None:
        self._spool = spool
        self._drain = drain
        self._announcer = announcer
        self._bucket = bucket
        self._component = component
        self._announce: Announce = announce

    async def run(self, folder: str | os.PathLike[str]) -> int:
        """Take over a folder's files, and return how many."""
        root = await in_thread(Path(folder, self._bucket).resolve)
        in_place = root == await in_thread(Path(self._spool.folder, self._bucket).resolve)
        count = 0
        for path in await self._spool.foreign(root):
            try:
                key = path.relative_to(root).as_posix()
                await self._take(path, await self._describe(path, key), in_place=in_place)
            except (OSError, ValueError, NotKeptError) as error:
                log.warning("cannot take over %s, which is left in place: %s", path, error)
            else:
                count += 1
        return count

    async def _describe(self, path: Path, key: str) -> Record:
        return Record(
            bucket=self._bucket,
            key=naming.check_key(key),
            component=self._component,
            sequence=(await in_thread(path.stat)).st_mtime_ns,
            generator=self._component,
            mime_type=guess_mime_type(path.name),
            announce=self._announce,
        )

    async def _take(self, path: Path, record: Record, *, in_place: bool) -> None:
        entry, _ = await self._spool.reserve(record, in_place=in_place)
        try:
            digest = await (self._adopt(entry, path) if in_place else self._move(entry, path))
        except BaseException:
            if not in_place:
                await entry.remove()
            raise
        finally:
            await entry.release()
        self._spool.count(digest.size)
        ticket = self._announcer.enter(record.sequence, record.announce) if record.announce != "never" else None
        self._drain.add(str(entry.sidecar), record.sequence, digest.size, ticket)

    async def _adopt(self, entry: Entry, path: Path) -> Digest:
        digest = await hash_file(path)
        await entry.adopt(digest.size, digest.md5)
        return digest

    async def _move(self, entry: Entry, path: Path) -> Digest:
        sink = Sink(self._spool, entry.new_file())
        try:
            linked = await sink.link_to(path)
            if not linked:
                await sink.create()
            digest = await hash_file(path, None if linked else sink)
            if sink.error is not None:
                raise sink.error
            await entry.commit(sink.file, digest.size, digest.md5)
        finally:
            await sink.file.discard()
        await in_thread(path.unlink)
        return digest
