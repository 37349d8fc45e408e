"""``rm``: delete objects and folders."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lsst_lfa import AsyncS3Bucket

    from .output import Output

__all__ = ["rm"]


@command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Delete folders, with all that is in them.")
@click.option("-n", "--dry-run", is_flag=True, help="Only tell what would be deleted.")
@add_options(TARGET_OPTIONS)
async def rm(
    output: Output,
    *,
    targets: tuple[str, ...],
    recursive: bool,
    dry_run: bool,
    site: str | None,
    bucket: str | None,
    profile: str | None,
) -> None:
    """Delete objects, or folders.

    The keys are written, one on a line. A whole bucket is not a folder.
    """
    from lsst_lfa._transfer.folders import folder_prefix

    from .many import for_each
    from .targets import Places, Service

    places = Places(site, bucket, profile)
    urls = [places.prefix(target) if recursive else places.object(target) for target in targets]
    for url in urls:
        if not url.key:
            msg = f"this would delete all that bucket {url.bucket} has: name a folder"
            raise click.UsageError(msg)
    async with Service(anonymous=False) as service:
        await for_each(
            output,
            urls,
            lambda url: (
                _delete_folder(output, service.bucket(url), folder_prefix(url.key), dry_run=dry_run)
                if recursive
                else _delete(output, service.bucket(url), url.key, dry_run=dry_run)
            ),
        )


async def _delete(output: Output, bucket: AsyncS3Bucket, key: str, *, dry_run: bool) -> None:
    await bucket.head(key)  # S3 would not say that it was not there
    if not dry_run:
        await bucket.delete(key)
    output.name(key)


async def _delete_folder(output: Output, bucket: AsyncS3Bucket, prefix: str, *, dry_run: bool) -> None:
    from .many import tell_failures

    count = 0

    async def keys() -> AsyncGenerator[str, None]:
        nonlocal count
        async with aclosing(bucket.list(prefix)) as items:
            async for item in items:
                count += 1
                output.name(item.key)
                yield item.key

    async with aclosing(keys()) as listed:
        if dry_run:
            async for _ in listed:
                pass
            failed = {}
        else:
            failed = await bucket.delete_many(listed)
    if not count:
        msg = f"bucket {bucket.name} has no folder {prefix!r}"
        raise FileNotFoundError(msg)
    tell_failures(output, failed.values())
