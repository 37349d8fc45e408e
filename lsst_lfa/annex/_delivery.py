"""Sending one file of the spool to S3."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ._reading import Digest, hash_file, open_reading
from ._sending import Sending

if TYPE_CHECKING:
    from lsst_lfa._bucket import S3Bucket
    from lsst_lfa._spool import Entry, Spool

    from ._sending import KeyLocks

__all__ = ["DamagedError", "OlderError", "deliver"]


class OlderError(Exception):
    """Not now: the file that it replaces is being sent."""


class DamagedError(Exception):
    """The file is not the one that was published."""


async def deliver(bucket: S3Bucket, spool: Spool, locks: KeyLocks, entry: Entry) -> str:
    """Send a file, and return the key that it got.

    A file that may overwrite also claims the older ones that still wait for
    its key, and marks them as stored: sent later, they would replace it.

    Raises
    ------
    OlderError, DamagedError
        See these classes.
    LfaError
        If the service failed.
    """
    record = entry.record
    expected = Digest(record.byte_size, record.check_sum)
    async with AsyncExitStack() as held:
        older = await _hold_older(spool, entry, held) if record.if_exists == "overwrite" else []
        if await hash_file(entry.payload) != expected:
            msg = f"{entry.payload} is not what was published: it should have {expected.size} bytes, MD5 {expected.md5}"
            raise DamagedError(msg)

        async def digest() -> Digest:
            return expected

        # The caller that published it with "error" can no longer be told.
        if_exists = "keep" if record.if_exists == "error" else record.if_exists
        sending = Sending(
            bucket, locks, record.asked or record.key, record.key, if_exists=if_exists, mime_type=record.mime_type
        )
        await sending.send(await open_reading(entry.payload, spooled=True), digest)
        for each in older:
            await each.note(stored=True, sync=True)
            await each.drop_payload()
    return sending.key


async def _hold_older(spool: Spool, entry: Entry, held: AsyncExitStack) -> list[Entry]:
    older: list[Entry] = []
    for sidecar in await entry.older():
        try:
            each = await spool.claim(sidecar)
        except (FileNotFoundError, ValueError):
            continue  # sent meanwhile, or torn
        if each is None:
            raise OlderError(Path(sidecar).name)
        held.push_async_callback(each.release)
        older.append(each)
    return older
