"""What the package imports it declares, and what it declares it needs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lsst_lfa

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(lsst_lfa.__file__).parent


def imported(paths: Iterable[Path]) -> set[str]:
    """Return the packages that are imported at run time, by their top names."""
    names: set[str] = set()
    for path in paths:
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


def distributions(names: set[str]) -> set[str]:
    found = packages_distributions()
    return {found[name][0].lower().replace("_", "-") for name in names}


def declared(project: dict[str, Any], extra: str = "") -> set[str]:
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[^A-Za-z0-9_-]", text)[0].lower().replace("_", "-") for text in texts}


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    cli = set((FOLDER / "_cli").rglob("*.py"))
    rest = distributions(imported(set(FOLDER.rglob("*.py")) - cli))
    assert rest == declared(project)
    assert distributions(imported(cli)) - rest == declared(project, "cli"), "the command line's own"
