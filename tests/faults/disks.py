"""A disk of a test's own, which can be full, or read-only."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["make_read_only", "mounted_disk"]


@contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory on a new folder; where that is not allowed, the test is skipped.

    Mounting takes root: who is not has the other tests of full disks, which need no mount. It is an error if a file on
    the disk is still open in the end.
    """
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def make_read_only(folder: Path) -> None:
    """Let nothing on a mounted disk be changed any more."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
