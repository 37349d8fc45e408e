"""Measure this package and its peers against a server that is started for it, and compare.

The peers take turns, each measurement in a process of its own, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .line import LOOPBACK
from .options import add_lines, note, parse_size, parse_sizes, parser, say
from .peers import OURS, PEERS, is_ours, parse_peer
from .report import Results, caption, report
from .serving import FailedError, Service, serve
from .target import CASES, FILES, LARGE, SCENARIOS, SMALL_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CPU_INFO = Path("/proc/cpuinfo")
_PEER_GROUPS = {
    "modes": (OURS, f"{OURS}-unsigned", *(f"{OURS}-{count}" for count in (1, 3, 8, 16, 32))),
    "peers": tuple(name for name in PEERS if name != OURS),
}
_ALL_CASES = [case for cases in CASES.values() for case in cases]


def _expand(text: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Read names separated by commas, each once; a group's name stands for all that are in it."""
    return list(dict.fromkeys(each for name in text.split(",") for each in groups.get(name, (name,))))


def _peers(text: str) -> list[str]:
    names = _expand(text, _PEER_GROUPS)
    for name in names:
        try:
            parse_peer(name)
        except ValueError:
            message = f"no such peer: {name}; there are {', '.join([*PEERS, *_PEER_GROUPS])}"
            raise argparse.ArgumentTypeError(message) from None
    return names


def _case_names(text: str) -> list[str]:
    names = _expand(text, CASES)
    if unknown := set(names) - set(_ALL_CASES):
        known = ", ".join([*CASES, *_ALL_CASES])
        message = f"no such case: {', '.join(sorted(unknown))}; there are {known}"
        raise argparse.ArgumentTypeError(message)
    return names


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    add_lines(made)
    made.add_argument("--sizes", type=parse_sizes, default="256MiB,1GiB", help="sizes of large objects")
    made.add_argument("--runs", type=int, default=5, help="how often each is measured")
    peers_help = (
        f"whom to measure: {', '.join([*PEERS, *_PEER_GROUPS])}; or in a mode: ours-unsigned, ours-8, opendal-8"
    )
    made.add_argument("--peers", type=_peers, default="ours,peers", help=peers_help)
    cases_help = f"what to measure: {', '.join([*CASES, *_ALL_CASES])}"
    made.add_argument("--cases", type=_case_names, default="memory,files,small,many", help=cases_help)
    made.add_argument("--warm-up", type=parse_size, default="20MB", help="bytes to transfer before a large object")
    made.add_argument("--output", type=Path, help="JSON file to write, after each run")
    made.add_argument("--picture", type=Path, help="picture to draw")
    arguments = made.parse_args()
    if not arguments.line and (arguments.no_loopback or set(arguments.cases) <= set(SCENARIOS)):
        made.error("there is nothing to measure over: give a --line")
    return arguments


def _machine() -> dict[str, Any]:
    models = [line.partition(":")[2].strip() for line in _CPU_INFO.read_text().splitlines() if "model name" in line]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _plan(arguments: argparse.Namespace) -> Iterator[Results]:
    """Return what is to be measured, without results yet."""
    lines = [] if arguments.no_loopback else [LOOPBACK]
    for line in lines + [spec.title for spec in arguments.line]:
        for case in arguments.cases:
            if case not in SCENARIOS or line != LOOPBACK:
                sizes = arguments.sizes if case in (*LARGE, *FILES) else arguments.sizes[-1:]
                for size in sizes if case in (*LARGE, *FILES, *SCENARIOS) else [SMALL_SIZE]:
                    yield Results(case, size, line)


def _measure(service: Service, result: Results, arguments: argparse.Namespace, versions: dict[str, str]) -> None:
    """Measure each peer once; one that fails does not stop the others."""
    for peer in arguments.peers:
        try:
            done = service.measure(peer, result.case, result.size, line=result.line, warm_up=arguments.warm_up)
        except FailedError as error:
            result.failures[peer] = str(error)
            note(f"{result.line}, {result.title}: {peer} failed: {str(error).splitlines()[-1]}")
        else:
            versions[peer] = done["version"]
            result.add(peer, done["measures"])


def main() -> int:
    arguments = _arguments()
    results = list(_plan(arguments))
    versions: dict[str, str] = {}
    with serve(arguments.server, arguments.scheme, arguments.line, pin=arguments.pin) as service:
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "server": service.version,
            "scheme": arguments.scheme,
            "pinned": arguments.pin,
            "machine": _machine(),
            "versions": versions,
        }
        for size in {result.size for result in results}:
            service.store(size)
        try:
            for run in range(1, arguments.runs + 1):
                for result in results:
                    note(f"run {run} of {arguments.runs}: {result.line}, {result.title}")
                    _measure(service, result, arguments, versions)
                _save(arguments.output, about, results)
        except KeyboardInterrupt:
            note("interrupted: what was measured until now follows")
    _publish(arguments, about, results)
    return int(any(is_ours(peer) for result in results for peer in result.failures))


def _save(path: Path | None, about: dict[str, Any], results: list[Results]) -> None:
    if path is not None:
        for result in results:
            result.settle()
        whole = about | {"results": [result.to_json() for result in results]}
        path.write_text(json.dumps(whole, indent=1) + "\n")


def _publish(arguments: argparse.Namespace, about: dict[str, Any], results: list[Results]) -> None:
    say(f"{caption(about)}\n")
    say(", ".join(f"{peer} {version}" for peer, version in about["versions"].items()) + "\n")
    say(report(results))
    _save(arguments.output, about, results)
    if arguments.picture:
        from .picture import draw

        draw(results, about, arguments.picture)


if __name__ == "__main__":
    sys.exit(main())
