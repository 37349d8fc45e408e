"""``put``, ``get`` and ``cat``: uploads and downloads."""

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
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Wait for an object that does not exist yet.",
)


@command()
@click.argument("paths", metavar="FILE|FOLDER... [DESTINATION]", nargs=-1, required=True)
@click.option("--key", metavar="KEY", help='With --bucket: the key; one that ends with "/" is a folder.')
@click.option("--if-none-match", is_flag=True, help="Never replace an object.")
@click.option("--content-type", metavar="TYPE", help="The MIME type to store; by default guessed from the name.")
@add_options(TARGET_OPTIONS)
@json_option
def put(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Upload files and folders.

    DESTINATION is the URL of a folder, s3://bucket/folder/, in which files
    keep their names, or of an object, s3://bucket/key. --bucket and --key do
    the same. "-" is the standard input.

    The URL of each object is printed, one per line. When a folder is uploaded,
    files that the bucket already has, with the same content, are skipped.
    """
    from .targets import Places
    from .uploading import upload_all

    return upload_all(output, Places(site, bucket, profile), **options)


@command()
@_targets
@click.option("-o", "--output", "path", metavar="PATH", help='The file; or a folder, if it exists or ends with "/".')
@click.option("-r", "--recursive", is_flag=True, help="Download folders, with all their contents.")
@_wait
@add_options(TARGET_OPTIONS)
@json_option
def get(
    output: Output, *, site: str | None, bucket: str | None, profile: str | None, **options: Any
) -> Coroutine[Any, Any, None]:
    """Download objects to files.

    A file is either complete or absent; one that equals the object is skipped,
    a different one is replaced. By default files go to the current folder, and
    are named after the last part of their keys. The paths are printed, one per
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
