"""What the commands share: their options, and how they speak."""

from __future__ import annotations

import argparse
import re
import sys

from .serving import SERVERS

__all__ = ["note", "parse_size", "parser", "say"]

_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+)\s*([A-Z]*)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read a number of bytes, e.g. ``256MiB``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        message = f"{text!r} is no size; write e.g. 256MiB"
        raise argparse.ArgumentTypeError(message)
    return int(match[1]) * _UNITS[match[2].upper()]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows about servers."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--server", choices=SERVERS, default="ceph", help="which server to start")
    made.add_argument("--scheme", choices=("http", "https"), default="http", help="how to talk to it")
    return made


def say(text: str) -> None:
    """Write a result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Write how far things are, apart from the results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
