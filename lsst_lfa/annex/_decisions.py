"""What to do next with a file: pure functions of what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from lsst_lfa import errors

if TYPE_CHECKING:
    from lsst_lfa._spool.record import IfExists, Record

__all__ = ["Found", "Outcome", "Pace", "Step", "Verdict", "concerns_all", "decide", "judge", "next_step"]

# These are not specific to one file: the next one would fail as well.
_COMMON: Final = (
    errors.AuthenticationError,
    errors.AccessDeniedError,
    errors.BucketNotFoundError,
    errors.ConfigurationError,
    errors.MissingCredentialsError,
    errors.QuotaExceededError,
    errors.RedirectRefusedError,
    errors.UnreachableError,
)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long an annex waits, in seconds.

    Attributes
    ----------
    first_pause, longest_pause : `float`
        After a failure that affects every file: at first, and at most.
    busy : `float`
        Until a file that has to wait for another one of this process is looked
        at again.
    locked : `float`
        Until a file that another process is working on is checked again.
    others : `float`
        Time for another component to send its own files.
    rescan : `float`
        Between two scans of the folder, and after trouble with the disk.
    event : `float`
        For an event to be sent.
    hour : `float`
        Between two logs of the same trouble, and the longest time between two
        attempts at a file that fails by itself.
    """

    first_pause: float = 1.0
    longest_pause: float = 60.0
    busy: float = 0.2
    locked: float = 5.0
    others: float = 30.0
    rescan: float = 60.0
    event: float = 5.0
    hour: float = 3600.0

    def pause_after(self, failures: int, spread: float) -> float:
        """Return the seconds to wait after so many failures in a row: 1, 2, ... 60; ``spread`` takes off up to half."""
        longest: float = min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 100))
        return longest * (1 - spread / 2)

    def pause_of_one(self, failures: int) -> float:
        """Return the seconds to wait after so many failures of one file alone."""
        longest: float = min(self.hour, self.rescan * 2.0 ** min(failures, 10))
        return longest


class Outcome(Enum):
    """The state of one of the two ways in which a file becomes safe: S3, and the spool."""

    PENDING = auto()
    DONE = auto()
    FAILED = auto()


class Verdict(Enum):
    """The outcome for a file that is being published."""

    WAIT = auto()
    STORED = auto()
    KEPT = auto()
    LOST = auto()


def decide(sent: Outcome, kept: Outcome, *, time_up: bool) -> Verdict:
    """Decide whether `publish` may return.

    Parameters
    ----------
    sent, kept : `Outcome`
        The states of S3 and of the spool.
    time_up : `bool`
        Whether the wait was long enough: for S3 if the spool has the file, or
        for the spool if S3 has it.
    """
    if sent is Outcome.DONE:
        return Verdict.WAIT if kept is Outcome.PENDING and not time_up else Verdict.STORED
    if kept is Outcome.DONE:
        return Verdict.KEPT if time_up or sent is Outcome.FAILED else Verdict.WAIT
    return Verdict.LOST if sent is kept is Outcome.FAILED else Verdict.WAIT


class Step(Enum):
    """The next step for a file in the spool."""

    ANNOUNCE = auto()
    SEND = auto()
    REMOVE = auto()
    LEAVE = auto()
    """Leave it to the process whose event announces it."""


def next_step(record: Record, *, ours: bool) -> Step:
    """Decide the next step for a file in the spool.

    Parameters
    ----------
    record : `Record`
        The contents of its sidecar.
    ours : `bool`
        Whether this process has the event that announces it.
    """
    if record.to_announce and ours and (record.stored or record.announce == "safe"):
        return Step.ANNOUNCE
    if not record.stored:
        return Step.SEND
    return Step.LEAVE if record.to_announce else Step.REMOVE


class Found(Enum):
    """What to do if the key may already exist."""

    SEND = auto()
    ALREADY_THERE = auto()
    NEXT_KEY = auto()
    REFUSE = auto()


def judge(*, exists: bool, same: bool, if_exists: IfExists) -> Found:
    """Decide whether a file is sent under a key.

    Parameters
    ----------
    exists : `bool`
        Whether the key exists.
    same : `bool`
        Whether the object has the same data.
    if_exists : {"keep", "overwrite", "error"}
        The publisher's choice.
    """
    if not exists or (if_exists == "overwrite" and not same):
        return Found.SEND
    if same:
        return Found.ALREADY_THERE
    return Found.NEXT_KEY if if_exists == "keep" else Found.REFUSE


def concerns_all(error: errors.LfaError) -> bool:
    """Return whether an error would affect every other file as well."""
    return error.transient or isinstance(error, _COMMON)
