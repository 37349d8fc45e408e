"""Looking through a bucket's folder: what waits, what a crash has left, what is not ours. All of it blocks."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .entry import PART, SIDECAR, claim, read_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from .record import Announce

__all__ = ["Found", "Scan", "file_system", "foreign_files", "prune_all"]

log = logging.getLogger(__name__)

# Seconds: a sidecar is given its name this long after it was made, at the latest.
_MAKING = 60.0


class Found(NamedTuple):
    """A file that waits, in few bytes: there may be many.

    Attributes
    ----------
    sequence : `int`
        Order of publishing.
    sidecar : `str`
        Path of its sidecar.
    size : `int`
        Bytes.
    component : `str`
        Whose event announces it.
    announce : {"safe", "stored", "never"}
        When that is still to be done.
    stored : `bool`
        Whether S3 has it.
    """

    sequence: int
    sidecar: str
    size: int
    component: str
    announce: Announce
    stored: bool


class Scan:
    """Looks through a bucket's folder, time and again; each problem is logged once.

    Parameters
    ----------
    root : `pathlib.Path`
        The bucket's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reported: set[str] = set()

    def run(self, known: AbstractSet[str]) -> list[Found]:
        """Return what waits, oldest first, but for the sidecars that are known.

        What a crash left of a file that was never complete is removed.
        """
        found: list[Found] = []
        parts: set[str] = set()
        named: set[str] = set()
        foreign = 0
        for folder, names in _walk(self._root):
            for name in names:
                path = f"{folder}/{name}"
                if name.endswith(SIDECAR):
                    if path not in known:
                        found.extend(self._look_at(path, named))
                elif _is_part(name):
                    parts.add(path)
                elif f"{name}{SIDECAR}" not in names:
                    foreign += 1
        if foreign:
            self._report(
                str(self._root),
                f"{foreign} files in {self._root} have no sidecar, so they are not sent: adopt() takes them in",
            )
        self._clear(parts - named)
        prune_all(self._root)
        return sorted(found)

    def _look_at(self, path: str, named: set[str]) -> Iterator[Found]:
        try:
            record = read_sidecar(path)
        except FileNotFoundError:
            return  # sent meanwhile
        except (OSError, ValueError) as error:
            self._report(path, f"cannot read {path}, so its file is not sent: {error}")
            return
        if record.part:
            named.add(f"{path.rpartition('/')[0]}/{record.part}")
        payload = path.removesuffix(SIDECAR)
        if record.stored or os.path.exists(payload):  # noqa: PTH110 - there may be many, and a Path takes longer
            if record.complete:
                announce = record.announce if record.to_announce else "never"
                component = sys.intern(record.component)
                yield Found(record.sequence, path, record.byte_size, component, announce, record.stored)
        elif record.safe:
            self._report(path, f"{payload} was published and is gone; its sidecar has all that is known of it")
        else:
            self._remove_remains(Path(path))

    def _remove_remains(self, path: Path) -> None:
        """Remove what a crash left of a file that was never complete; its `publish` had not returned."""
        try:
            entry = claim(path)
            if entry is None:
                return  # it is being written right now
            try:
                if not entry.payload.exists() and not entry.record.safe:
                    log.info("%s was not completely written before its process ended: its remains are removed", path)
                    entry._remove()  # noqa: SLF001 - a room of ours, and this is a thread
            finally:
                entry._release()  # noqa: SLF001 - as above
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._report(str(path), f"cannot remove {path}: {error}")

    def _clear(self, parts: set[str]) -> None:
        """Remove temporary files that no sidecar names: a sidecar that was being made when its process ended."""
        for part in parts:
            path = Path(part)
            try:
                if time.time() - path.stat().st_mtime > _MAKING:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._report(part, f"cannot remove {part}: {error}")

    def _report(self, path: str, message: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            log.warning(message)


def prune_all(root: Path) -> None:
    """Remove a bucket's folders that are empty; the files' own removal leaves them for the next file."""
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):  # it is not empty, or in use
            Path(folder).rmdir()


def foreign_files(root: Path) -> Iterator[Path]:
    """Iterate over the files that have no sidecar, oldest first."""
    paths = [
        Path(folder, name)
        for folder, names in _walk(root)
        for name in names
        if not name.startswith(".") and not name.endswith(SIDECAR) and f"{name}{SIDECAR}" not in names
    ]
    yield from sorted(paths, key=lambda path: path.stat().st_mtime)


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on; empty where the system does not tell."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        # Of those on top of each other, the last one counts.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _walk(root: Path) -> Iterator[tuple[str, set[str]]]:
    for folder, _, names in os.walk(root):
        yield folder, set(names)


def _is_part(name: str) -> bool:
    return name.startswith(".lfa-") and name.endswith(PART)
