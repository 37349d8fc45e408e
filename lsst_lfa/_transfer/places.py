"""Where a folder's objects belong on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lsst_lfa.naming import check_key

from .files import make_folder, safe_join

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .responses import ObjectInfo

__all__ = ["Place", "find_places"]


class Place(NamedTuple):
    """Where an object belongs, or the reason why it has no place here.

    Attributes
    ----------
    name : `str`
        Its key, without the common prefix.
    item : `ObjectInfo`
        The object, as it was listed.
    path : `pathlib.Path`
        Its place.
    taken : `bool`
        Whether a file is there, which may be the same.
    error : `Exception` or `None`
        Why it has no place.
    """

    name: str
    item: ObjectInfo
    path: Path
    taken: bool = False
    error: Exception | None = None


def find_places(folder: Path, prefix: str, items: Iterable[ObjectInfo]) -> list[Place]:
    """Find the places of objects, after creating their folders. It blocks: call it in a thread.

    One call for many objects: changing threads takes longer than it does.

    Raises
    ------
    OSError
        If the folder itself cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = ((item.key.removeprefix(prefix), item) for item in items)
    # Without the folder's own marker.
    return [_find_place(folder, name, item) for name, item in found if name or item.size]


def _find_place(folder: Path, name: str, item: ObjectInfo) -> Place:
    try:
        check_key(item.key)  # a key with ".." or "." was not created by this package
        if not item.key.endswith("/"):
            path = safe_join(folder, name)
            return Place(name, item, path, path.is_file() and not path.is_symlink())
        if item.size:
            msg = f"key {item.key!r} is that of a folder, but the object is not empty: use download_file for it"
            raise ValueError(msg)
        return Place(name, item, make_folder(folder, name))
    except (OSError, ValueError) as error:
        return Place(name, item, folder, error=error)
