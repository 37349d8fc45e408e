"""``ls``, ``stat``, ``rm`` and ``share``: objects without their data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .output import Output

__all__ = ["ls", "rm", "share", "stat"]

_targets = click.argument("targets", metavar="TARGET...", nargs=-1, required=True)


@command()
@click.argument("target", required=False)
@click.option("-l", "--long", is_flag=True, help="Also show sizes and times (UTC).")
@click.option("-r", "--recursive", is_flag=True, help="Also list the contents of folders.")
@add_options(TARGET_OPTIONS)
@json_option
def ls(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """List objects and folders.

    TARGET is the URL of a bucket or of a folder, or a prefix: all keys that
    begin with it are listed.
    """
    from .listing import list_all
    from .targets import Places

    return list_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@add_options(TARGET_OPTIONS)
@json_option
def stat(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Show the metadata of objects."""
    from .metadata import stat_all
    from .targets import Places

    return stat_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@click.option("-r", "--recursive", is_flag=True, help="Delete folders, with all their contents.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be deleted.")
@add_options(TARGET_OPTIONS)
def rm(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Delete objects, or folders.

    The keys are printed, one per line. A whole bucket is never emptied.
    """
    from .metadata import remove_all
    from .targets import Places

    return remove_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@click.option(
    "--expires",
    metavar="TIME",
    default="1h",
    show_default=True,
    help="How long the URL is valid: 15m, 36h; at most 7d.",
)
@add_options(TARGET_OPTIONS)
def share(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Print URLs with which anyone can download objects, for a time.

    Such a URL is like a password: share it with nobody but the recipient.
    """
    from .metadata import share_all
    from .targets import Places

    return share_all(output, Places(site, bucket, profile), **options)
