"""Measure this package with one setting of `TransferConfig` changed at a time, around the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsst_lfa import TransferConfig

from .options import note, parse_size, parser, say
from .peers import OURS
from .report import Results, size_name, table
from .serving import FailedError, Service, serve
from .target import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

MiB = 2**20
_VALUES = {
    "part_size": [size * MiB for size in (5, 8, 16, 32)],
    "memory_part_size": [size * MiB for size in (16, 32, 64, 128)],
    "range_size": [size * MiB for size in (8, 16, 32, 64, 128)],
    "max_concurrency": [1, 2, 3, 4, 6, 8, 12],
    "io_chunksize": [MiB // 16, MiB // 8, MiB // 4, MiB // 2, MiB, 2 * MiB],
}
# Settings that are of no consequence in the other direction.
_ONLY = {"part_size": "upload", "memory_part_size": "upload", "io_chunksize": "upload", "range_size": "download"}


def _settings(names: list[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return what to measure: which setting, all that must change with it, and in which direction."""
    for name in names:
        for value in _VALUES[name]:
            config = {name: value}
            if name == "part_size":
                config["memory_part_size"] = value
            # No more may be in memory than the parts of one upload.
            most = config.get("max_concurrency", TransferConfig().max_concurrency) * config.get(
                "part_size", TransferConfig().part_size
            )
            config["multipart_threshold"] = min(TransferConfig().multipart_threshold, most)
            for case in LARGE:
                if _ONLY.get(name, case) == case:
                    yield name, config, case


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--size", type=parse_size, default="256MiB", help="size of the object")
    made.add_argument("--runs", type=int, default=3, help="how often each is measured")
    made.add_argument("--settings", default=",".join(_VALUES), help="which settings, separated by commas")
    arguments = made.parse_args()
    settings = list(_settings(arguments.settings.split(",")))
    results = [Results(case, arguments.size) for _, _, case in settings]
    with serve(arguments.server, arguments.scheme, pin=arguments.pin) as service:
        service.store(arguments.size)
        for run in range(1, arguments.runs + 1):
            note(f"run {run} of {arguments.runs}")
            _run(service, settings, results)
    say(_report(settings, results))


def _run(service: Service, settings: list[tuple[str, dict[str, Any], str]], results: list[Results]) -> None:
    for (_, config, case), result in zip(settings, results, strict=True):
        try:
            result.add(OURS, service.measure(OURS, case, result.size, config)["measures"])
        except FailedError as error:
            note(f"{case} with {config}: {error}")


def _report(settings: list[tuple[str, dict[str, Any], str]], results: list[Results]) -> str:
    rows, metrics = [], results[0].metrics()
    for (name, config, case), result in zip(settings, results, strict=True):
        if result.runs:
            value = config[name] if name == "max_concurrency" else size_name(config[name])
            default = " (default)" if config[name] == getattr(TransferConfig(), name) else ""
            numbers = [result.summary(OURS, metric).format(metric.digits) for metric in metrics]
            rows.append([f"{case}, {name} = {value}{default}", *numbers])
    return table(["median (min-max)", *(metric.title for metric in metrics)], rows)


if __name__ == "__main__":
    main()
