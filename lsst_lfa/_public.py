"""Marks public names, which report `lsst_lfa` as their module, wherever they are defined."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["public"]

T = TypeVar("T")


def public(found: T) -> T:
    """Mark a class or a function as belonging to ``lsst_lfa``, as a repr, a traceback and a pickle should say."""
    found.__module__ = "lsst_lfa"
    return found
