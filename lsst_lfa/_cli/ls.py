"""``ls``: what a bucket has."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lsst_lfa import AsyncS3Bucket, Folder, ObjectInfo

    from .output import Output

__all__ = ["ls"]


@command()
@click.argument("target", required=False)
@click.option("-l", "--long", is_flag=True, help="Tell sizes and times (UTC) as well.")
@click.option("-r", "--recursive", is_flag=True, help="List what is in folders, too.")
@add_options(TARGET_OPTIONS)
@json_option
async def ls(
    output: Output,
    *,
    target: str | None,
    long: bool,
    recursive: bool,
    as_json: bool,
    site: str | None,
    bucket: str | None,
    profile: str | None,
) -> None:
    """List objects and folders.

    TARGET is the URL of a bucket or of a folder, or the beginning of keys:
    all that begin with it are listed.
    """
    from .targets import Places, Service

    where = Places(site, bucket, profile).prefix(target)
    found = False
    async with Service() as service:
        holder = service.bucket(where)
        async with aclosing(_items(holder, where.key, "" if recursive else "/")) as items:
            async for prefix, item in items:
                found = True
                if as_json:
                    output.json(_facts(holder, item))
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
        alone = first is not None and second is None and prefix and first.key == f"{prefix}{delimiter}"
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
    kind = "object" if "size" in known else "folder"
    return {"type": kind, "bucket": bucket.name, **known}


def _columns(item: ObjectInfo | Folder) -> str:
    from lsst_lfa import Folder

    from .output import human_size

    if isinstance(item, Folder):
        return f"{'folder':>9}  {'':20}"
    return f"{human_size(item.size):>9}  {item.last_modified:%Y-%m-%dT%H:%M:%SZ}"
