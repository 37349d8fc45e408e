"""Plots of spectra: which columns are a spectrum, and a small PNG of them. All of it blocks."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lsst_lfa._transfer.fits_ranges import header_value

from .pictures import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Axis", "choose_columns", "draw_spectrum", "envelope", "read_columns", "read_pixels", "wavelength_table"]

_WAVELENGTHS: Final = ("wavelength", "wavelen", "wave", "lambda", "loglam", "wl", "freq", "energy")
_FLUXES: Final = ("flux", "spectrum", "spec", "intensity", "counts", "count", "signal", "adu", "power", "transmission")
_BINS: Final = 2000
"""More than the plot has pixels across."""
_HIGHEST: Final = 1e300
"""More than that, and matplotlib's own arithmetic overflows."""


class Axis(NamedTuple):
    """One axis of a plot.

    Attributes
    ----------
    values : `numpy.ndarray`
        One-dimensional.
    label : `str`
        Name and unit.
    """

    values: Array
    label: str


def choose_columns(names: Sequence[str]) -> tuple[int, int] | None:
    """Return which columns are wavelength and flux, by their names; `None` if none seem to be."""
    wavelength, flux = _first(names, _WAVELENGTHS), _first(names, _FLUXES)
    return None if wavelength is None or flux is None or wavelength == flux else (wavelength, flux)


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    lower = [name.strip().lower() for name in names]
    for word in wanted:  # the whole name first: "flux" before "flux_error"
        if word in lower:
            return lower.index(word)
    for word in wanted:
        for index, name in enumerate(lower):
            if name.startswith(word) and not name.endswith(("err", "error", "var", "variance", "ivar")):
                return index
    return None


def read_columns(hdu: Any) -> tuple[Axis, Axis] | None:
    """Return the spectrum in a table: the columns of that name, or else the first numbers by row.

    `None` if there is nothing to plot.
    """
    import numpy as np

    columns = hdu.columns
    numeric = [
        index
        for index, name in enumerate(columns.names)
        if np.asarray(hdu.data.field(name)).dtype.kind in "iuf" and len(hdu.data)
    ]
    if not numeric:
        return None
    chosen = choose_columns([columns.names[index] for index in numeric])
    if chosen is not None:
        x, y = (_column(hdu, numeric[index]) for index in chosen)
        if len(x.values) == len(y.values):
            return x, y
    flux = _first([columns.names[index] for index in numeric], _FLUXES)
    y = _column(hdu, numeric[flux or 0])
    return Axis(np.arange(len(y.values), dtype=float), "row"), y


def _column(hdu: Any, index: int) -> Axis:
    column = hdu.columns[index]
    return Axis(_floats(hdu.data.field(index)), _label(column.name, column.unit))


def _floats(values: Any) -> Array:
    import numpy as np

    array: Array = np.asarray(values).astype(float).ravel()
    return array


def _label(name: object, unit: object) -> str:
    return f"{name} [{unit}]" if unit else str(name)


def wavelength_table(header: Any) -> tuple[str, int, str] | None:
    """Return the table that has a one-dimensional image's coordinates: name, version and column (``-TAB``).

    Source: Greisen et al. 2006, A&A 446, 747, section 6.
    """
    kind, name, column = (header_value(header, keyword) for keyword in ("CTYPE1", "PS1_0", "PS1_1"))
    if not str(kind).endswith("-TAB") or not name or not column:
        return None
    version = header_value(header, "PV1_1", 1)
    return str(name).strip(), int(version) if isinstance(version, (int, float)) else 1, str(column).strip()


def read_pixels(hdu: Any, table: Array | None = None) -> tuple[Axis, Axis]:
    """Return a one-dimensional image and its coordinates: from its table, by its header, or the pixels' numbers."""
    header, fluxes = hdu.header, _floats(hdu.data)
    return _coordinates(header, len(fluxes), table), Axis(fluxes, _label("flux", header_value(header, "BUNIT")))


def _coordinates(header: Any, length: int, table: Array | None) -> Axis:
    import numpy as np

    kind, unit = header_value(header, "CTYPE1"), header_value(header, "CUNIT1")
    label = _label(header_value(header, "CNAME1") or kind or "axis 1", unit)
    if table is not None and np.size(table) == length:
        return Axis(_floats(table), label)
    step = header_value(header, "CDELT1", header_value(header, "CD1_1"))
    numbers = [header_value(header, "CRVAL1"), step, header_value(header, "CRPIX1", 1)]
    linear = not str(kind).endswith(("-TAB", "-LOG"))
    if linear and all(isinstance(number, (int, float)) for number in numbers) and step:
        start, step, reference = (float(number) for number in numbers)
        return Axis(start + (np.arange(1, length + 1) - reference) * step, label)
    return Axis(np.arange(1, length + 1, dtype=float), "pixel")


def envelope(x: Array, y: Array, bins: int) -> tuple[Array, Array]:
    """Return so few points that they can be drawn: of each bin the first, the lowest and the highest."""
    import numpy as np

    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) <= 3 * bins:
        return x, y
    edges = np.linspace(0, len(y), bins + 1).astype(int)
    kept = [
        index
        for start, stop in itertools.pairwise(edges)
        for index in sorted({start, start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax())})
    ]
    return x[kept], y[kept]


def draw_spectrum(x: Axis, y: Axis, title: str) -> Picture:
    """Draw a spectrum, without a display: matplotlib's Agg by its objects."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = f"{len(y.values)} point{'s' * (len(y.values) != 1)}"
    xs, ys = (values.clip(-_HIGHEST, _HIGHEST) for values in envelope(x.values, y.values, _BINS))
    figure = Figure(figsize=(10, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    if len(ys):
        # A line through one point would not be seen.
        axes.plot(xs, ys, linewidth=0.8, color="black", marker="o" if len(ys) == 1 else "")
        what = f"{count}, {ys.min():.6g} to {ys.max():.6g}"
    else:
        what = f"{count}, none of which has a value"
        axes.text(0.5, 0.5, "no value", ha="center", va="center", transform=axes.transAxes)
    # What a header says is no formula.
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(x.label, parse_math=False)
    axes.set_ylabel(y.label, parse_math=False)
    axes.margins(x=0.01)
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")
    return Picture(file.getvalue(), what)
