"""Pictures of images: from pixels to a small PNG. All of it blocks."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Picture", "draw_image", "limits", "plane_of", "scales", "shrink", "stretch"]

_LARGEST: Final = 1024
"""Pixels of a picture's longer side, at most."""
_SMALLEST: Final = 64
"""Pixels of its shorter side, as a rule: a thin image is stretched."""
_ENLARGED: Final = 256
"""Pixels up to which a tiny image is enlarged."""
_GRAY: Final = 128


class Picture(NamedTuple):
    """A picture, and what it shows.

    Attributes
    ----------
    png : `bytes`
        The picture.
    what : `str`
        What it shows of the HDU, and how.
    """

    png: bytes
    what: str


def draw_image(data: Array) -> Picture:
    """Draw an image: FITS's first row is at the bottom."""
    from PIL import Image

    plane, which = plane_of(data)
    (step_y, repeat_y), (step_x, repeat_x) = scales(plane.shape)
    small = shrink(plane, step_y, step_x)
    low, high = limits(small)
    gray = stretch(small, low, high)[::-1].repeat(repeat_y, axis=0).repeat(repeat_x, axis=1)
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG")
    parts = [which, _scale_text(step_x, step_y), _limits_text(low, high)]
    return Picture(file.getvalue(), ", ".join(part for part in parts if part))


def plane_of(data: Array) -> tuple[Array, str]:
    """Return the two last axes longer than 1, in the middle of all others, and which plane that is."""
    squeezed = data.squeeze()
    chosen = []
    while squeezed.ndim > 2:  # noqa: PLR2004 - a picture has two
        middle = len(squeezed) // 2
        chosen.append(f"{middle + 1} of {len(squeezed)}")
        squeezed = squeezed[middle]
    return squeezed, f"plane {', '.join(chosen)}" if chosen else ""


def scales(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Decide for each axis how many pixels become one, and how often that is repeated."""
    step = math.ceil(max(shape) / _LARGEST)
    repeat = max(1, _ENLARGED // max(shape))
    steps = [min(step, max(1, length // _SMALLEST)) for length in shape]
    shown = [math.ceil(length / each) for length, each in zip(shape, steps, strict=True)]
    return [(each, max(repeat, _SMALLEST // length)) for each, length in zip(steps, shown, strict=True)]


def shrink(plane: Array, step_y: int, step_x: int) -> Array:
    """Average blocks of pixels, leaving out what is not finite; NaN where nothing is left."""
    import numpy as np

    rows, columns = range(0, plane.shape[0], step_y), np.arange(0, plane.shape[1], step_x)
    result = np.empty((len(rows), len(columns)))
    with np.errstate(all="ignore"):
        for number, row in enumerate(rows):  # a band at a time: the image may be large
            band = plane[row : row + step_y].astype(float)
            finite = np.isfinite(band)
            band[~finite] = 0
            total = np.add.reduceat(band.sum(axis=0), columns)
            count = np.add.reduceat(finite.sum(axis=0), columns)
            result[number] = np.where(count > 0, total / count, np.nan)
    return result


def limits(values: Array) -> tuple[float, float]:
    """Return what is shown black and white: ZScale's limits, or the extremes where these are the same."""
    import numpy as np
    from astropy.visualization import ZScaleInterval

    finite = values[np.isfinite(values)]
    if not finite.size:
        return math.nan, math.nan
    with np.errstate(all="ignore"):
        low, high = (float(limit) for limit in ZScaleInterval().get_limits(finite))
    return (low, high) if low < high else (float(finite.min()), float(finite.max()))


def stretch(values: Array, low: float, high: float) -> Array:
    """Return gray values, 0 to 255, on an asinh scale; gray all over where there is no range, black where no value."""
    import numpy as np
    from astropy.visualization import AsinhStretch

    if not low < high:
        return np.where(np.isfinite(values), _GRAY, 0).astype(np.uint8)
    with np.errstate(all="ignore"):
        # Halves, so that the range of the largest numbers is not infinite.
        unit = np.clip((values / 2 - low / 2) / (high / 2 - low / 2), 0, 1)
        gray: Array = np.nan_to_num(AsinhStretch()(unit) * 255).round().astype(np.uint8)
    return gray


def _scale_text(step_x: int, step_y: int) -> str:
    if step_x == step_y:
        return f"1/{step_x} of its size" if step_x > 1 else ""
    return f"1/{step_x} of its width, 1/{step_y} of its height"


def _limits_text(low: float, high: float) -> str:
    if math.isnan(low):
        return "no pixel has a value"
    return f"{low:.6g} (black) to {high:.6g} (white)" if low < high else f"{low:.6g} everywhere"
