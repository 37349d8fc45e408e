"""``put``: upload files and folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .output import Output

__all__ = ["put"]


@command()
@click.argument("paths", metavar="FILE|FOLDER... [DESTINATION]", nargs=-1, required=True)
@click.option("--key", metavar="KEY", help='With --bucket: the key; one that ends with "/" is a folder.')
@click.option("--if-none-match", is_flag=True, help="Never replace an object.")
@click.option("--content-type", metavar="TYPE", help="The MIME type to store; by default by the name.")
@add_options(TARGET_OPTIONS)
@json_option
async def put(
    output: Output,
    *,
    paths: tuple[str, ...],
    key: str | None,
    as_json: bool,
    site: str,
    bucket: str,
    profile: str,
    **options: Any,
) -> None:
    """Upload files and folders.

    DESTINATION is the URL of a folder, s3://bucket/folder/, in which files keep
    their names, or of an object, s3://bucket/key. Instead of it, --bucket and
    --key name the same. "-" is the standard input.

    The URL of each object is written, one on a line. In folders, files that are
    in the bucket already are skipped.
    """
    from .targets import Places
    from .uploading import upload_all

    await upload_all(output, Places(site, bucket, profile), paths, key, as_json=as_json, **options)
