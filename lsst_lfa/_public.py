"""The mark of a public name: it says `lsst_lfa` of itself, wherever it is defined."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["public"]

T = TypeVar("T")


def public(found: T) -> T:
    """Mark a class or a function as one of ``lsst_lfa``: what a repr, a traceback and a pickle should say."""
    found.__module__ = "lsst_lfa"
    return found
