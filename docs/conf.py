"""Sphinx settings: warnings are errors (``make site``), nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes

HERE = Path(__file__).parent
ROOT = HERE.parent
INTEGRATIONS = ROOT / "integrations"
sys.path[:0] = [
    str(ROOT),
    str(INTEGRATIONS / "langchain-nudge"),
    str(INTEGRATIONS / "llama-index-retrievers-nudge"),
]

project = "nudge-rag"
author = "the nudge-rag authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # the outputs are stored, and the tests run the notebooks
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


def copy_notebooks() -> None:
    """Bring the notebooks into the folder that Sphinx reads; what has not changed is left as it is."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    sources = {path.name: path.read_bytes() for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    for copy in target.glob("*.ipynb"):
        if copy.name not in sources:
            copy.unlink()
    for name, content in sources.items():
        copy = target / name
        if not copy.exists() or copy.read_bytes() != content:
            copy.write_bytes(content)


copy_notebooks()


def escape_bars(_app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep ``|v|``, a length in our docstrings, from being read as a substitution."""
    lines[:] = [line if line.lstrip().startswith(">>>") else line.replace("|", "\\|") for line in lines]


def unlink_metrics(_app: object, doctree: nodes.document) -> None:
    """Keep ``nDCG@10`` in our docstrings from being taken for an address."""
    for link in list(doctree.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(nodes.Text(link.astext()))


def setup(app: object) -> None:
    """Connect what changes docstrings on their way to the page."""
    app.connect("autodoc-process-docstring", escape_bars)  # type: ignore[attr-defined]
    app.connect("doctree-read", unlink_metrics)  # type: ignore[attr-defined]
