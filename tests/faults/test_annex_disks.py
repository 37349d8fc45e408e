"""Real file systems: one that is full, one that is read-only; and what a clock does."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import errors
from lsst_lfa._spool.record import parse_sidecar

from .annex_harness import DOWN, open_annex_harness
from .disks import make_read_only, mounted_disk
from .harness import LARGE

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_disk_that_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mounted_disk(tmp_path / "disk", "4m") as disk:
        async with open_annex_harness(tmp_path) as harness:
            harness.annex = harness.another(spool=disk)
            harness.folder = disk
            with caplog.at_level(logging.WARNING):
                assert (await harness.annex.publish(LARGE, generator="image", key="large")).stored
            assert "No space left on device" in caplog.text
            assert "dies with the container" in caplog.text
            harness.server.script(DOWN)
            assert not (await harness.annex.publish(b"small", generator="image", key="small")).stored
            with pytest.raises(errors.NotStoredError, match=r"503.*No space left on device"):
                await harness.annex.publish(LARGE, generator="image", key="lost")
            (disk / "others").write_bytes(bytes(4 * 1024 * 1024 - 64 * 1024))
            harness.server.script()
            assert await harness.annex.wait_stored(10)
            (disk / "others").unlink()
            harness.check(2)


async def test_a_disk_that_is_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mounted_disk(tmp_path / "disk", "4m") as disk:
        make_read_only(disk)
        async with open_annex_harness(tmp_path) as harness:
            harness.annex = harness.another(spool=disk)
            with caplog.at_level(logging.WARNING):
                assert (await harness.annex.publish(b"1", generator="image", key="1")).stored
            assert "Read-only file system" in caplog.text
            harness.server.script(DOWN)
            with pytest.raises(errors.NotStoredError, match=r"503.*Read-only file system"):
                await harness.annex.publish(b"2", generator="image", key="2")


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
async def test_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """By thirty years; what is published later comes later all the same, and all is sent."""
    real, seconds = time.time_ns, time.time
    async with open_annex_harness(tmp_path) as harness:
        harness.server.script(DOWN)
        await harness.annex.publish(b"1", generator="image", key="1", id="1")
        await harness.annex.aclose()
        monkeypatch.setattr(time, "time_ns", lambda: real() + jump * 10**9)
        monkeypatch.setattr(time, "time", lambda: seconds() + jump)
        harness.annex = harness.another()
        await harness.annex.publish(b"2", generator="image", key="2", id="2")
        monkeypatch.undo()
        await harness.annex.publish(b"3", generator="image", key="3", id="3")
        sidecars = [name for name in harness.files() if name.endswith(".jsonl")]
        records = [parse_sidecar((harness.folder / name).read_bytes()) for name in sidecars]
        assert [each.key for each in sorted(records, key=lambda each: each.sequence)] == ["1", "2", "3"]
        harness.server.script()
        assert await harness.annex.wait_stored(10)
        assert harness.topic.ids == ["1", "2", "3"]
        harness.check(3)
