"""Sphinx's configuration of the API reference: `tox -e docs`."""

from __future__ import annotations

import inspect
import pydoc
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

import lsst_lfa

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

log = logging.getLogger(__name__)

project = "lsst_lfa"
release = lsst_lfa.__version__
copyright = "the developers of lsst_lfa"  # noqa: A001 - Sphinx's name for it

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "py:obj"  # single backticks, as numpydoc has them
nitpicky = True  # a name that leads nowhere is a warning, and a warning is an error
autoclass_content = "class"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
maximum_signature_line_length = 90
html_theme = "alabaster"
html_theme_options = {"description": "The API reference", "page_width": "70em"}
html_show_sourcelink = False

MODULES = ("lsst_lfa", "lsst_lfa.errors", "lsst_lfa.naming", "lsst_lfa.salobj", "lsst_lfa.sites")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement
) -> nodes.Element | None:
    """Find what a short name means; let names of other packages pass, if there are such, and annotations."""
    target, python = node["reftarget"], env.get_domain("py")
    for module in ("lsst_lfa", "lsst_lfa.errors"):
        name = f"{module}.{target}"
        found = python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contents)
        if found is not None:
            return found
    other = not target.startswith("lsst_lfa") and pydoc.locate(target) is not None
    return contents if other or node["reftype"] == "class" else None  # mypy has checked annotations


def require_all(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that the reference does not have."""
    documented: dict[str, Any] = env.get_domain("py").objects  # type: ignore[attr-defined]
    for module in map(import_module, MODULES):
        for name in module.__all__:
            found = getattr(module, name)
            home = getattr(found, "__module__", module.__name__)
            places = {f"{module.__name__}.{name}", f"{home}.{name}"}
            if not inspect.ismodule(found) and documented.keys().isdisjoint(places):
                log.warning("%s.%s is public, but not in the reference", module.__name__, name)


def skip(_app: Sphinx, _kind: str, _name: str, member: object, _skip: bool, _options: object) -> bool | None:  # noqa: FBT001
    """Leave out what `typing.NamedTuple` says of its fields; the class's own docstring says it better."""
    return True if (inspect.getdoc(member) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", require_all)
