"""The site builds without a warning, its links lead somewhere, and frequent questions are answered two clicks away."""

from __future__ import annotations

import posixpath
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from scripts.check_site import QUESTIONS, check_site
from scripts.draw_figures import FIGURES, draw

DOCS = Path(__file__).parents[2] / "docs"
# The hosts that the site may send a reader to, and the one that draws its formulae.
HOSTS = ("arxiv.org", "www.sphinx-doc.org", "github.com", "pradyunsg.me", "cdn.jsdelivr.net")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "trees", "-b", "html"]
    done = subprocess.run([*command, DOCS, folder / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_links_lead_somewhere_and_answers_are_two_clicks_away(site):
    wrong, external = check_site(site)
    assert wrong == []
    assert [link for link in external if link.split("/")[2] not in HOSTS] == []


@pytest.mark.parametrize(
    "package",
    [
        "nudge_rag",
        "nudge_rag.evaluation",
        "nudge_rag.feedback",
        "nudge_rag.solvers",
        "nudge_rag.stores",
        "nudge_rag.stores.testing",
        "langchain_nudge",
        "llama_index.retrievers.nudge",
    ],
)
def test_every_public_name_is_in_the_reference(site, package):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", posixpath.join)
    described = {name.rpartition(".")[2] for kind in inventory if kind.startswith("py:") for name in inventory[kind]}
    assert sorted({*import_module(package).__all__} - described - {"__version__"}) == []


def test_what_is_wrong_with_a_site_is_found(site, tmp_path):
    """Without the first page's links nothing is answered; links that lead nowhere are named."""
    (tmp_path / "guide").mkdir()
    links = (
        "x.html",
        "guide/a.html#there",
        "guide/a.html#nowhere",
        "http://arxiv.org",
        "https://localhost/a",
        "mailto:a@b.c",
    )
    anchors = "".join(f'<a href="{link}">.</a>' for link in links)
    (tmp_path / "index.html").write_text(f"<article>{anchors}</article>")
    (tmp_path / "guide" / "a.html").write_text('<h1 id="there">a</h1><a href="../index.html">back</a>')
    wrong, _ = check_site(tmp_path)
    assert [line for line in wrong if "two" in line or "not within" in line] != []
    assert sum("is not within 2 clicks" in line for line in wrong) == len(QUESTIONS)
    assert [line for line in wrong if "clicks" not in line] == [
        "index.html: there is no x.html",
        "index.html: guide/a.html#nowhere names no heading",
        "index.html: not https: http://arxiv.org",
        "index.html: no host of the internet: https://localhost/a",
        "index.html: not https: mailto:a@b.c",
    ]


def test_notebooks_are_on_the_site_with_their_outputs(site):
    names = [path.stem for path in (DOCS.parent / "notebooks").glob("*.ipynb")]
    assert len(names) == 8
    for name in names:
        page = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        assert "cell_output" in page
    first = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="notebooks/{name}.html"' in first for name in names)


def test_figures_are_those_of_the_script():
    for name in FIGURES:
        stored, drawn = (DOCS / "guide" / f"{name}.svg").read_bytes(), draw(name)
        # Another version of Matplotlib writes other digits; the drawing has the same parts.
        assert stored.count(b"<path") == drawn.count(b"<path")
        assert b"<script" not in stored and b"#ffffff" not in stored
