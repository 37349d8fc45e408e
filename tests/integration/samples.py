"""Data to send: the same in every run."""

from __future__ import annotations

import functools
import hashlib

__all__ = ["MiB", "sample"]

MiB = 1024 * 1024
_SIZES = (64 * MiB, 256 * MiB, 512 * MiB)
_STEP = 9_973
"""Bytes between the beginnings of two samples."""


@functools.cache
def _noise(size: int) -> bytes:
    return hashlib.shake_128(b"lsst_lfa").digest(size)


def sample(size: int, number: int = 0) -> bytes:
    """Return so many bytes without a pattern; with another ``number`` they are others."""
    start = number * _STEP
    enough = next(each for each in _SIZES if each >= start + size)
    return _noise(enough)[start : start + size]
