"""Sphinx settings: warnings are errors (``make site``), nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
INTEGRATIONS = ROOT / "integrations"
sys.path[:0] = [
    str(ROOT),
    str(INTEGRATIONS / "langchain-nudge"),
    str(INTEGRATIONS / "llama-index-retrievers-nudge"),
]

project = "nudge-rag"
author = "the nudge-rag authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "nudge-rag"
exclude_patterns = ["_build"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Docstrings write names of code in single backticks.
default_role = "literal"


def escape_bars(_app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep ``|v|``, a length in our docstrings, from being read as a substitution."""
    lines[:] = [line if line.lstrip().startswith(">>>") else line.replace("|", "\\|") for line in lines]


def setup(app: object) -> None:
    """Connect what changes docstrings on their way to the page."""
    app.connect("autodoc-process-docstring", escape_bars)  # type: ignore[attr-defined]
