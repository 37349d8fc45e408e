"""This package as one of the peers, by its defaults or in another mode."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["fix_lanes", "ours"]


def fix_lanes(count: int) -> None:
    """Keep so many requests under way from the start, whatever is measured; in this process, for good."""
    lanes = vars(import_module("lsst_lfa._transfer.lanes"))
    tuning = import_module("lsst_lfa._transfer.tuning").Tuning(count, count)
    if not {"initial", "decide"} <= lanes.keys():
        message = "lanes decide in another way than this knows how to fix"
        raise LookupError(message)
    lanes["initial"] = lanes["decide"] = lambda *_: tuning


@asynccontextmanager
async def ours(target: Any, config: Mapping[str, Any]) -> AsyncIterator[Any]:
    """Open a bucket, with arguments of `TransferConfig`; ``max_concurrency`` is how many, not how many at the most."""
    lsst_lfa = import_module("lsst_lfa")
    limits = {}
    if "max_concurrency" in config:
        fix_lanes(config["max_concurrency"])
        limits["max_connections"] = config["max_concurrency"]  # which small objects are limited by
    async with (
        lsst_lfa.S3Session(config=lsst_lfa.TransferConfig(**config), **limits) as session,
        session.bucket(target.bucket) as bucket,
    ):
        yield bucket
