"""One picture of the results; ``python -m tests.benchmark.picture RESULTS PICTURE`` draws what was saved.

A row for each direction: the rate on loopback and over each line, then CPU and stalls on loopback.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .line import LOOPBACK
from .peers import FLOOR, is_ours
from .report import METRICS, Metric, Results, caption, load
from .target import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["draw", "panels"]

_RATE, *_OTHERS = (metric for metric in METRICS if metric.name in {"mb_per_s", "cpu_s_per_gb", "stall_max_ms"})
_OUR_COLOUR = "#0b6e4f"
_FLOOR_COLOUR = "#d5d5d5"
_PEER_COLOUR = "#8fa8bf"
_INK = "#333333"


def panels(results: Iterable[Results]) -> list[list[tuple[Results, Metric]]]:
    """Choose what is shown: of each direction's largest objects, in memory."""
    found = [result for result in results if result.case in LARGE and result.runs]
    size = max((result.size for result in found), default=0)
    rows = []
    for case in LARGE:
        here = [result for result in found if result.case == case and result.size == size]
        row = [(result, _RATE) for result in here]
        row += [(result, metric) for result in here if result.line == LOOPBACK for metric in _OTHERS]
        if row:
            rows.append(row)
    return rows


def draw(results: Iterable[Results], about: Mapping[str, Any], path: Path) -> None:
    """Draw the largest objects' uploads and downloads.

    Parameters
    ----------
    results : iterable of `Results`
        What was measured.
    about : mapping
        Machine, server and date, for the caption.
    path : `pathlib.Path`
        The file, e.g. a ``.png``.
    """
    rows = panels(results)
    matplotlib = import_module("matplotlib")
    matplotlib.use("agg")
    pyplot = import_module("matplotlib.pyplot")
    wide, high = max(map(len, rows)), len(rows)
    bars = max(len(result.runs) for row in rows for result, _ in row)
    size = (0.8 + 3.4 * wide, (0.9 + 0.25 * bars) * high + 0.6)
    figure, grid = pyplot.subplots(high, wide, figsize=size, squeeze=False, layout="constrained")
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row[len(row) :]:
            axes.set_axis_off()
        for axes, (result, metric) in zip(axes_row, row, strict=False):
            _bars(axes, result, metric)
        axes_row[0].set_ylabel(row[0][0].title, color=_INK, fontsize=11, fontweight="bold")
    figure.supxlabel(f"medians; {caption(about)}", fontsize=8, color=_INK)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axes: Any, result: Results, metric: Metric) -> None:
    """Draw one number of all peers, the first at the top."""
    peers = list(reversed(result.runs))
    values = [result.summary(peer, metric).median for peer in peers]
    bars = axes.barh(peers, values, color=[_colour(peer) for peer in peers], height=0.7)
    axes.bar_label(bars, fmt=f"%.{metric.digits}f", padding=3, fontsize=8, color=_INK)
    better = f"{metric.title} ({'more' if metric.more_is_better else 'less'} is better)"
    axes.set_title(f"{result.line}\n{better}", fontsize=9, color=_INK)
    axes.margins(x=0.15)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=_INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _colour(peer: str) -> str:
    if is_ours(peer):
        return _OUR_COLOUR
    return _FLOOR_COLOUR if peer == FLOOR else _PEER_COLOUR


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("results", type=Path, help="JSON file that --output wrote")
    made.add_argument("picture", type=Path, help="picture to draw")
    arguments = made.parse_args()
    about, results = load(arguments.results)
    draw(results, about, arguments.picture)


if __name__ == "__main__":
    main()
