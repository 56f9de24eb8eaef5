"""Every Python block of the documentation runs, in the order of its page; every page is reached from the first one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts)
BLOCK = re.compile(r"^```python\n(.*?)^```$|^<!-- setup\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+\.md)(#[^)]*)?\)")


def blocks(page: str) -> list[tuple[int, str]]:
    """Line and code of each block; hidden ones (``<!-- setup``) prepare what the page takes for granted."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start()) + 1, found[1] or found[2]) for found in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__page__"}
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)


def test_pages_have_blocks_and_every_fence_is_closed():
    assert sum(len(blocks(page)) for page in PAGES) >= 5
    for page in PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert len(re.findall(r"^`{3,}", text, re.MULTILINE)) % 2 == 0, page
        assert len(re.findall(r"^```python$", text, re.MULTILINE)) == sum(
            1 for found in BLOCK.finditer(text) if found[1] is not None
        ), page


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target, _ in LINK.findall((DOCS / page).read_text(encoding="utf-8")):
            assert (DOCS / page).parent.joinpath(target).resolve().is_file(), f"{page}: {target}"


def test_every_page_is_in_a_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = {line.strip() + ".md" for line in re.findall(r"^(?:guide/[\w-]+|api)$", index, re.MULTILINE)}
    assert listed == set(PAGES) - {"index.md"}


def slug(heading):
    """As myst makes them: lower case, hyphens for spaces, other signs left out."""
    kept = "".join(sign for sign in heading.lower().strip() if sign.isalnum() or sign in " -_")
    return kept.replace(" ", "-")


def test_links_to_headings_lead_to_one():
    n_checked = 0
    for page in PAGES:
        for target, anchor in LINK.findall((DOCS / page).read_text(encoding="utf-8")):
            if anchor:
                text = (DOCS / page).parent.joinpath(target).read_text(encoding="utf-8")
                headings = [slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
                assert anchor.removeprefix("#") in headings, f"{page}: {target}{anchor}"
                n_checked += 1
    assert n_checked >= 5


@pytest.mark.parametrize(
    "question",
    [
        "How many pairs do I need?",
        "All pairs every time, or the new ones alone?",
        "Where does the history live?",
        "Does NudgeRetriever matter after a push?",
        "How do I keep MMR, hybrid search and my reranker?",
        "What does a tune cost with a remote embedder?",
        "How do I label documents?",
        "What do new documents lose?",
        "How do I A/B it?",
        "When should I not use it?",
    ],
)
def test_a_frequent_question_has_its_answer_behind_one_link(question):
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    (row,) = [line for line in index.splitlines() if line.startswith(f"| {question} |")]
    assert len(LINK.findall(row)) == 1
