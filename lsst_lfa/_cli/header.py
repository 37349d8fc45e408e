"""``header``: the headers of a FITS file, without its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import TARGET_OPTIONS, add_options, command, json_option

if TYPE_CHECKING:
    from .fits_files import FitsFile
    from .hdus import HduRow
    from .output import Output

__all__ = ["header"]


@command()
@click.argument("target", metavar="TARGET|FILE")
@click.option("--hdu", metavar="HDU", help="Only this header: a number, a name, or NAME,VERSION.")
@add_options(TARGET_OPTIONS)
@json_option
async def header(
    output: Output,
    *,
    target: str,
    hdu: str | None,
    site: str | None,
    bucket: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Show the HDUs of a FITS file, and their headers.

    Only the headers are read, by range requests: a file of gigabytes takes no
    longer than a small one. A presigned URL, or a file that is compressed as a
    whole (.fits.gz), is read completely.
    """
    from .fits_files import hdu_row, open_fits, parse_hdu
    from .hdus import missing_bytes
    from .targets import Places, Service

    async with Service() as service, open_fits(service, Places(site, bucket, profile), target) as file:
        rows = file.rows if hdu is None else [hdu_row(file, parse_hdu(hdu))]
        if as_json:
            _write_json(output, file, rows)
        else:
            _write_text(output, file, rows)
        missing = missing_bytes(file.layout, file.reader.size)
        if missing:
            output.error(f"{file.name} is truncated: it lacks the last {missing} bytes of its data")


def _write_json(output: Output, file: FitsFile, rows: list[HduRow]) -> None:
    from .hdus import header_values

    for row in rows:
        facts = row._asdict()
        output.json(
            {"url": file.name, "hdu": facts.pop("number")}
            | facts
            | {"header": header_values(file.layout[row.number][1])}
        )


def _write_text(output: Output, file: FitsFile, rows: list[HduRow]) -> None:
    from .hdus import cards
    from .output import human_size, printable

    # The table shows all: it tells which to ask for.
    output.table(
        ("HDU", "NAME", "TYPE", "SHAPE", "PIXELS", "CARDS", "SIZE"),
        [
            (
                str(row.number),
                f"{row.name},{row.version}" if row.version != 1 else row.name,
                row.kind,
                row.shape_text,
                row.pixels,
                str(row.cards),
                human_size(row.size),
            )
            for row in file.rows
        ],
    )
    for row in rows:
        output.line("")
        output.line(f"# HDU {row.number} {printable(row.name)}".rstrip())
        for card in cards(*file.layout[row.number]):
            output.line(printable(card))
