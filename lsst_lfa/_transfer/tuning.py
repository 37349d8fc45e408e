"""Chooses the number of parallel requests from the measured throughput. No I/O.

If a network has a delay, or limits each connection, one request leaves most of
it idle, and more parallel requests help. If the total, or the processor, is
the limit, more requests only cost memory and turns of the event loop. Only
trying shows which is the case: so from time to time twice as many are tried,
and kept if the rate grows by at least half of what it should; or three
quarters as many, and kept if the rate stays about the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Sample", "Tuning", "decide", "initial"]

# Requests to start with, by the shortest time of a small request, in seconds.
_BEGIN = ((0.030, 32), (0.004, 8), (0.0, 3))
# A step is kept if it brings this part of the expected gain.
_WORTH = 0.5
# Fewer requests are kept if they bring this part of the rate.
_AS_GOOD = 0.95
# A rate that differs by more than this, with as many requests as before, means that the network has changed.
_CHANGED = 0.35
_FIRST_HOLD = 2.0
_LONGEST_HOLD = 32.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements since the last decision.

    Attributes
    ----------
    time : `float`
        When, in seconds of the event loop.
    rate : `float`
        Bytes per second, of all requests together.
    busy : `float`
        The average number of requests in progress.
    throttled : `bool`
        Whether the server asked us to slow down.
    """

    time: float
    rate: float
    busy: float
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class Tuning:
    """The last decision, and what is known.

    Attributes
    ----------
    target : `int`
        Requests that may run in parallel.
    known : `int`
        The number of requests that is known to be worth it.
    rate : `float`
        Bytes per second with that number; 0 if not known yet.
    hold : `float`
        Seconds until the next try.
    next_try : `float`
        The time of the next try, in seconds of the event loop.
    fewer : `bool`
        Whether to try fewer requests the next time, not more.
    """

    target: int
    known: int
    rate: float = 0.0
    hold: float = _FIRST_HOLD
    next_try: float = 0.0
    fewer: bool = False


def initial(latency: float, ceiling: int) -> Tuning:
    """Decide how many requests to start with, from the time of a small one, in seconds."""
    target = next(count for least, count in _BEGIN if latency >= least)
    return Tuning(min(target, ceiling), min(target, ceiling))


def decide(tuning: Tuning, sample: Sample, ceiling: int) -> Tuning:
    """Decide how many requests may run in parallel from now on."""
    if sample.throttled:
        target = max(1, tuning.target // 2)
        return Tuning(target, target, hold=tuning.hold, next_try=sample.time + tuning.hold)
    if sample.busy < 0.75 * tuning.target:
        # The number is not the limit, so nothing can be learnt.
        return replace(tuning, target=tuning.known)
    if tuning.target > tuning.known:
        return _judge_more(tuning, sample, ceiling)
    if tuning.target < tuning.known:
        return _judge_fewer(tuning, sample)
    return _watch(tuning, sample, ceiling)


def _watch(tuning: Tuning, sample: Sample, ceiling: int) -> Tuning:
    """Continue as before, or try something."""
    if not tuning.rate:
        tuning = replace(tuning, rate=sample.rate)
    elif abs(sample.rate / tuning.rate - 1) > _CHANGED:
        tuning = replace(tuning, rate=sample.rate, hold=_FIRST_HOLD, next_try=sample.time, fewer=False)
    else:
        tuning = replace(tuning, rate=(3 * tuning.rate + sample.rate) / 4)
    if sample.time < tuning.next_try:
        return tuning
    if tuning.fewer or tuning.known >= ceiling:
        return replace(tuning, target=max(1, (3 * tuning.known) // 4))
    return replace(tuning, target=min(2 * tuning.known, ceiling))


def _judge_more(tuning: Tuning, sample: Sample, ceiling: int) -> Tuning:
    promised = tuning.target / tuning.known - 1
    if sample.rate < tuning.rate * (1 + _WORTH * promised):
        return _give_up(tuning, sample, fewer=True)
    more = min(2 * tuning.target, ceiling)
    return Tuning(more, tuning.target, sample.rate, _FIRST_HOLD, sample.time + _FIRST_HOLD)


def _judge_fewer(tuning: Tuning, sample: Sample) -> Tuning:
    if sample.rate < _AS_GOOD * tuning.rate:
        return _give_up(tuning, sample, fewer=False)
    fewer = max(1, (3 * tuning.target) // 4)
    return replace(tuning, target=fewer, known=tuning.target, rate=max(sample.rate, tuning.rate * _AS_GOOD))


def _give_up(tuning: Tuning, sample: Sample, *, fewer: bool) -> Tuning:
    """Go back to the known number, and try the other direction the next time, later."""
    hold = min(2 * tuning.hold, _LONGEST_HOLD)
    return replace(tuning, target=tuning.known, hold=hold, next_try=sample.time + tuning.hold, fewer=fewer)
