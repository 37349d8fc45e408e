"""``preview``: a picture of an image in a FITS file, or a plot of a spectrum."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .fits_files import FitsFile
    from .hdus import HduRow
    from .output import Output
    from .pictures import Picture

__all__ = ["preview"]

_SUFFIXES = re.compile(r"(\.(fits?|fts|fz|gz))+$", re.IGNORECASE)


@command(short_help="Show a picture of an image, or a plot of a spectrum.")
@click.argument("target", metavar="TARGET|FILE")
@click.option(
    "-o", "--output", "path", metavar="PNG", type=click.Path(), help='Write the PNG to this file; "-" is stdout.'
)
@click.option(
    "--hdu",
    metavar="HDU",
    help="The HDU: a number, a name, or NAME,VERSION; by default the first image, or else the first spectrum.",
)
@add_options(TARGET_OPTIONS)
@json_option
async def preview(
    output: Output,
    *,
    target: str,
    path: str | None,
    hdu: str | None,
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Show a picture of an image in a FITS file, or a plot of a spectrum.

    Only the HDU that is shown is read; a presigned URL, or a file that is
    compressed as a whole (.fits.gz), is read completely. An image gets an
    asinh stretch between the ZScale limits. A terminal that supports pictures
    (kitty, Ghostty, iTerm2, WezTerm) shows it; otherwise, or with --output, it
    is written as a PNG.
    """
    from .fits_files import hdu_row, open_fits, parse_hdu
    from .picturing import choose_hdu, draw_hdu
    from .targets import Places, Service
    from .terminal_pictures import encode_picture, find_protocol

    async with Service() as service, open_fits(service, Places(site, bucket, profile), target) as file:
        row = choose_hdu(file) if hdu is None else hdu_row(file, parse_hdu(hdu))
        output.detail(f"reading HDU {row.number} of {file.name}: {row.size} bytes")
        picture = await draw_hdu(file, row)
        what = _caption(row, picture)
        protocol = find_protocol(os.environ) if path is None and not as_json and sys.stdout.isatty() else None
        if path == "-":
            await write_bytes(picture.png)
        elif protocol is not None:
            sys.stdout.write(encode_picture(picture.png, protocol))
        else:
            written = await _write(picture, path, file, row, named=hdu is not None)
            if as_json:
                output.json({"url": file.name, "hdu": row.number, "png": str(written), "shows": what})
            else:
                output.name(str(written))
        output.note(what)


def _caption(row: HduRow, picture: Picture) -> str:
    name = f"HDU {row.number} {row.name}".rstrip()
    return ", ".join(part for part in (name, row.shape_text, row.pixels, picture.what) if part)


async def _write(picture: Picture, path: str | None, file: FitsFile, row: HduRow, *, named: bool) -> Path:
    """Write the picture: where it is told, replacing what is there, or else under a name that is free."""
    from lsst_lfa._transfer.concurrency import in_thread
    from lsst_lfa._transfer.files import AtomicFile

    def write() -> Path:
        stem = _SUFFIXES.sub("", file.reader.key.rpartition("/")[2]) or "preview"
        stem += f"-hdu{row.number}" if named else ""
        place = Path(path) if path is not None else _free(stem)
        try:
            AtomicFile(place.absolute()).write_all(memoryview(picture.png))
        except OSError as error:
            if error.errno is None:  # ours, about the place itself
                raise
            # The system's, which names a temporary file.
            raise OSError(error.errno, error.strerror, str(place)) from error
        return place

    return await in_thread(write)


def _free(stem: str) -> Path:
    """Return the first name that no file has: what is there may be somebody's own."""
    number, path = 0, Path(f"{stem}.png")
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}.png")
    return path


async def write_bytes(data: bytes) -> None:
    """Write what is not text to stdout."""
    from lsst_lfa._transfer.concurrency import in_thread

    await in_thread(sys.stdout.buffer.write, data)
