"""Measure this package and its peers against a server that is started for it, and compare.

The peers take turns, each measurement in a process of its own, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import note, parse_size, parser, say
from .peers import OURS, PEERS
from .report import Results, caption
from .serving import FailedError, Service, serve
from .target import LARGE, SMALL, SMALL_SIZE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_CPU_INFO = Path("/proc/cpuinfo")


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--sizes", default="256MiB,1GiB", help="sizes of large objects, separated by commas")
    made.add_argument("--runs", type=int, default=5, help="how often each is measured")
    made.add_argument("--peers", default=",".join(PEERS), help="whom to measure, separated by commas")
    made.add_argument("--output", type=Path, help="JSON file to write")
    made.add_argument("--picture", type=Path, help="picture to draw")
    arguments = made.parse_args()
    arguments.sizes = [parse_size(size) for size in arguments.sizes.split(",")]
    arguments.peers = arguments.peers.split(",")
    if unknown := set(arguments.peers) - set(PEERS):
        made.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
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


def _cases(sizes: list[int]) -> Iterator[Results]:
    for size in sizes:
        for case in LARGE:
            yield Results(case, size)
    for case in SMALL:
        yield Results(case, SMALL_SIZE)


def _measure(service: Service, result: Results, peers: list[str], versions: dict[str, str]) -> None:
    """Measure each peer once; one that fails does not stop the others."""
    for peer in peers:
        try:
            done = service.measure(peer, result.case, result.size)
        except FailedError as error:
            result.failures[peer] = str(error)
            note(f"{result.title}: {peer} failed: {str(error).splitlines()[-1]}")
        else:
            versions[peer] = done["version"]
            result.add(peer, done["measures"])


def main() -> int:
    arguments = _arguments()
    versions: dict[str, str] = {}
    results = list(_cases(arguments.sizes))
    with serve(arguments.server, arguments.scheme) as service:
        for size in {result.size for result in results}:
            service.store(size)
        for run in range(1, arguments.runs + 1):
            for result in results:
                note(f"run {run} of {arguments.runs}: {result.title}")
                _measure(service, result, arguments.peers, versions)
        about = {
            "date": datetime.now(UTC).date().isoformat(),
            "server": service.version,
            "scheme": arguments.scheme,
            "machine": _machine(),
            "versions": versions,
        }
    _publish(arguments, about, results)
    return int(any(OURS in result.failures for result in results))


def _publish(arguments: argparse.Namespace, about: dict[str, Any], results: list[Results]) -> None:
    say(f"{caption(about)}\n")
    say(", ".join(f"{peer} {version}" for peer, version in about["versions"].items()) + "\n")
    say("\n\n".join(result.markdown() for result in results))
    if arguments.output:
        whole = about | {"results": [result.to_json() for result in results]}
        arguments.output.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.picture:
        from .picture import draw

        draw(results, about, arguments.picture)


if __name__ == "__main__":
    sys.exit(main())
