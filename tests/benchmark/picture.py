"""One picture of the results: three rows of bars for each direction."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .peers import FLOOR, OURS
from .report import METRICS, Metric, Results, caption

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["draw"]

_SHOWN = ("mb_per_s", "cpu_s_per_gb", "stall_max_ms")
_COLOURS = {OURS: "#0b6e4f", FLOOR: "#d5d5d5"}
_OTHERS = "#8fa8bf"
_INK = "#333333"


def draw(results: Iterable[Results], about: Mapping[str, Any], path: Path) -> None:
    """Draw the largest size's uploads and downloads.

    Parameters
    ----------
    results : iterable of `Results`
        What was measured.
    about : mapping
        Machine, server and date, for the caption.
    path : `pathlib.Path`
        The file, e.g. a ``.png``.
    """
    largest: dict[str, Results] = {}
    for result in results:
        if result.case in {"upload", "download"} and result.runs:
            largest[result.case] = max(result, largest.get(result.case, result), key=lambda one: one.size)
    matplotlib = import_module("matplotlib")
    matplotlib.use("agg")
    pyplot = import_module("matplotlib.pyplot")
    metrics = [metric for metric in METRICS if metric.name in _SHOWN]
    figure, grid = pyplot.subplots(
        len(largest), len(metrics), figsize=(11, 2.6 * len(largest) + 0.6), squeeze=False, layout="constrained"
    )
    for row, result in zip(grid, largest.values(), strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _bars(axes, result, metric)
        row[0].set_ylabel(result.title, color=_INK, fontsize=11, fontweight="bold")
    figure.supxlabel(f"medians; {caption(about)}", fontsize=8, color=_INK)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axes: Any, result: Results, metric: Metric) -> None:
    """Draw one number of all peers, the first at the top."""
    peers = list(reversed(result.runs))
    values = [result.summary(peer, metric).median for peer in peers]
    bars = axes.barh(peers, values, color=[_COLOURS.get(peer, _OTHERS) for peer in peers], height=0.7)
    axes.bar_label(bars, fmt=f"%.{metric.digits}f", padding=3, fontsize=8, color=_INK)
    axes.set_title(f"{metric.title} ({'more' if metric.more_is_better else 'less'} is better)", fontsize=9, color=_INK)
    axes.margins(x=0.15)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=_INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
