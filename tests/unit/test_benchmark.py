"""The benchmark's own promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_measuring_needs_nothing_that_a_peers_own_environment_may_lack() -> None:
    """Without ``site`` there is the standard library alone."""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-S", "-c", "import tests.benchmark.child"], check=True, cwd=root)
