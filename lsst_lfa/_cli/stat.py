"""``stat``: all that is known of an object without its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .output import Output

__all__ = ["stat"]


@command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@add_options(TARGET_OPTIONS)
@json_option
async def stat(
    output: Output,
    *,
    targets: tuple[str, ...],
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Tell all that is known of an object, without its data."""
    from .output import human_size
    from .targets import Places, Service

    places = Places(site, bucket, profile)
    async with Service() as service:
        for target in targets:
            url = places.object(target)
            holder = service.bucket(url)
            info = await holder.head(url.key)
            facts = {"url": holder.url(url.key), "bucket": url.bucket} | info._asdict()
            if as_json:
                output.json(facts)
                continue
            facts["size"] = f"{info.size} ({human_size(info.size)})"
            output.table(("", ""), [(name, str(value)) for name, value in facts.items() if value])
