"""What ``ls`` does."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from lsst_lfa import Folder

from .output import human_size
from .targets import Service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lsst_lfa import AsyncS3Bucket, ObjectInfo

    from .output import Output
    from .targets import Places

__all__ = ["list_all"]


async def list_all(
    output: Output, places: Places, *, target: str | None, long: bool, recursive: bool, as_json: bool
) -> None:
    """Print the contents of a bucket, while they are listed."""
    where = places.prefix(target)
    found = False
    async with Service() as service:
        bucket = service.bucket(where)
        async with aclosing(_items(bucket, where.key, "" if recursive else "/")) as items:
            async for prefix, item in items:
                found = True
                if as_json:
                    output.json(_facts(bucket, item))
                else:
                    name = item.key[prefix.rfind("/") + 1 :]
                    output.name(f"{_columns(item)}  {name}" if long else name)
    if where.key and not found:
        msg = f"bucket {where.bucket} has no key that begins with {where.key!r}"
        raise FileNotFoundError(msg)


async def _items(
    bucket: AsyncS3Bucket, prefix: str, delimiter: str
) -> AsyncGenerator[tuple[str, ObjectInfo | Folder], None]:
    """Yield what is listed, and by which prefix; a folder without its "/" is gone into if nothing else is there."""
    async with aclosing(bucket.list(prefix, delimiter)) as items:
        first = await anext(items, None)
        second = await anext(items, None)
        alone = (
            first is not None and second is None and not prefix.endswith("/") and first.key == f"{prefix}{delimiter}"
        )
        if not (delimiter and alone):
            for item in (first, second):
                if item is not None:
                    yield prefix, item
            async for item in items:
                yield prefix, item
            return
    async with aclosing(bucket.list(f"{prefix}{delimiter}", delimiter)) as items:
        async for item in items:
            yield f"{prefix}{delimiter}", item


def _facts(bucket: AsyncS3Bucket, item: ObjectInfo | Folder) -> dict[str, object]:
    """Return what is known of an item, for machines; the key as it is, whatever it holds."""
    known = {name: value for name, value in item._asdict().items() if value is not None}
    kind = "folder" if isinstance(item, Folder) else "object"
    return {"type": kind, "bucket": bucket.name, **known}


def _columns(item: ObjectInfo | Folder) -> str:
    if isinstance(item, Folder):
        return f"{'folder':>9}  {'':20}"
    return f"{human_size(item.size):>9}  {item.last_modified:%Y-%m-%dT%H:%M:%SZ}"
