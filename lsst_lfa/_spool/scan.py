"""Scans a bucket's folder for waiting files, remains of a crash, and files that are not ours. It blocks."""

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

__all__ = ["Found", "Scan", "file_system", "foreign_files", "is_volatile", "prune_all"]

log = logging.getLogger(__name__)

# A sidecar gets its name at most this many seconds after it was created.
_MAKING = 60.0
_VOLATILE = frozenset({"overlay", "tmpfs", "ramfs", "aufs"})


class Found(NamedTuple):
    """A waiting file, in few bytes, because there may be many.

    Attributes
    ----------
    sequence : `int`
        Order of publishing.
    sidecar : `str`
        Path of its sidecar.
    size : `int`
        Bytes.
    component : `str`
        The component whose event announces it.
    announce : {"safe", "stored", "never"}
        When to announce it, if that is still to be done.
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
    """Scans a bucket's folder repeatedly; each problem is logged once.

    Parameters
    ----------
    root : `pathlib.Path`
        The bucket's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reported: set[str] = set()

    def run(self, known: AbstractSet[str]) -> list[Found]:
        """Return the waiting files, oldest first, except those whose sidecars are known.

        The remains of files that were never complete, left by a crash, are
        removed.
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
                f"{foreign} files in {self._root} have no sidecar, so they are not sent: adopt() takes them over",
            )
        self._clear(parts - named)
        prune_all(self._root)
        return sorted(found)

    def _look_at(self, path: str, named: set[str]) -> Iterator[Found]:
        try:
            record = read_sidecar(path)
        except FileNotFoundError:
            return  # it has been sent
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
            self._report(path, f"{payload} was published and is gone; all that is known is in its sidecar")
        else:
            self._remove_remains(Path(path))

    def _remove_remains(self, path: Path) -> None:
        """Remove the remains of a file that was never complete, left by a crash; its `publish` had not returned."""
        try:
            entry = claim(path)
            if entry is None:
                return  # it is being written right now
            try:
                if not entry.payload.exists() and not entry.record.safe:
                    log.info("%s was not completely written before its process ended: removing its remains", path)
                    entry._remove()  # noqa: SLF001 - internal to this package, and this is a thread
            finally:
                entry._release()  # noqa: SLF001 - as above
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._report(str(path), f"cannot remove {path}: {error}")

    def _clear(self, parts: set[str]) -> None:
        """Remove temporary files that no sidecar names: sidecars that were being created when their process ended."""
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
    """Remove a bucket's empty folders; removing a file leaves its folder for the next one."""
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
    yield from sorted(paths, key=_modified)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it is gone, or a link that leads nowhere: whoever opens it says so
        return 0.0


def file_system(path: Path) -> str:
    """Return the type of a path's file system; empty if the system does not tell."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        # Of mounts on top of each other, the last one counts.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split(" ")[0]
    return kind


def is_volatile(kind: str) -> bool:
    """Return whether files on a file system of this type are lost with the container, or when the machine restarts."""
    return kind in _VOLATILE


def _walk(root: Path) -> Iterator[tuple[str, set[str]]]:
    for folder, _, names in os.walk(root):
        yield folder, set(names)


def _is_part(name: str) -> bool:
    return name.startswith(".lfa-") and name.endswith(PART)
