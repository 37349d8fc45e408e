"""What ``spool drain`` and ``spool adopt`` do: as the annex does it, but without a component."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lsst_lfa import Spool
from lsst_lfa._spool.entry import SIDECAR
from lsst_lfa._spool.scan import log as scan_log
from lsst_lfa._spool.spool import log as spool_log
from lsst_lfa._transfer.concurrency import in_thread, task_group
from lsst_lfa.annex._adopting import Adoption
from lsst_lfa.annex._announcing import Announcer
from lsst_lfa.annex._decisions import Pace, concerns_all
from lsst_lfa.annex._drain import Drain
from lsst_lfa.annex._hourly_log import log as hourly_log
from lsst_lfa.errors import LfaError, TransferTimeoutError, UnreachableError
from lsst_lfa.naming import check_bucket

from .output import human_size
from .runner import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lsst_lfa import LargeFile
    from lsst_lfa._bucket import S3Bucket

    from .output import Output

__all__ = ["adopt_bucket", "drain_bucket"]

_NAME: Final = "lsst-lfa"
_LOGS: Final = (hourly_log, scan_log, spool_log)
"""Loggers of the annex; the command reports the same, but better."""


async def drain_bucket(output: Output, folder: Path, bucket: S3Bucket, *, as_json: bool) -> list[Exception]:
    """Send the files of one bucket; return why some were not sent.

    Raises
    ------
    UnreachableError, TransferTimeoutError
        If the service cannot be reached: then nothing is tried.
    """
    await _require_service(bucket)
    left: dict[str, Exception] = {}
    sent: deque[LargeFile] = deque()

    async def note(file: LargeFile) -> None:
        sent.append(file)

    drain = Drain(
        bucket,
        Spool(folder),
        "",  # no component: nobody's events are ours
        Announcer(None),
        on_stored=note,
        next_sequence=time.time_ns,
        on_left=left.__setitem__,
        pace=Pace(others=0.0),
    )
    with _saying_things_once(output):
        await drain.open()
        async with task_group() as group:
            running = group.create_task(drain.run())
            while not _is_over(drain, left):
                drain.changed.clear()
                await drain.changed.wait()
                _tell_sent(output, sent, as_json=as_json)
            running.cancel()
        await drain.prune()
    failures = await in_thread(_still_there, left)
    _tell(output, failures)
    return [error for error in failures.values() if not isinstance(error, BlockingIOError)]


def _tell_sent(output: Output, sent: deque[LargeFile], *, as_json: bool) -> None:
    """Tell which files S3 has now. Not in the drain, which would take a closed pipe for a failure of the file."""
    while sent:
        file = sent.popleft()
        if as_json:
            output.json({"url": file.url, "bucket": file.bucket, "key": file.key, "size": file.byte_size})
        else:
            output.name(f"{file.url}  {human_size(file.byte_size)}")
    output.flush()


async def _require_service(bucket: S3Bucket) -> None:
    """Ask the service something first: each file would be tried for half a minute."""
    try:
        await bucket.check()
    except (UnreachableError, TransferTimeoutError):
        raise
    except LfaError:
        return  # who may write need not be allowed to list


@contextmanager
def _saying_things_once(output: Output) -> Iterator[None]:
    """Silence what is said twice, unless it is asked for."""
    before = {log: log.disabled for log in _LOGS}
    for log in _LOGS:
        log.disabled |= not output.verbose
    try:
        yield
    finally:
        for log, disabled in before.items():
            log.disabled = disabled


def _is_over(drain: Drain, left: dict[str, Exception]) -> bool:
    """Whether nothing waits that was not tried, or that is worth trying."""
    if drain.busy:
        return False
    if not left:
        return drain.idle  # to compare all that wait would take a while, where there are many
    hopeless = any(isinstance(error, LfaError) and concerns_all(error) for error in left.values())
    return hopeless or drain.waiting <= left.keys()


def _still_there(left: dict[str, Exception]) -> dict[str, Exception]:
    """Leave out what was sent after all."""
    return {sidecar: error for sidecar, error in left.items() if Path(sidecar).exists()}


def _tell(output: Output, failures: dict[str, Exception]) -> None:
    """Tell each reason once; the annex itself has logged what is wrong with a file."""
    for sidecar, error in failures.items():
        if isinstance(error, BlockingIOError):
            output.note(f"{sidecar.removesuffix(SIDECAR)} is left to the process that works on it")
    told = [error for error in failures.values() if isinstance(error, LfaError) or _is_of_disk(error)]
    for error in {type(error): error for error in reversed(told)}.values():
        output.error(message(error))


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and not isinstance(error, (BlockingIOError, FileNotFoundError))


async def adopt_bucket(output: Output, folder: Path, bucket: str, source: Path | None) -> int:
    """Take in the files of one bucket that have no sidecar; return how many."""
    from lsst_lfa import S3Session

    try:
        check_bucket(bucket)
    except ValueError as error:
        output.error(f"{(source or folder) / bucket} is left alone: {error}")
        return 0
    spool, announcer = Spool(folder), Announcer(None)
    session = S3Session(anonymous=True)  # of which nothing is asked
    drain = Drain(session.bucket(bucket), spool, _NAME, announcer, on_stored=_ignore, next_sequence=time.time_ns)
    adoption = Adoption(spool, drain, announcer, bucket=bucket, component=_NAME, announce="never")
    with _saying_things_once(output):
        await spool.open(bucket)
        return await adoption.run(folder if source is None else source)


async def _ignore(_: LargeFile) -> None:
    """Nothing is stored while files are taken in."""
