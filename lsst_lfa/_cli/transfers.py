"""``put``, ``get`` and ``cat``: objects up and down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .output import Output

__all__ = ["cat", "get", "put"]

_targets = click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
_wait = click.option(
    "--wait", metavar="SECONDS", type=click.FloatRange(min=0), default=0.0, help="Wait for what is not there yet."
)


@command()
@click.argument("paths", metavar="FILE|FOLDER... [DESTINATION]", nargs=-1, required=True)
@click.option("--key", metavar="KEY", help='With --bucket: the key; one that ends with "/" is a folder.')
@click.option("--if-none-match", is_flag=True, help="Never replace an object.")
@click.option("--content-type", metavar="TYPE", help="The MIME type to store; by default by the name.")
@add_options(TARGET_OPTIONS)
@json_option
def put(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Upload files and folders.

    DESTINATION is the URL of a folder, s3://bucket/folder/, in which files keep
    their names, or of an object, s3://bucket/key. Instead of it, --bucket and
    --key name the same. "-" is the standard input.

    The URL of each object is written, one on a line. Of a folder, files that are
    in the bucket already are skipped.
    """
    from .targets import Places
    from .uploading import upload_all

    return upload_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@click.option("-o", "--output", "path", metavar="PATH", help='The file; or the folder, if there is one, or with "/".')
@click.option("-r", "--recursive", is_flag=True, help="Download folders, with all that is in them.")
@_wait
@add_options(TARGET_OPTIONS)
@json_option
def get(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Download objects to files.

    A file is there whole or not at all; one that is equal already is
    skipped, a different one replaced. By default files go to the current
    folder, under the last part of their keys. The paths are written, one on a
    line.
    """
    from .downloading import download_all
    from .targets import Places

    return download_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@_wait
@add_options(TARGET_OPTIONS)
def cat(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Write objects to the standard output, one after another."""
    from .downloading import write_all
    from .targets import Places

    return write_all(output, Places(site, bucket, profile), **options)
