"""What to do next with a file: tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from lsst_lfa import errors
from lsst_lfa._spool import Record
from lsst_lfa.annex._decisions import (
    Found,
    Outcome,
    Pace,
    Step,
    Verdict,
    concerns_all,
    decide,
    judge,
    next_step,
)

P, D, F = Outcome.PENDING, Outcome.DONE, Outcome.FAILED


@pytest.mark.parametrize(
    ("sent", "kept", "before", "after"),
    [
        (P, P, Verdict.WAIT, Verdict.WAIT),
        (P, D, Verdict.WAIT, Verdict.KEPT),
        (P, F, Verdict.WAIT, Verdict.WAIT),
        (D, P, Verdict.WAIT, Verdict.STORED),
        (D, D, Verdict.STORED, Verdict.STORED),
        (D, F, Verdict.STORED, Verdict.STORED),
        (F, P, Verdict.WAIT, Verdict.WAIT),
        (F, D, Verdict.KEPT, Verdict.KEPT),
        (F, F, Verdict.LOST, Verdict.LOST),
    ],
)
def test_when_publish_may_return(sent: Outcome, kept: Outcome, before: Verdict, after: Verdict) -> None:
    assert decide(sent, kept, time_up=False) is before
    assert decide(sent, kept, time_up=True) is after


RECORD = Record(bucket="b", key="k", component="c", sequence=1, byte_size=1, safe=True)


@pytest.mark.parametrize(
    ("announce", "announced", "stored", "ours", "others"),
    [
        ("safe", False, False, Step.ANNOUNCE, Step.SEND),
        ("safe", True, False, Step.SEND, Step.SEND),
        ("safe", False, True, Step.ANNOUNCE, Step.LEAVE),
        ("safe", True, True, Step.REMOVE, Step.REMOVE),
        ("stored", False, False, Step.SEND, Step.SEND),
        ("stored", False, True, Step.ANNOUNCE, Step.LEAVE),
        ("stored", True, True, Step.REMOVE, Step.REMOVE),
        ("never", False, False, Step.SEND, Step.SEND),
        ("never", False, True, Step.REMOVE, Step.REMOVE),
    ],
)
def test_next_steps(announce: str, announced: bool, stored: bool, ours: Step, others: Step) -> None:
    record = replace(RECORD, announce=announce, announced=announced, stored=stored)  # type: ignore[arg-type]
    assert next_step(record, ours=True) is ours
    assert next_step(record, ours=False) is others


@pytest.mark.parametrize(
    ("exists", "same", "keep", "overwrite", "error"),
    [
        (False, False, Found.SEND, Found.SEND, Found.SEND),
        (True, True, Found.ALREADY_THERE, Found.ALREADY_THERE, Found.ALREADY_THERE),
        (True, False, Found.NEXT_KEY, Found.SEND, Found.REFUSE),
    ],
)
def test_objects_that_have_the_key(exists: bool, same: bool, keep: Found, overwrite: Found, error: Found) -> None:
    assert judge(exists=exists, same=same, if_exists="keep") is keep
    assert judge(exists=exists, same=same, if_exists="overwrite") is overwrite
    assert judge(exists=exists, same=same, if_exists="error") is error


def test_errors_that_would_meet_every_file() -> None:
    everyones = [
        errors.UnreachableError("x"),
        errors.MissingCredentialsError("x"),
        *(
            kind("x", {}, "PutObject")
            for kind in (errors.QuotaExceededError, errors.BucketNotFoundError, errors.AccessDeniedError)
        ),
    ]
    assert all(concerns_all(error) for error in everyones)
    transient = errors.ProtocolError("x")
    assert not concerns_all(transient)
    transient.transient = True
    assert concerns_all(transient)
    assert not concerns_all(errors.TooLargeError("x", {}, "PutObject"))


def test_pauses_double_up_to_a_minute_with_jitter() -> None:
    pace = Pace()
    assert [pace.pause_after(n, 0.0) for n in (1, 2, 3, 6, 7, 100000)] == [1, 2, 4, 32, 60, 60]
    for failures, spread in product((1, 5, 20), (0.0, 0.3, 1.0)):
        longest = pace.pause_after(failures, 0.0)
        assert longest / 2 <= pace.pause_after(failures, spread) <= longest
