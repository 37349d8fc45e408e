"""How transfers are configured."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from lsst_lfa import TransferConfig

MiB = 1024 * 1024


@pytest.mark.parametrize(
    "options",
    [
        {"part_size": 5 * MiB - 1},
        {"part_size": 6 * 1024 * MiB},
        {"memory_part_size": 6 * 1024 * MiB},
        {"memory_part_size": 0},
        {"multipart_threshold": -1},
        {"multipart_threshold": 6 * 1024 * MiB, "part_size": 5 * 1024 * MiB},  # more than S3 takes in one request
        {"range_size": 0},
        {"io_chunksize": 0},
        {"max_concurrency": 0},
        {"max_memory": 0},
        {"max_attempts": 0},
        {"stall_timeout": 0},
        {"retry_timeout": float("inf")},
        {"total_timeout": -1},
        {"total_timeout": float("nan")},
        {"integrity": "crc"},
    ],
)
def test_a_bad_configuration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TransferConfig(**options)


def test_a_configuration_shows_what_was_changed() -> None:
    assert repr(TransferConfig(part_size=8 * MiB)) == "TransferConfig(part_size=8388608)"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TransferConfig().part_size = 1  # type: ignore[misc]
