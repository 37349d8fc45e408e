"""The benchmark's own promises: its lines, its modes, its reports."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lsst_lfa import TransferConfig
from tests.benchmark.line import LOOPBACK, LineSpec, order, run_line
from tests.benchmark.options import parse_line
from tests.benchmark.peers import fixed, parse_peer
from tests.benchmark.picture import panels
from tests.benchmark.report import Results, load, overview, report
from tests.benchmark.scenarios import RATES, phases, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]


def test_measuring_needs_nothing_that_a_peers_own_environment_may_lack() -> None:
    """Without ``site`` there is the standard library alone."""
    subprocess.run([sys.executable, "-S", "-c", "import tests.benchmark.child"], check=True, cwd=_ROOT)


class _Echo:
    """Sends back what it gets, as it comes, and counts connections that are reset."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[_Echo]:
    echo = _Echo()
    yield echo
    echo.close()


def _trip(connection: socket.socket, data: bytes) -> float:
    """Send, take it back, and tell the seconds."""
    start = time.perf_counter()
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    received = bytearray()
    while len(received) < len(data) and (more := connection.recv(65536)):
        received += more
    sender.join()
    assert received == data
    return time.perf_counter() - start


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def test_a_line_delays_each_way_and_once_more_for_the_handshake(echo: _Echo, tmp_path: Path) -> None:
    with run_line(tmp_path, LineSpec(20, 1000), echo.port) as port:
        start = time.perf_counter()
        with _connect(port) as connection:
            _trip(connection, b"ping")
            first = time.perf_counter() - start
            others = [_trip(connection, b"ping") for _ in range(6)]
    assert first >= 0.080
    assert 0.040 <= min(others) < 0.080


def test_a_line_caps_each_connection_and_all_together(echo: _Echo, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB

    def seconds(port: int, count: int) -> float:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(_connect(port)) for _ in range(count)]
            start = time.perf_counter()
            threads = [threading.Thread(target=_trip, args=(each, data)) for each in connections]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return time.perf_counter() - start

    with run_line(tmp_path, LineSpec(1, 10, 20), echo.port) as port:
        # 0.21 s at 10 MB/s, but for what a line makes up for; four share 20 MB/s.
        alone, four = seconds(port, 1), seconds(port, 4)
        state = order(port)
    assert alone >= 0.19
    assert four >= 0.39
    assert state["up"] == state["down"] == 5 * len(data)


def test_a_line_passes_on_that_one_side_has_ended(echo: _Echo, tmp_path: Path) -> None:
    with run_line(tmp_path, LineSpec(1, 10), echo.port) as port, _connect(port) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(100), b""))
    assert received == b"last words"


def test_a_line_changes_its_rate_when_told(echo: _Echo, tmp_path: Path) -> None:
    data = bytes(2**20)
    with run_line(tmp_path, LineSpec(0, 1000), echo.port) as port, _connect(port) as connection:
        fast = _trip(connection, data)
        order(port, rate=4e6)
        slow = _trip(connection, data)
    assert slow >= 0.23
    assert slow > 2 * fast


def test_a_line_drops_the_connection_that_moved_most(echo: _Echo, tmp_path: Path) -> None:
    with run_line(tmp_path, LineSpec(0, 1000), echo.port) as port, _connect(port) as busy, _connect(port) as quiet:
        _trip(busy, bytes(100_000))
        _trip(quiet, b"ping")
        assert order(port, drop=True)["dropped"] == 1
        with pytest.raises(ConnectionResetError):
            busy.recv(1)
        _trip(quiet, b"ping")
        assert order(port, drop=True)["dropped"] == 1
        assert order(port, drop=True)["dropped"] == 0


def test_a_line_to_nowhere_resets_connections(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = listener.getsockname()[1]
    with run_line(tmp_path, LineSpec(0, 1000), nowhere) as port:
        # Perhaps before this side knows that it is connected.
        with pytest.raises(ConnectionResetError), _connect(port) as connection:
            connection.recv(1)
        order(port)  # it lives on


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("20,25", "20 ms, 25 MB/s each"),
        ("1,50,100", "1 ms, 50 MB/s each, 100 in all"),
        ("0,2.5", "0 ms, 2.5 MB/s each"),
    ],
)
def test_lines_are_read_and_named(text: str, title: str) -> None:
    assert parse_line(text).title == title


@pytest.mark.parametrize("text", ["", "20", "20,0", "-1,25", "20,25,0", "1,2,3,4", "a,b", "nan,25", "20,inf"])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_line(text)


@pytest.mark.parametrize(
    ("name", "settings", "is_fixed"),
    [
        ("ours", {}, False),
        ("ours-unsigned", {"integrity": "unsigned"}, False),
        ("ours-8", {"max_concurrency": 8}, True),
        ("ours-unsigned-8", {"integrity": "unsigned", "max_concurrency": 8}, False),
        ("opendal-8", {"max_concurrency": 8}, False),
    ],
)
def test_a_mode_follows_the_name(name: str, settings: dict[str, object], is_fixed: bool) -> None:
    assert parse_peer(name)[1] == settings
    assert fixed(name) is is_fixed
    if name.startswith("ours"):
        TransferConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nobody", "boto3-8", "opendal-unsigned", "ours-0", "ours-", "ours-fast", ""])
def test_modes_that_there_are_not_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no peer"):
        parse_peer(name)


def _output(code: str) -> str:
    """Run code in a process of its own, as measurements are: what they fix is fixed for good."""
    return subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT, stdout=subprocess.PIPE, text=True).stdout


def test_a_fixed_number_of_requests_is_kept_whatever_is_measured() -> None:
    code = """
import asyncio
from lsst_lfa._transfer.lanes import Lanes
from tests.benchmark.ours import fix_lanes

async def main():
    fix_lanes(5)
    lanes = Lanes(32)
    for _ in range(20):
        lanes.moved(2**30)
        lanes.throttled()
        await asyncio.sleep(0.02)
    print(lanes.width)

asyncio.run(main())
"""
    assert _output(code) == "5\n"


def test_lanes_that_cannot_be_fixed_are_not_measured_as_if_they_were() -> None:
    code = """
from lsst_lfa._transfer import lanes
from tests.benchmark.ours import fix_lanes

del lanes.decide
try:
    fix_lanes(5)
except LookupError:
    print("refused")
"""
    assert _output(code) == "refused\n"


def _series(rates: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return what arrives at so many bytes a second for so many seconds, then others, and so on."""
    points, now, done = [(0.0, 0.0)], 0.0, 0.0
    for seconds, rate in rates:
        for _ in range(round(seconds / 0.05)):
            now, done = now + 0.05, done + 0.05 * rate
            points.append((round(now, 4), done))
    return points


def test_a_rate_has_settled_when_it_is_close_to_the_best_and_stays_there() -> None:
    series = _series([(6, 100), (1.5, 10), (4.5, 50), (2, 300), (4, 100)])
    first, second, third = phases(series)
    assert [phase.rate for phase in (first, second, third)] == pytest.approx([100, 50, 100], rel=0.02)
    assert settled(first, 105) == 0
    assert settled(first, 120) == math.inf
    assert settled(second, 52) == pytest.approx(1.5, abs=0.1)
    assert settled(third, 300) == math.inf


def _results() -> list[Results]:
    """Return what might have been measured, on loopback and over a line."""
    names = ("mb_per_s", "cpu_s_per_gb", "stall_max_ms", "iteration_cpu_ms", "peak_mib")
    ours = {"ours": (300, 90), "ours-unsigned": (400, 120), "ours-3": (310, 60), "ours-8": (250, 100)}
    rates = ours | {"boto3": (200, 45), "minio": (150, 60)}
    results = []
    for index, line in enumerate((LOOPBACK, "20 ms, 25 MB/s each")):
        for case, size in itertools.product(("upload", "download", "upload-file"), (2**20, 2**30)):
            result = Results(case, size, line)
            for peer, each in rates.items():
                for off in (-1, 0, 5):
                    result.add(peer, dict.fromkeys(names, 1.0) | {"mb_per_s": each[index] + off})
            results.append(result)
    results[0].failures["raw"] = "no"
    return results


def test_a_report_has_medians_and_ratios_to_the_baseline_the_best_peer_and_the_best_fixed_number() -> None:
    text = report(_results())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["loopback", "upload 1 MiB", "ours", "300 (299-305)", "1.00", "1.0", "1.0", "1"] in rows
    assert ["", "", "raw", *["failed"] * 5] in rows
    assert ["20 ms, 25 MB/s each", "upload 1 MiB", "ours", "90 (89-95)", "1.00", "1.0", "1.0", "1"] in rows
    ratios = [row[3] for row in rows if row[2:3] == ["ours"] and "/" in row[3]]
    assert ratios[0] == "1.50 / 1.50 boto3 / 0.97 ours-3"
    assert ratios[-1] == "2.00 / 1.50 minio / 0.90 ours-8"
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 2  # columns are aligned


def test_a_line_that_changes_is_judged_by_the_best_of_all() -> None:
    result = Results("upload-changes", 2**20, "20 ms, 25 MB/s each")
    result.add("ours", {"series": _series([(6, 250e6), (1, 20e6), (5, 150e6), (6, 300e6)])})
    result.add("boto3", {"series": _series([(6, 100e6), (6, 50e6), (6, 310e6)])})
    text = report([result])
    found = {peer: result.runs[peer][0] for peer in result.runs}
    assert [round(found["ours"][f"rate_{rate}"]) for rate in RATES] == [250, 150, 300]
    assert found["ours"]["settled_5"] == pytest.approx(1, abs=0.2)
    assert found["boto3"]["settled_5"] == math.inf
    assert found["boto3"]["settled_100"] == 0
    assert "never" in text


def test_what_was_saved_is_reported_and_shown_again(tmp_path: Path) -> None:
    results = _results()
    saved = tmp_path / "results.json"
    saved.write_text(json.dumps({"server": "a server", "results": [result.to_json() for result in results]}))
    about, again = load(saved)
    assert about == {"server": "a server"}
    assert report(again) == report(results)
    assert "upload 1 GiB, 20 ms, 25 MB/s each: MB/s" in overview(again)
    assert "1 MiB" not in overview(again)


def test_the_picture_shows_lines_beside_loopback() -> None:
    shown = [[(result.line, result.size, metric.name) for result, metric in row] for row in panels(_results())]
    line = "20 ms, 25 MB/s each"
    assert shown == 2 * [
        [
            (LOOPBACK, 2**30, "mb_per_s"),
            (line, 2**30, "mb_per_s"),
            (LOOPBACK, 2**30, "cpu_s_per_gb"),
            (LOOPBACK, 2**30, "stall_max_ms"),
        ]
    ]
