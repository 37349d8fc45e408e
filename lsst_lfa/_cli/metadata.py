"""What ``stat``, ``rm`` and ``share`` do."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from lsst_lfa._transfer.folders import folder_prefix
from lsst_lfa.naming import check_key

from .durations import parse_duration
from .many import for_each, tell_failures
from .output import human_size
from .targets import Service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lsst_lfa import AsyncS3Bucket, ObjectInfo
    from lsst_lfa._urls import ObjectUrl

    from .output import Output
    from .targets import Places

__all__ = ["remove_all", "share_all", "stat_all"]


async def stat_all(output: Output, places: Places, *, targets: Sequence[str], as_json: bool) -> None:
    """Tell what HEAD tells of objects."""
    urls = [places.object(target) for target in targets]
    async with Service() as service:

        async def stat(url: ObjectUrl) -> None:
            bucket = service.bucket(url)
            info = await bucket.head(url.key)
            place = {"url": bucket.url(url.key), "bucket": url.bucket}
            if as_json:
                output.json({**place, **info._asdict()})
            else:
                for name, value in (place | _texts(info)).items():
                    output.name(f"{name + ':':15} {value}")

        await for_each(output, urls, stat)


def _texts(info: ObjectInfo) -> dict[str, str]:
    facts = info._asdict() | {
        "size": f"{info.size} ({human_size(info.size)})",
        "last_modified": f"{info.last_modified:%Y-%m-%dT%H:%M:%SZ}",
        "metadata": None,
    }
    texts = {name.replace("_", " "): str(value) for name, value in facts.items() if value is not None}
    return texts | {f"metadata {name}": value for name, value in (info.metadata or {}).items()}


async def share_all(output: Output, places: Places, *, targets: Sequence[str], expires: str) -> None:
    """Tell presigned URLs."""
    urls = [places.object(target) for target in targets]
    seconds = parse_duration(expires)
    async with Service(anonymous=False) as service:

        async def share(url: ObjectUrl) -> None:
            bucket = service.bucket(url)
            await bucket.head(url.key)  # a URL that leads nowhere helps nobody
            output.line(await bucket.presigned_url(url.key, expires=seconds))

        await for_each(output, urls, share)


async def remove_all(output: Output, places: Places, *, targets: Sequence[str], recursive: bool, dry_run: bool) -> None:
    """Delete objects, or all that is in folders."""
    urls = [places.prefix(target) if recursive else places.object(target) for target in targets]
    for url in urls:
        if not url.key.strip("/"):
            msg = f"this would delete everything in bucket {url.bucket}: name a folder"
            raise click.UsageError(msg)
    remove = _remove_folder if recursive else _remove
    async with Service(anonymous=False) as service:
        await for_each(output, urls, lambda url: remove(output, service.bucket(url), url.key, dry_run=dry_run))


async def _remove(output: Output, bucket: AsyncS3Bucket, key: str, *, dry_run: bool) -> None:
    await bucket.head(key)  # S3 would not say that it was not there
    if not dry_run:
        await bucket.delete(key)
    output.name(key)


async def _remove_folder(output: Output, bucket: AsyncS3Bucket, key: str, *, dry_run: bool) -> None:
    count = 0
    failures: list[Exception] = []

    async def keys() -> AsyncGenerator[str, None]:
        nonlocal count
        async with aclosing(bucket.list(folder_prefix(key))) as items:
            async for item in items:
                count += 1
                try:
                    check_key(item.key)
                except ValueError as error:  # other programs can make such a key
                    failures.append(error)
                    continue
                output.name(item.key)
                yield item.key

    async with aclosing(keys()) as listed:
        if dry_run:
            async for _ in listed:
                pass
        else:
            failures += (await bucket.delete_many(listed)).values()
    if not count:
        msg = f"bucket {bucket.name} has no folder {key!r}"
        raise FileNotFoundError(msg)
    tell_failures(output, failures)
