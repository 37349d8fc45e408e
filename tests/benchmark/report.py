"""Medians, ratios and tables of what was measured; ``python -m tests.benchmark.report RESULTS`` prints them again."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .line import LOOPBACK
from .peers import BASELINE, FLOOR, OURS, fixed, is_ours
from .scenarios import RATES, phases, settled
from .target import CHANGES, DROPS, FILES, LARGE, MANY, SMALL, SMALL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["METRICS", "Metric", "Results", "Summary", "caption", "load", "overview", "report", "size_name", "table"]


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
    Metric("objects_per_s", "objects/s", 0, more_is_better=True),
    Metric("object_cpu_ms", "CPU ms per object", 2),
    Metric("latency_ms", "latency, ms", 2),
    Metric("iteration_cpu_ms", "longest turn, CPU ms", 1),
    Metric("peak_mib", "memory, MiB", 0),
    *(Metric(f"rate_{rate}", f"MB/s at {rate} each", 0, more_is_better=True) for rate in RATES),
    *(Metric(f"settled_{rate}", f"s until so at {rate}", 1) for rate in RATES),
    Metric("dropped", "connections dropped", 0),
    Metric("orphans", "uploads left behind", 0),
)
# No ratio of these means anything.
_NO_RATIO = [metric for metric in METRICS if metric.name.startswith(("dropped", "orphans", "settled"))]
_TABLES = {
    "Large objects; medians": (*LARGE, *FILES),
    "Small objects; medians": (*SMALL, *MANY),
    "A line that changes its rate: MB/s in the end, and seconds until within 10 % of the best of them": CHANGES,
    "A line that drops a connection each second": DROPS,
}
_RATIOS = f"This package over {BASELINE} / over the best peer / over its own best fixed number of requests"


class Summary(NamedTuple):
    """Median and bounds of one number over the runs."""

    median: float
    least: float
    most: float

    def format(self, digits: int) -> str:
        return f"{_number(self.median, digits)} ({_number(self.least, digits)}-{_number(self.most, digits)})"


@dataclass
class Results:
    """What was measured: one case of one size over one line, peer by peer, run after run."""

    case: str
    size: int
    line: str = LOOPBACK
    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, peer: str, measures: dict[str, Any]) -> None:
        self.runs.setdefault(peer, []).append(measures)

    @property
    def title(self) -> str:
        """What was measured, in words."""
        if self.case in _SMALL_TITLES:
            return f"{SMALL_SIZE // 1000} kB {_SMALL_TITLES[self.case]}"
        return f"{self.case.replace('-', ', ')} {size_name(self.size)}"

    def summary(self, peer: str, metric: Metric) -> Summary:
        values = [run[metric.name] for run in self.runs[peer]]
        return Summary(statistics.median(values), min(values), max(values))

    def metrics(self) -> list[Metric]:
        """Return the numbers that this case has."""
        names = next((run for runs in self.runs.values() for run in runs), {})
        return [metric for metric in METRICS if metric.name in names]

    def best(self, metric: Metric, peers: Iterable[str] | None = None) -> str | None:
        """Return the best of some peers; of all but this package and the floor by default."""
        if peers is None:
            peers = [peer for peer in self.runs if not is_ours(peer) and peer != FLOOR]
        pick = max if metric.more_is_better else min
        return pick(peers, key=lambda peer: self.summary(peer, metric).median, default=None)

    def ratio(self, metric: Metric, peer: str | None, ours: str = OURS) -> float:
        """Return the median of one of our modes over a peer's."""
        if peer is None or peer not in self.runs or ours not in self.runs:
            return math.nan
        other = self.summary(peer, metric).median
        return self.summary(ours, metric).median / other if other else math.nan

    def settle(self) -> None:
        """Tell when each run came close to the best rate that anybody had in a phase; see `scenarios.settled`."""
        if self.case not in CHANGES:
            return
        found = {peer: [list(phases(run["series"])) for run in runs] for peer, runs in self.runs.items()}
        for index, rate in enumerate(RATES):
            best = max((statistics.median(run[index].rate for run in runs) for runs in found.values()), default=0.0)
            for peer, runs in found.items():
                for measures, run in zip(self.runs[peer], runs, strict=True):
                    measures[f"rate_{rate}"] = run[index].rate / 1e6
                    measures[f"settled_{rate}"] = settled(run[index], best)

    def to_json(self) -> dict[str, Any]:
        summaries = {
            peer: {metric.name: self.summary(peer, metric)._asdict() for metric in self.metrics()} for peer in self.runs
        }
        return {
            "case": self.case,
            "size": self.size,
            "line": self.line,
            "runs": self.runs,
            "summaries": summaries,
            "failures": self.failures,
        }


_SMALL_TITLES = {
    "puts": "put, 16 at a time",
    "gets": "get, one at a time",
    "puts-1000": "put, 1,000 by one TaskGroup",
    "gets-1000": "get, 1,000 by one TaskGroup",
}


def load(path: Path) -> tuple[dict[str, Any], list[Results]]:
    """Read what was saved: about the run, and its results."""
    about = json.loads(path.read_text())
    names = ("case", "size", "line", "runs", "failures")
    saved = about.pop("results")
    return about, [Results(**{name: one[name] for name in names if name in one}) for one in saved]


def report(results: Sequence[Results]) -> str:
    """Return a table of what has been measured alike, over all lines, and the ratios below it."""
    parts: list[str] = []
    for result in results:
        result.settle()
    for title, cases in _TABLES.items():
        alike = [result for result in results if result.case in cases and (result.runs or result.failures)]
        metrics = [metric for metric in METRICS if any(metric in result.metrics() for result in alike)]
        if alike:
            titles = ["line", "what", "who", *(metric.title for metric in metrics)]
            parts.append(title)
            parts.append(table(titles, _blank_repeated(_rows(alike, metrics)), text_columns=3))
        rows = _blank_repeated(_ratio_rows(alike, [metric for metric in metrics if metric not in _NO_RATIO]))
        if rows:
            titles = ["line", "what", "who", *(metric.title for metric in metrics if metric not in _NO_RATIO)]
            parts.append(_RATIOS)
            parts.append(table(titles, rows, text_columns=3))
    return "\n\n".join(parts)


def _rows(results: Iterable[Results], metrics: Sequence[Metric]) -> Iterator[list[str]]:
    for result in results:
        for peer in {**result.runs, **result.failures}:
            cells = [_cell(result, peer, metric) for metric in metrics]
            if peer in result.runs and metrics[0] in result.metrics():
                cells[0] = result.summary(peer, metrics[0]).format(metrics[0].digits)
            yield [result.line, result.title, peer, *cells]


def _cell(result: Results, peer: str, metric: Metric) -> str:
    if peer not in result.runs:
        return "failed"
    if metric not in result.metrics():
        return ""
    return _number(result.summary(peer, metric).median, metric.digits)


def _ratio_rows(results: Iterable[Results], metrics: Sequence[Metric]) -> Iterator[list[str]]:
    for result in results:
        for peer in filter(is_ours, result.runs):
            cells = [_ratios(result, metric, peer) if metric in result.metrics() else "" for metric in metrics]
            if any(cells):
                yield [result.line, result.title, peer, *cells]


def _ratios(result: Results, metric: Metric, ours: str) -> str:
    """Compare one of our modes with the baseline, with the best peer, and with the best fixed number of requests."""
    bests = [result.best(metric)]
    if not fixed(ours):
        bests.append(result.best(metric, filter(fixed, result.runs)))
    ratios = [(result.ratio(metric, BASELINE, ours), "")]
    ratios += [(result.ratio(metric, best, ours), f" {best}") for best in bests]
    return " / ".join(f"{ratio:.2f}{name}" for ratio, name in ratios if not math.isnan(ratio))


def _number(value: float, digits: int) -> str:
    return "never" if math.isinf(value) else f"{value:.{digits}f}"


def _blank_repeated(rows: Iterable[list[str]]) -> list[list[str]]:
    """Leave out the line and the case where they are those of the row above."""
    blanked: list[list[str]] = []
    above = ["", ""]
    for line, what, *rest in rows:
        same = line == above[0]
        blanked.append(["" if same else line, "" if same and what == above[1] else what, *rest])
        above = [line, what]
    return blanked


def table(header: Iterable[str], rows: Iterable[Iterable[str]], *, text_columns: int = 1) -> str:
    """Return a table in Markdown, which can be read as it is: text to the left, numbers to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligns = ["<" if index < text_columns else ">" for index in range(len(widths))]
    rules = [f"{'':-<{width - 1}}{'-' if align == '<' else ':'}" for width, align in zip(widths, aligns, strict=True)]
    return "\n".join(
        f"| {' | '.join(f'{cell:{align}{width}}' for cell, align, width in zip(line, aligns, widths, strict=True))} |"
        for line in [lines[0], rules, *lines[1:]]
    )


def overview(results: Sequence[Results]) -> str:
    """Return one short table, peers side by side: of the largest objects, all on loopback, and rates over lines."""
    large = [result for result in results if result.case in (*LARGE, *FILES)]
    largest = max((result.size for result in large), default=0)
    shown = [result for result in results if result not in large or result.size == largest]
    peers = list(dict.fromkeys(peer for result in shown for peer in result.runs))
    rows = []
    for result in shown:
        on_loopback = result.line == LOOPBACK
        where = "" if on_loopback else f", {result.line}"
        for metric in result.metrics() if on_loopback else result.metrics()[:1]:
            medians = (
                _number(result.summary(peer, metric).median, metric.digits) if peer in result.runs else "-"
                for peer in peers
            )
            rows.append([f"{result.title}{where}: {metric.title}", *medians])
    return table(["", *peers], rows)


def size_name(size: int) -> str:
    """Write a number of bytes as `parse_size` reads it."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def caption(about: Mapping[str, Any]) -> str:
    """Say where and when it was measured."""
    machine = about["machine"]
    pinned = ", server and clients on one each" if about.get("pinned") else ""
    cores = f"{machine['cores']} cores, {machine['processor']}{pinned}"
    return f"{about['server']}, {about['scheme']}; {cores}; {about['date']}"


def main() -> None:
    import argparse

    from .options import say

    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("results", type=Path, help="JSON file that --output wrote")
    made.add_argument("--overview", action="store_true", help="one short table, peers side by side, as in the README")
    arguments = made.parse_args()
    about, results = load(arguments.results)
    say(f"{caption(about)}\n\n{overview(results) if arguments.overview else report(results)}")


if __name__ == "__main__":
    main()
