"""Medians, ratios and tables of what was measured."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .peers import BASELINE, FLOOR, OURS
from .target import SMALL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["METRICS", "Metric", "Results", "Summary", "caption", "size_name", "table"]


class Metric(NamedTuple):
    """One number of a measurement."""

    name: str
    title: str
    digits: int
    more_is_better: bool = False


METRICS = (
    Metric("mb_per_s", "MB/s", 0, more_is_better=True),
    Metric("cpu_s_per_gb", "client CPU, s/GB", 2),
    Metric("stall_max_ms", "longest stall, ms", 1),
    Metric("stall_p99_ms", "p99 stall, ms", 1),
    Metric("iteration_cpu_ms", "longest iteration, CPU ms", 1),
    Metric("peak_mib", "memory over the start, MiB", 0),
    Metric("put_cpu_ms", "CPU ms per put", 2),
    Metric("puts_per_s", "puts/s", 0, more_is_better=True),
    Metric("get_ms", "latency of a get, ms", 2),
    Metric("get_cpu_ms", "CPU ms per get", 2),
)


class Summary(NamedTuple):
    """Median and bounds of one number over the runs."""

    median: float
    least: float
    most: float

    def format(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


@dataclass
class Results:
    """What was measured: one case of one size, peer by peer, run after run."""

    case: str
    size: int
    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, peer: str, measures: dict[str, float]) -> None:
        self.runs.setdefault(peer, []).append(measures)

    @property
    def title(self) -> str:
        """What was measured, in words."""
        small = {"puts": "put, 16 at a time", "gets": "get, one at a time"}
        if self.case in small:
            return f"{SMALL_SIZE // 1000} kB {small[self.case]}"
        return f"{self.case} {size_name(self.size)}"

    def summary(self, peer: str, metric: Metric) -> Summary:
        values = [run[metric.name] for run in self.runs[peer]]
        return Summary(statistics.median(values), min(values), max(values))

    def metrics(self) -> list[Metric]:
        """Return the numbers that this case has."""
        names = next((run for runs in self.runs.values() for run in runs), {})
        return [metric for metric in METRICS if metric.name in names]

    def best(self, metric: Metric) -> str | None:
        """Return the best of the peers, neither this package nor the floor."""
        peers = [peer for peer in self.runs if peer not in {OURS, FLOOR}]
        pick = max if metric.more_is_better else min
        return pick(peers, key=lambda peer: self.summary(peer, metric).median, default=None)

    def ratio(self, metric: Metric, peer: str | None) -> float:
        """Return this package's median over a peer's."""
        if peer is None or peer not in self.runs or OURS not in self.runs:
            return math.nan
        other = self.summary(peer, metric).median
        return self.summary(OURS, metric).median / other if other else math.nan

    def to_json(self) -> dict[str, Any]:
        summaries = {
            peer: {metric.name: self.summary(peer, metric)._asdict() for metric in self.metrics()} for peer in self.runs
        }
        return {
            "case": self.case,
            "size": self.size,
            "runs": self.runs,
            "summaries": summaries,
            "failures": self.failures,
        }

    def markdown(self) -> str:
        """Return the table of all peers, and that of the ratios."""
        metrics = self.metrics()
        rows = [[peer, *(self.summary(peer, metric).format(metric.digits) for metric in metrics)] for peer in self.runs]
        rows += [[peer, *("failed" for _ in metrics)] for peer in self.failures if peer not in self.runs]
        parts = [f"### {self.title}", table(["median (min-max)", *(metric.title for metric in metrics)], rows)]
        if OURS in self.runs:
            parts.append(table(_RATIO_HEADER, self._ratio_rows()))
        return "\n\n".join(parts)

    def _ratio_rows(self) -> Iterator[list[str]]:
        for metric in self.metrics():
            best = self.best(metric)
            others = (BASELINE, best, FLOOR)
            ratios = [_ratio_text(self.ratio(metric, peer)) for peer in others]
            ratios[1] += f" ({best})" if best else ""
            yield [metric.title, *ratios]


_RATIO_HEADER = ("this package over", BASELINE, "the best peer", FLOOR)


def _ratio_text(ratio: float) -> str:
    return "-" if math.isnan(ratio) else f"{ratio:.2f}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    titles = list(header)
    lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def size_name(size: int) -> str:
    """Write a number of bytes as `parse_size` reads it."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def caption(about: Mapping[str, Any]) -> str:
    """Say where and when it was measured."""
    machine = about["machine"]
    return f"{about['server']}, {about['scheme']}; {machine['cores']} cores, {machine['processor']}; {about['date']}"
