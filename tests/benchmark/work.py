"""What one large transfer is, in memory or with files, and whether the right bytes arrived."""

from __future__ import annotations

import io
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .target import payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .peers import Transfers
    from .target import Job

__all__ = ["Work", "prepare", "view"]

_BLOCK = 1024 * 1024


class Work(NamedTuple):
    """A transfer, to be carried out as often as wanted, and the check of what it returned."""

    transfer: Callable[[], Awaitable[Any]]
    check: Callable[[Any], None]


@contextmanager
def prepare(peer: Transfers, job: Job) -> Iterator[Work]:
    """Prepare a job's source, or what its result must be."""
    with tempfile.TemporaryDirectory(prefix="lsst_lfa-benchmark-") as folder:
        path = Path(folder, "file")
        in_file = job.case.endswith("-file")
        if job.sends:
            yield _upload(peer, job.key, _source(job.size, path if in_file else None))
        else:
            yield _download(peer, job, path if in_file else None)


def _source(size: int, path: Path | None) -> bytes | Path:
    if path is None:
        return payload(size)
    path.write_bytes(payload(size))
    return path


def _upload(peer: Transfers, key: str, source: bytes | Path) -> Work:
    async def transfer() -> None:
        await peer.upload(source if isinstance(source, Path) else io.BytesIO(source), key)

    return Work(transfer, lambda _: None)  # the server is asked afterwards


def _download(peer: Transfers, job: Job, path: Path | None) -> Work:
    expected = zlib.crc32(payload(job.size))

    async def transfer() -> Any:
        return await (peer.download(job.key) if path is None else peer.download_file(job.key, path))

    def check(result: Any) -> None:
        if (_crc_of_file(path) if path else zlib.crc32(view(result))) != expected:
            message = f"{job.peer} gave other bytes than were stored"
            raise ValueError(message)

    return Work(transfer, check)


def view(result: Any) -> Any:
    """Return what was downloaded as a bytes-like object, uncopied."""
    return result.getbuffer() if isinstance(result, io.BytesIO) else result


def _crc_of_file(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc
