"""What the HDUs of a FITS file are, for a table and for machines. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lsst_lfa._transfer.fits_ranges import header_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from astropy.io.fits import Header

    from lsst_lfa._transfer.fits_ranges import StoredHdu

__all__ = ["HduRow", "cards", "describe", "find_hdu", "header_values", "missing_bytes"]

_PIXELS: Final = {8: "uint8", 16: "int16", 32: "int32", 64: "int64", -32: "float32", -64: "float64"}
_CARD: Final = 80
_COMMENTARY: Final = frozenset({"COMMENT", "HISTORY", ""})


class HduRow(NamedTuple):
    """An HDU in the table of a file's HDUs.

    Attributes
    ----------
    number : `int`
        Its place in the file.
    name : `str`
        ``EXTNAME``.
    version : `int`
        ``EXTVER``.
    kind : `str`
        astropy's class, and for a compressed image the algorithm.
    shape : `tuple` [`int`, ...]
        ``NAXIS1``, ``NAXIS2``, ... of an image; columns and rows of a table.
    pixels : `str`
        The type of an image's pixels; "" for a table.
    columns : `tuple` [`str`, ...]
        The names of a table's columns.
    cards : `int`
        Cards in its header.
    size : `int`
        Bytes in the file, with the header.
    """

    number: int
    name: str
    version: int
    kind: str
    shape: tuple[int, ...]
    pixels: str
    columns: tuple[str, ...]
    cards: int
    size: int

    @property
    def is_table(self) -> bool:
        """Whether it has columns and rows, and not pixels."""
        return not self.pixels and bool(self.shape)

    @property
    def dimensions(self) -> int:
        """How many axes an image has that are longer than 1, at least 1; 0 if it is empty, or a table."""
        if self.is_table or not self.shape or 0 in self.shape:
            return 0
        return max(1, sum(axis > 1 for axis in self.shape))

    @property
    def shape_text(self) -> str:
        """The shape as people read it."""
        if self.is_table:
            columns, rows = self.shape
            return f"{columns} column{'s' * (columns != 1)} x {rows} row{'s' * (rows != 1)}"
        return " x ".join(map(str, self.shape)) if self.shape else "-"


def describe(layout: Iterable[tuple[StoredHdu, Header]]) -> list[HduRow]:
    """Return the table of a file's HDUs."""
    return [_row(number, hdu, header) for number, (hdu, header) in enumerate(layout)]


def _row(number: int, hdu: StoredHdu, header: Any) -> HduRow:
    stored: Any = hdu.header
    kind = _kind(stored)
    table = kind in {"BinTableHDU", "TableHDU"}
    axes = tuple(_integer(header, f"NAXIS{axis}") for axis in range(1, _integer(header, "NAXIS") + 1))
    columns = (
        tuple(str(header_value(header, f"TTYPE{n}", n)) for n in range(1, _integer(header, "TFIELDS") + 1))
        if table
        else ()
    )
    return HduRow(
        number=number,
        name=str(header_value(header, "EXTNAME", "" if number else "PRIMARY")).strip(),
        version=_integer(header, "EXTVER", 1),
        kind=kind,
        shape=(len(columns), axes[1] if len(axes) > 1 else 0) if table else axes,
        pixels="" if table or not axes else _pixels(header),
        columns=columns,
        cards=len(header),
        size=hdu.stop - hdu.start,
    )


def _kind(stored: Any) -> str:
    extension = str(header_value(stored, "XTENSION", "")).strip()
    if not extension:
        return "PrimaryHDU"
    if header_value(stored, "ZIMAGE") is True:
        return f"CompImageHDU ({header_value(stored, 'ZCMPTYPE', '?')})"
    return {"IMAGE": "ImageHDU", "BINTABLE": "BinTableHDU", "TABLE": "TableHDU"}.get(extension, extension)


def _pixels(header: Any) -> str:
    """Return the type that the pixels have when they are read: FITS Standard 4.0, 5.2.5 and table 11."""
    stored = _PIXELS.get(_integer(header, "BITPIX"), "?")
    scale, zero = header_value(header, "BSCALE", 1), header_value(header, "BZERO", 0)
    if (scale, zero) == (1, 0):
        return stored
    if scale == 1 and stored.startswith("int") and zero == 1 << (int(stored[3:]) - 1):
        return f"u{stored}"
    return "int8" if (scale, zero, stored) == (1, -128, "uint8") else f"{stored}, scaled"


def _integer(header: Any, name: str, default: int = 0) -> int:
    value = header_value(header, name, default)
    return value if isinstance(value, int) else default


def find_hdu(rows: Sequence[HduRow], wanted: int | str | tuple[str, int]) -> HduRow:
    """Return an HDU by its number, name, or name and version, as astropy does.

    Raises
    ------
    LookupError
        If there is none.
    """
    if isinstance(wanted, int):
        if -len(rows) <= wanted < len(rows):
            return rows[wanted]
    else:
        name, version = wanted if isinstance(wanted, tuple) else (wanted, None)
        for row in rows:
            if row.name.upper() == name.strip().upper() and version in {None, row.version}:
                return row
    text = f"{wanted[0]},{wanted[1]}" if isinstance(wanted, tuple) else wanted
    known = ", ".join(f"{row.number} {row.name}".strip() for row in rows)
    msg = f"the file has no HDU {text}; it has {known}"
    raise LookupError(msg)


def missing_bytes(layout: Sequence[tuple[StoredHdu, Header]], size: int) -> int:
    """Return how many bytes of its last HDU's data a file of this size lacks: 0 if it is whole."""
    return max(layout[-1][0].data_end - size, 0)


def cards(hdu: StoredHdu, header: Any) -> list[str]:
    """Return the cards of a header as they stand in the file; for a compressed image, those of the image."""
    if header_value(hdu.header, "ZIMAGE") is not True:
        text = hdu.raw.decode("latin-1")
        lines = [text[start : start + _CARD].rstrip() for start in range(0, len(text), _CARD)]
        return lines[: lines.index("END")]
    return [line for card in header.cards for line in _card_lines(card)]


def _card_lines(card: Any) -> list[str]:
    try:
        image = card.image
    except Exception:  # noqa: BLE001 - whatever astropy finds wrong with a card, its name is known
        image = f"{card.rawkeyword:8}= ?"
    # A long value goes on in CONTINUE cards, all in one image.
    return [image[start : start + _CARD].rstrip() for start in range(0, max(len(image), 1), _CARD)]


def header_values(header: Any) -> dict[str, Any]:
    """Return a header's values by keyword, as JSON can have them; a list where a keyword comes more than once."""
    values: dict[str, Any] = {}
    for card in header.cards:
        try:
            keyword, value = card.keyword, _plain(card.value)
        except Exception:  # noqa: BLE001 - as in `cards`
            keyword, value = str(card.rawkeyword), None
        if keyword in _COMMENTARY:
            values.setdefault(keyword or "BLANK", []).append(value)
        elif keyword in values:
            former = values[keyword]
            values[keyword] = [*former, value] if isinstance(former, list) else [former, value]
        else:
            values[keyword] = value
    return values


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: there is no NaN, and no complex number."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    # astropy's own: a keyword without a value.
    return None if type(value).__name__ == "Undefined" else str(value)
