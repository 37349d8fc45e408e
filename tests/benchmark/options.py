"""What the commands share: their options, and how they speak."""

from __future__ import annotations

import argparse
import math
import re
import sys

from .line import LineSpec
from .serving import SERVERS

__all__ = ["add_lines", "note", "parse_line", "parse_size", "parse_sizes", "parser", "say"]

_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+)\s*([A-Z]*)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read a number of bytes, e.g. ``256MiB``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        message = f"{text!r} is no size; write e.g. 256MiB"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def parse_sizes(text: str) -> list[int]:
    """Read sizes, separated by commas."""
    return [parse_size(size) for size in text.split(",")]


def parse_line(text: str) -> LineSpec:
    """Read a line: milliseconds each way, MB/s of each connection, and perhaps of all together; e.g. ``20,25,100``."""
    try:
        spec = LineSpec(*map(float, text.split(",")))
    except (TypeError, ValueError):
        spec = LineSpec(0, 0)
    if not (0 <= spec.delay_ms < math.inf and 0 < spec.rate_mb < math.inf and spec.total_mb > 0):
        message = f"{text!r} is no line; write e.g. 20,25 or 20,25,100"
        raise argparse.ArgumentTypeError(message)
    return spec


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows about servers."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--server", choices=SERVERS, default="ceph", help="which server to start")
    made.add_argument("--scheme", choices=("http", "https"), default="http", help="how to talk to it")
    made.add_argument("--pin", action="store_true", help="server on one core, clients on another")
    return made


def add_lines(made: argparse.ArgumentParser) -> None:
    """Let a command measure over lines besides loopback."""
    made.add_argument(
        "--line",
        action="append",
        type=parse_line,
        default=[],
        metavar="DELAY_MS,RATE_MB[,TOTAL_MB]",
        help="a line to measure over as well: delay each way, MB/s of each connection and of all; may be repeated",
    )
    made.add_argument("--no-loopback", action="store_true", help="measure over the lines only")


def say(text: str) -> None:
    """Write a result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Write how far things are, apart from the results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
