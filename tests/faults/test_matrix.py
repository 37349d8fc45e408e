"""Every row of the matrix holds, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lsst_lfa.errors import LfaError

from .guide import ELSEWHERE, GUIDE, with_table
from .harness import BUCKET, CONFIG, KEY, Harness, open_harness
from .hosts import Trap
from .matrix import LIST, ROWS, STALE, Row, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fast_clock

NOISE = 4.0
"""Seconds that a busy machine may add to what a row promises."""


def cases() -> Iterator[Any]:
    for row in ROWS:
        for step in row.where:
            yield pytest.param(row, step, id=f"{step}: {row.fault}")


@pytest.mark.parametrize(("row", "step"), list(cases()))
async def test_row(row: Row, step: Step, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = replace(CONFIG, **row.config)
    async with AsyncExitStack() as stack:
        forbidden = stack.enter_context(Trap())
        host = stack.enter_context(row.host()) if row.host is not None else None
        endpoint_url = host.endpoint_url if host is not None else None
        harness = await stack.enter_async_context(
            open_harness(tmp_path, endpoint_url=endpoint_url, tampers=row.tampers, config=config)
        )
        harness.server.script(row.script(step, forbidden.endpoint_url))
        seconds, error = await play(row, step, harness)
        assert type(error) is (row.raises or type(None)), error
        assert seconds < row.within.seconds(config) + config.cleanup_timeout * row.asks(step) + NOISE
        if isinstance(error, LfaError):
            check_words(row, step, str(error))
        harness.check_counts()
        harness.check_folder(harness.destination.read_bytes())
        await check_uploads(row, harness, caplog.text)
        assert not any(forbidden.heard)


async def play(row: Row, step: Step, harness: Harness) -> tuple[float, BaseException | None]:
    """Let the user do it; return the seconds it took, from the interruption on if there is one, and its error."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if row.interrupted is None:
        error = await outcome(step.act(harness))
        return loop.time() - began, error
    limit = asyncio.timeout(None)

    async def user() -> None:
        async with limit:
            await step.act(harness)

    task = asyncio.create_task(user())
    while not harness.server.calls(step.operation):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    began = loop.time()
    if row.interrupted == "cancel":
        task.cancel()
    else:
        limit.reschedule(began)
    error = await outcome(task)
    return loop.time() - began, error


async def outcome(work: Any) -> BaseException | None:
    try:
        await work
    except AssertionError:
        raise
    except BaseException as error:  # noqa: BLE001 - cancellations too
        return error
    return None


def check_words(row: Row, step: Step, message: str) -> None:
    """Assert that an error's message names bucket, key and cause."""
    assert BUCKET in message
    assert KEY in message or step in (LIST, STALE)
    assert row.says in message


async def check_uploads(row: Row, harness: Harness, log: str) -> None:
    """Assert that no multipart upload is left, but for those that are known to be."""
    if row.left == "stale":
        assert len(harness.server.uploads) == 1
        assert await harness.bucket.abort_stale_uploads(-5) == 1
    if row.left == "logged":
        assert all(upload_id in log for upload_id in harness.server.uploads)
        return
    assert not harness.server.uploads


def test_the_guide_has_the_table() -> None:
    text = GUIDE.read_text()
    assert with_table(text) == text, "write it anew: python -m tests.faults.guide"


def test_a_page_without_marks_has_no_place_for_the_table() -> None:
    with pytest.raises(ValueError, match="faults:begin"):
        with_table("no marks")


def test_the_guide_speaks_of_tests_that_exist() -> None:
    here = Path(__file__).parent
    for module, name in (test.split(".") for line in ELSEWHERE for test in line.tests):
        assert f"def {name}(" in (here / f"{module}.py").read_text()
