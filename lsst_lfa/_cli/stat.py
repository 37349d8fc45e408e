"""``stat``: all that is known of an object without its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from lsst_lfa._urls import ObjectUrl

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
    from .many import for_each
    from .output import human_size
    from .targets import Places, Service

    places = Places(site, bucket, profile)
    urls = [places.object(target) for target in targets]
    async with Service() as service:

        async def tell(url: ObjectUrl) -> None:
            holder = service.bucket(url)
            info = await holder.head(url.key)
            facts = {"url": holder.url(url.key), "bucket": url.bucket, **info._asdict()}
            if as_json:
                output.json(facts)
                return
            facts["size"] = f"{info.size} ({human_size(info.size)})"
            facts["last_modified"] = f"{info.last_modified:%Y-%m-%dT%H:%M:%SZ}"
            facts |= {f"metadata {name}": value for name, value in (facts.pop("metadata") or {}).items()}
            for name, value in facts.items():
                if value is not None:
                    output.name(f"{name.replace('_', ' ') + ':':15} {value}")

        await for_each(output, urls, tell)
