"""Durations as people write them, and times as they read them. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

__all__ = ["age_text", "parse_duration"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", re.ASCII)
_LONGEST: Final = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Read a duration: ``90s``, ``15m``, ``36h``, ``7d``, ``2w``.

    Raises
    ------
    ValueError
        If it is not one, or longer than a century.
    """
    match = _FORM.fullmatch(text.lower())
    seconds = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if not 0 <= seconds <= _LONGEST.total_seconds():
        msg = f"{text!r} is not a duration: write 90s, 15m, 36h, 7d or 2w"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def age_text(age: timedelta) -> str:
    """Return a duration in its largest unit: ``3 d``."""
    seconds = max(age.total_seconds(), 0.0)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.{1 if seconds < 10 * unit else 0}f} {name}"
    return f"{seconds:.0f} s"
