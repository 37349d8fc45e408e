"""What the package imports it declares, and what it declares it needs."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import lsst_lfa

FOLDER = Path(lsst_lfa.__file__).parent


def imported() -> set[str]:
    """Return the packages that are imported at run time, by their top names."""
    names: set[str] = set()
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"lsst_lfa"}


def declared() -> set[str]:
    requirements = [text for text in requires("lsst-lfa") or [] if "extra ==" not in text]
    return {re.split(r"[^A-Za-z0-9_-]", text)[0].lower().replace("_", "-") for text in requirements}


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported() -> None:
    distributions = packages_distributions()
    assert {distributions[name][0].lower().replace("_", "-") for name in imported()} == declared()
