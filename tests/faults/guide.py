"""The matrix as the guide shows it; ``python -m tests.faults.guide`` regenerates it there."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .matrix import (
    ALL,
    BODIES_UP,
    COMPLETE,
    CREATE,
    DELETE,
    DOWN,
    GET,
    HEAD,
    LIST,
    PART,
    PUT,
    ROWS,
    SOME,
    STALE,
    UP,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .matrix import Row

GUIDE = Path(__file__).parents[2] / "examples" / "guarantees_and_faults.md"
_BEGIN, _END = "<!-- faults:begin -->", "<!-- faults:end -->"

_NAMES = {
    ALL: "every request",
    UP: "every request of `upload`",
    DOWN: "`download`, `download_file`, `stream`",
    (*UP, *DOWN): "every request of a transfer",
    (*UP, *DOWN, LIST, DELETE, STALE): "every request but HEAD",
    BODIES_UP: "`upload`, in one request or in parts",
    SOME: "`upload`, `download`, `head`",
    (*SOME, LIST): "`upload`, `download`, `head`, `list`",
    (*SOME, COMPLETE): "`upload`, `download`, `head`",
    (*UP, *DOWN, HEAD, LIST, STALE): "every request but `delete`",
    (PUT, PART, GET): "`upload`, `download`",
    (COMPLETE,): "`upload` in parts: complete",
    (PUT, COMPLETE): "`upload`; in parts: complete",
    (PUT, COMPLETE, DELETE): "`upload`; in parts: complete; `delete`",
    (CREATE, COMPLETE, LIST): "`upload` in parts: begin, complete; `list`",
    (CREATE,): "`upload` in parts: begin",
    (PART,): "`upload` in parts: a part",
}


class Elsewhere(NamedTuple):
    """A fault whose test is not a row of the matrix: its description, and the names of its tests."""

    fault: str
    where: str
    outcome: str
    within: str
    tests: tuple[str, ...]


_CANCELLED = "`2 * cleanup_timeout`"

ELSEWHERE = (
    Elsewhere("garbage: any status, header, length, time, XML or listing", "every operation",
              "an `LfaError` of one short line, or the right data", "retries",
              ("test_any_response.test_each_response_to_each_verb",)),
    Elsewhere("a body without a length", "`download`, `download_file`, `stream`", "succeeds", "-",
              ("test_any_response.test_a_chunked_download_is_all_of_it",)),
    Elsewhere("a listing that repeats itself", "`list`", "`ProtocolError`", "at once",
              ("test_any_response.test_a_listing_that_runs_in_a_circle_ends",)),
    Elsewhere("an error with an endless body", "every request", "its error; 64 KiB are read", "retries",
              ("test_any_response.test_of_an_error_only_the_beginning_is_read",)),
    Elsewhere("a range whose length, framing or coding is not what was requested, always", "every download",
              "`ProtocolError`", "retries", ("test_wrong_ranges.test_a_lie_is_an_error",)),
    Elsewhere("a range whose length, framing or coding is not what was requested, once", "every download", "succeeds",
              "retries", ("test_wrong_ranges.test_a_lapse_is_made_good",)),
    Elsewhere("a response that nobody requested, on a connection that is kept open", "every request",
              "succeeds; it is not taken for the next one", "-",
              ("test_unasked.test_a_response_that_nobody_asked_for_is_not_the_next_requests",)),
    Elsewhere("white space before the response, while the server joins the parts", "`upload` in parts: complete",
              "succeeds, or the error that follows", "10 minutes",
              ("test_completion.test_white_space_says_that_the_server_is_at_work",
               "test_completion.test_white_space_and_then_an_error",
               "test_completion.test_white_space_for_ever_is_a_timeout")),
    Elsewhere("the object is replaced between two reads", "`open`, `read`, `fits_headers`", "`ObjectChangedError`",
              "at once", ("test_partial_reads.test_a_replaced_object_is_never_mixed",)),
    Elsewhere("somebody else stores an object with this key meanwhile", "`upload(if_none_match=True)`",
              "`KeyExistsError`; theirs is not replaced", "at once",
              ("test_conditional_uploads.test_somebody_else_in_between_is_not_replaced",
               "test_conditional_uploads.test_somebody_else_after_a_failed_attempt_is_not_replaced",
               "test_conditional_uploads.test_the_same_bytes_by_somebody_else_are_not_ours")),
    Elsewhere("done, but the response is lost", "`upload(if_none_match=True)`", "succeeds; HEAD compares", "retries",
              ("test_conditional_uploads.test_a_lost_response_is_success_when_the_object_is_ours",)),
    Elsewhere("the owner refills or frees the memory as soon as the upload has ended, however it ended", "`upload`",
              "the object is one state of the memory, or absent", "-",
              ("test_memory.test_what_is_stored_is_one_frame_and_nobody_has_a_view",)),
    Elsewhere("every thread of the loop's default executor waits for a transfer", "`upload`, `download_file`",
              "succeeds", "-",
              ("test_threads.test_a_default_executor_full_of_jobs_that_wait_for_uploads",
               "test_threads.test_a_default_executor_full_of_jobs_that_wait_for_downloads")),
    Elsewhere("a limit of `asyncio` or `anyio` is reached", "every request",
              "the limit's own error", _CANCELLED,
              ("test_cancellation.test_whoever_set_a_limit_recognises_it",)),
    Elsewhere("cancelled in the source, a thread, the disk's flush, or at any random moment", "every transfer",
              "`CancelledError`; nothing is left", _CANCELLED,
              ("test_cancellation.test_while_the_source_is_silent", "test_cancellation.test_at_random_moments",
               "test_cancellation.test_while_a_thread_works_on_a_file")),
    Elsewhere("cancelled repeatedly, also during clean-up", "`upload` in parts",
              "`CancelledError`; an upload that could not be aborted is logged", _CANCELLED,
              ("test_cancellation.test_again_in_the_abort",)),
    Elsewhere("the abort fails, always", "`upload` in parts", "the original error; the upload's ID is logged",
              "`cleanup_timeout`", ("test_cancellation.test_an_abort_that_fails_is_logged",)),
    Elsewhere("a part arrives after the abort", "`upload` in parts", "aborted again, until it is gone",
              "`cleanup_timeout`", ("test_cancellation.test_an_abort_is_repeated_until_the_upload_is_gone",)),
    Elsewhere("anything that takes longer than `total_timeout`", "every transfer", "`TransferTimeoutError`",
              "`total_timeout + 2 * cleanup_timeout`",
              ("test_cancellation.test_a_deadline_bounds_the_whole_transfer",)),
    Elsewhere("closed during a transfer", "every transfer", "`ClosedError`", "`2 * cleanup_timeout`",
              ("test_crowds.test_closed_in_mid_transfer", "test_crowds.test_closed_in_mid_stream")),
    Elsewhere("the disk fails as a network does (`ETIMEDOUT`, `ECONNRESET`, `EPIPE`)", "`download_file`",
              "the disk's own error; no retry", "at once", ("test_disk.test_the_disks_errors_are_the_disks",)),
    Elsewhere("the source grows, shrinks, ends early or yields too much", "`upload`", "`SourceChangedError`", "at once",
              ("test_faulty_sources.test_a_file_changes", "test_faulty_sources.test_a_file_object_fails")),
    Elsewhere("the source is replaced by another file", "`upload` of a path", "succeeds, with the file that was opened",
              "-", ("test_faulty_sources.test_a_file_is_replaced",)),
    Elsewhere("the source raises, or yields something other than bytes", "`upload`", "its own error, or `TypeError`",
              "at once",
              ("test_faulty_sources.test_a_file_object_fails", "test_faulty_sources.test_an_iterator_raises")),
    Elsewhere("the disk is full or read-only, the folder is missing, the destination is a directory or a FIFO",
              "`download_file`", "`OSError`; the destination is unchanged", "at once",
              ("test_disk.test_a_full_disk", "test_disk.test_a_limit", "test_disk.test_a_read_only_disk",
               "test_disk.test_no_such_folder", "test_disk.test_the_destination_is_a_directory",
               "test_disk.test_the_destination_is_a_fifo")),
    Elsewhere("a key or a symbolic link leads outside the folder", "`download_file(directory=...)`", "`ValueError`",
              "at once", ("test_disk.test_a_key_is_led_out_of_the_folder", "test_disk.test_a_key_that_climbs")),
    Elsewhere("the callback raises", "every transfer", "its own error; nothing is left", "at once",
              ("test_callbacks.test_it_raises",)),
    Elsewhere("the callback cancels its task", "every transfer", "`CancelledError`; nothing is left", _CANCELLED,
              ("test_callbacks.test_it_cancels_its_own_task",)),
    Elsewhere("the process is killed", "`upload`", "no object, or the whole one; `abort_stale_uploads` finds the rest",
              "-", ("test_kills.test_in_mid_upload",)),
    Elsewhere("the process is killed", "`download_file`",
              "the old file, or the whole new one; a `.lfa-*.part` file may be left where the file system has no "
              "unnamed files (`O_TMPFILE`)", "-",
              ("test_kills.test_in_mid_download",)),
    Elsewhere("1,000 transfers at once", "`upload`, `download`", "succeeds, on `max_connections` connections", "-",
              ("test_crowds.test_a_thousand_uploads_and_downloads", "test_crowds.test_a_thousand_through_faults")),
    Elsewhere("two uploads to one key", "`upload`", "succeeds; the object is one of them, whole", "-",
              ("test_crowds.test_two_uploads_to_one_key",)),
    Elsewhere("used in a second event loop while the first runs", "everything", "`RuntimeError`", "at once",
              ("test_crowds.test_two_loops_in_two_threads",)),
    Elsewhere("the process forks after use", "everything", "succeeds, in both", "-",
              ("test_crowds.test_a_fork_after_use",)),
)  # fmt: skip

_TIMES = ("once", "twice", "three times", "always")


def _subject(row: Row) -> tuple[str, str]:
    """Return a row's fault, and how often it happens if that makes a difference."""
    fault, comma, times = row.fault.rpartition(", ")
    return (fault, times) if comma and times in _TIMES else (row.fault, "")


def _outcome(row: Row) -> str:
    outcome = "succeeds" if row.raises is None else f"`{row.raises.__name__}`"
    return f"{outcome} ({row.remark})" if row.remark else outcome


def _lines() -> Iterator[tuple[str, str, str, str]]:
    """Iterate over the table's lines; a fault that happens sometimes, and one that happens always, share a line."""
    for (fault, where), found in groupby(ROWS, lambda row: (_subject(row)[0], row.where)):
        rows = list(found)
        outcomes = [f"{_subject(row)[1]}: {_outcome(row)}".removeprefix(": ") for row in rows]
        words = _NAMES.get(where) or ", ".join(dict.fromkeys(step.words for step in where))
        yield fault, words, "; ".join(outcomes), rows[-1].within.words
    for other in ELSEWHERE:
        yield other[:4]


def markdown() -> str:
    """Return the table."""
    lines = ["| Fault | In | What happens | Within |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in _lines()]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return a page with the table between its marks, replacing the old one."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        msg = f"there is no place for the table: it goes between {_BEGIN} and {_END}"
        raise ValueError(msg)
    return f"{before}{begin}\n{markdown()}\n{end}{after}"


if __name__ == "__main__":
    GUIDE.write_text(with_table(GUIDE.read_text()))
