"""``share``: a URL with which anybody can fetch an object for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command

if TYPE_CHECKING:
    from lsst_lfa._urls import ObjectUrl

    from .output import Output

__all__ = ["share"]


@command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--expires", metavar="TIME", default="1h", show_default=True, help="For how long: 15m, 36h; at most 7d.")
@add_options(TARGET_OPTIONS)
async def share(
    output: Output,
    *,
    targets: tuple[str, ...],
    expires: str,
    site: str | None,
    bucket: str | None,
    profile: str | None,
) -> None:
    """Write a URL with which anybody can fetch an object for a while.

    It is as good as a password: give it to nobody else.
    """
    from .durations import parse_duration
    from .many import for_each
    from .targets import Places, Service

    places = Places(site, bucket, profile)
    seconds = parse_duration(expires)
    urls = [places.object(target) for target in targets]
    async with Service(anonymous=False) as service:

        async def tell(url: ObjectUrl) -> None:
            holder = service.bucket(url)
            await holder.head(url.key)  # a URL that leads nowhere helps nobody
            output.line(await holder.presigned_url(url.key, expires=seconds))

        await for_each(output, urls, tell)
