"""Inspects a spool without changing it: the files in its folder, and their states. It blocks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from .entry import PART, SIDECAR, is_locked, read_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .record import Record

__all__ = ["Kept", "State", "survey"]

State = Literal["waiting", "busy", "event due", "sent", "unfinished", "lost", "damaged", "foreign", "unreadable"]


class Kept(NamedTuple):
    """A file in a spool's folder.

    Attributes
    ----------
    path : `pathlib.Path`
        Its path, or the path that it would have.
    bucket, key : `str`
        Its destination.
    state : `str`
        ``waiting`` to be sent; ``busy``: a process works on it; ``event due``:
        S3 has it, and its component has not announced it yet; ``sent``: only
        its removal was interrupted; ``unfinished``: it was never completely
        written; ``lost``: it was complete, and is gone; ``damaged``: its sidecar
        cannot be understood; ``foreign``: it has no sidecar; ``unreadable``.
    size : `int`
        Bytes; -1 if that is not known.
    component : `str`
        The component whose event announces it.
    published : `str`
        When it was published, in UTC.
    problem : `str`
        What is wrong.
    """

    path: Path
    bucket: str
    key: str
    state: State
    size: int = -1
    component: str = ""
    published: str = ""
    problem: str = ""


def survey(folder: Path) -> list[Kept]:
    """Return the files in a spool's folder, each bucket's oldest first; nothing is changed.

    Raises
    ------
    OSError
        If there is no such folder, or it cannot be read.
    """
    found: list[Kept] = []
    for root in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(_bucket_files(root), key=lambda each: each[0])
        found.extend(kept for _, kept in files)
    return found


def _bucket_files(root: Path) -> Iterator[tuple[tuple[int, str], Kept]]:
    unread: list[OSError] = []
    for folder, _, names in os.walk(root, onerror=unread.append):
        there = set(names)
        for name in names:
            path = Path(folder, name)
            if name.endswith(SIDECAR):
                sequence, kept = _described(root, path)
                yield (sequence, str(path)), kept
            elif not name.startswith(".") and not name.endswith(PART) and f"{name}{SIDECAR}" not in there:
                kept = Kept(path, root.name, path.relative_to(root).as_posix(), "foreign", path.lstat().st_size)
                yield (0, str(path)), kept
    for error in unread:
        path = Path(error.filename)
        key = path.relative_to(root).as_posix()
        yield (0, str(path)), Kept(path, root.name, key, "unreadable", problem=error.strerror or str(error))


def _described(root: Path, sidecar: Path) -> tuple[int, Kept]:
    """Return what a sidecar says about its file, and its place in the order."""
    payload = sidecar.with_name(sidecar.name.removesuffix(SIDECAR))
    size = payload.lstat().st_size if os.path.lexists(payload) else -1
    key = payload.relative_to(root).as_posix()
    try:
        record = read_sidecar(sidecar)
        busy = is_locked(sidecar)
    except FileNotFoundError:  # it has just been sent
        return 0, Kept(payload, root.name, key, "sent", size)
    except OSError as error:
        return 0, Kept(payload, root.name, key, "unreadable", size, problem=error.strerror or str(error))
    except ValueError as error:
        return 0, Kept(payload, root.name, key, "damaged", size, problem=str(error))
    state = _state(record, busy=busy, there=size >= 0)
    size = record.byte_size if record.complete else size
    return record.sequence, Kept(payload, root.name, record.key, state, size, record.component, record.published)


def _state(record: Record, *, busy: bool, there: bool) -> State:
    if busy:
        return "busy"
    if record.stored:
        return "event due" if record.to_announce else "sent"
    if there:
        return "waiting" if record.complete else "unfinished"
    return "lost" if record.safe else "unfinished"
