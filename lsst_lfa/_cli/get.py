"""``get`` and ``cat``: download objects to files, or to the standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .output import Output

__all__ = ["cat", "get"]

wait_option = click.option(
    "--wait", metavar="SECONDS", type=click.FloatRange(min=0), default=0.0, help="Wait for what is not there yet."
)


@command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "-o", "--output", "path", metavar="PATH", help='The file, or the folder: one that exists or ends with "/".'
)
@click.option("-r", "--recursive", is_flag=True, help="Download folders, with all that is in them.")
@wait_option
@add_options(TARGET_OPTIONS)
@json_option
async def get(output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any) -> None:
    """Download objects to files.

    A file is there whole or not at all; one that is equal already is
    skipped, a different one replaced. By default files go to the current
    folder, under the last part of their keys. The paths are written, one on a
    line.
    """
    from .downloading import download_all
    from .targets import Places

    await download_all(output, Places(site, bucket, profile), **options)


@command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@wait_option
@add_options(TARGET_OPTIONS)
async def cat(output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any) -> None:
    """Write objects to the standard output, one after another."""
    from .downloading import write_all
    from .targets import Places

    await write_all(output, Places(site, bucket, profile), **options)
