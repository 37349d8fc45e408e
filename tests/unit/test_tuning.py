"""The number of parallel requests, decided on simulated networks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lsst_lfa._transfer.tuning import Sample, Tuning, decide, initial

CEILING = 32


@dataclass
class Line:
    """A line: bytes per second for each connection and in all, and for how many a request of a processor is enough."""

    each: float
    total: float = float("inf")

    def rate(self, requests: int) -> float:
        return min(requests * self.each, self.total)


def run(line: Line, tuning: Tuning, seconds: float, begin: float = 0.0, epoch: float = 0.2) -> tuple[Tuning, list[int]]:
    """Let time pass, with enough to do for every request."""
    targets = []
    for number in range(round(seconds / epoch)):
        sample = Sample(begin + number * epoch, line.rate(tuning.target), tuning.target)
        tuning = decide(tuning, sample, CEILING)
        targets.append(tuning.target)
    return tuning, targets


@pytest.mark.parametrize(("latency", "target"), [(0.0, 3), (0.003, 3), (0.006, 8), (0.02, 8), (0.045, 32), (0.2, 32)])
def test_the_time_that_a_small_request_takes_tells_how_many_to_begin_with(latency: float, target: int) -> None:
    assert initial(latency, CEILING).target == target
    assert initial(latency, 2).target == 2


@pytest.mark.parametrize(
    ("line", "least", "most"),
    [
        (Line(25e6), 32, 32),  # each request brings as much as the first
        (Line(25e6, total=250e6), 8, 16),  # until the line, or the processor, has enough
        (Line(50e6, total=100e6), 2, 3),  # two are enough
        (Line(300e6, total=300e6), 1, 3),  # one would be
    ],
)
def test_as_many_as_the_line_rewards(line: Line, least: int, most: int) -> None:
    tuning, targets = run(line, initial(0.0, CEILING), 60)
    assert least <= tuning.known <= most
    assert line.rate(tuning.known) >= 0.9 * line.rate(CEILING)
    # What is tried, and does not pay, is tried ever more seldom.
    assert sum(target > most for target in targets[100:]) <= 0.1 * len(targets[100:])


def test_many_are_found_within_a_second() -> None:
    tuning, _ = run(Line(25e6), initial(0.0, CEILING), 1.0)
    assert tuning.target == CEILING


def test_a_line_that_changes_is_found_again_within_two_seconds() -> None:
    tuning, _ = run(Line(25e6, total=300e6), initial(0.0, CEILING), 10)
    tuning, _ = run(Line(5e6, total=300e6), tuning, 2, begin=10)
    assert tuning.target == CEILING
    tuning, _ = run(Line(100e6, total=300e6), tuning, 20, begin=12)
    assert tuning.known <= 16


def test_a_server_that_asks_for_less_gets_less_at_once() -> None:
    tuning = decide(Tuning(16, 16, 100e6), Sample(1.0, 100e6, 16, throttled=True), CEILING)
    assert tuning.target == tuning.known == 8
    assert decide(tuning, Sample(1.2, 50e6, 8), CEILING).target == 8, "and is not pressed at once"
    for _ in range(10):
        tuning = decide(tuning, Sample(1.4, 1e6, 8, throttled=True), CEILING)
    assert tuning.target == 1


def test_nothing_is_learnt_from_requests_that_are_not_there() -> None:
    tuning = Tuning(16, 16, 100e6)
    assert decide(tuning, Sample(1.0, 10e6, 2), CEILING) == tuning
    assert decide(Tuning(32, 16, 100e6), Sample(1.0, 10e6, 2), CEILING).target == 16


@pytest.mark.parametrize("ceiling", [1, 2, 5, 32])
def test_the_ceiling_holds(ceiling: int) -> None:
    tuning = initial(1.0, ceiling)
    for number in range(500):
        tuning = decide(tuning, Sample(number * 0.2, 1e6 * tuning.target, tuning.target), ceiling)
        assert 1 <= tuning.target <= ceiling
