"""Files that older code left in a folder: taken into the spool."""

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

__all__ = ["adopt"]

log = logging.getLogger(__name__)


async def adopt(
    spool: Spool,
    drain: Drain,
    announcer: Announcer,
    *,
    bucket: str,
    component: str,
    announce: Announce,
    folder: str | os.PathLike[str] | None,
) -> int:
    """Take in the files of one bucket; see `LargeFileAnnex.adopt`."""
    root = await in_thread(Path(spool.folder if folder is None else folder, bucket).resolve)
    in_place = root == await in_thread(Path(spool.folder, bucket).resolve)
    count = 0
    for path in await spool.foreign(root):
        try:
            status = await in_thread(path.stat)
            record = Record(
                bucket=bucket,
                key=naming.check_key(path.relative_to(root).as_posix()),
                component=component,
                sequence=status.st_mtime_ns,
                generator=component,
                mime_type=guess_mime_type(path.name),
                announce=announce,
            )
            entry, _ = await spool.reserve(record, in_place=in_place)
            try:
                await _take(spool, entry, path, in_place=in_place)
            except BaseException:
                if not in_place:
                    await entry.remove()
                raise
            finally:
                await entry.release()
        except (OSError, ValueError, NotKeptError) as error:
            log.warning("cannot take in %s, which stays where it is: %s", path, error)
            continue
        count += 1
        ticket = announcer.enter(record.sequence, announce) if announce != "never" else None
        drain.add(str(entry.sidecar), record.sequence, status.st_size, ticket)
    return count


async def _take(spool: Spool, entry: Entry, path: Path, *, in_place: bool) -> None:
    if in_place:
        digest = await hash_file(path)
        await entry.adopt(digest.size, digest.md5)
    else:
        sink = Sink(spool, entry.new_file())
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
    spool.count(digest.size)
