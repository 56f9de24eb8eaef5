"""Check the built site: links and anchors, external links by their shape, and answers two clicks from the first page.

python scripts/check_site.py docs/_build            # also prints the external links, to look at
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

CLICKS = 2
# What people ask first, and words that its answer holds.
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "how many pairs do I need": ("guide/pairs.html#how-many", "queries"),
    "all pairs or the new ones": ("guide/pairs.html#all-pairs-or-the-new-ones", "all"),
    "where does the history live": ("guide/history.html", "table"),
    "does NudgeRetriever matter after a push": ("guide/overlay.html#after-a-push", "NudgeRetriever"),
    "how do I keep MMR, hybrid and reranker": ("guide/overlay.html#mmr-hybrid-search-and-rerankers", "MMR"),
    "what does a tune cost with a remote embedder": ("guide/remote-embedders.html", "embed"),
    "how do I label documents": ("guide/pairs.html#labels-on-documents", "chunk"),
    "what do new documents lose": ("guide/new-documents.html", "new"),
    "how do I A/B it": ("guide/overlay.html#ask-your-users-ab-tests", "interleav"),
}
# Addresses that stand for the reader's own.
EXAMPLES = ("example.org", "example.com")


class Page(HTMLParser):
    """The links, anchors and words of a page; those of its article apart from menus."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.in_article: list[str] = []
        self.anchors: set[str] = set()
        self.words: list[str] = []
        self._depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and anchors."""
        found = {name: value or "" for name, value in attrs}
        if tag == "article":
            self._depth += 1
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
            if self._depth:
                self.in_article.append(found["href"])
        if tag in ("img", "script", "link"):
            self.links += [found[name] for name in ("src", "href") if found.get(name)]

    def handle_endtag(self, tag: str) -> None:
        """Leave the article."""
        self._depth -= tag == "article"

    def handle_data(self, data: str) -> None:
        """Note the words of the article."""
        if self._depth:
            self.words.append(data)


def check_site(folder: Path) -> tuple[list[str], list[str]]:
    """Return what is wrong with the site, and its external links.

    Args:
        folder: of the built pages.
    """
    pages = {path.relative_to(folder).as_posix(): Page(path) for path in sorted(folder.rglob("*.html"))}
    external: dict[str, str] = {}
    wrong: list[str] = []
    for name, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                external.setdefault(link, name)
                continue
            target, anchor = _resolve(name, link)
            if not (folder / target).exists():
                wrong.append(f"{name}: there is no {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                wrong.append(f"{name}: {link} names no heading")
    wrong += [f"{name}: {reason}: {link}" for link, name in external.items() if (reason := _wrong_shape(link))]
    return wrong + _unanswered(pages), sorted(external)


def _resolve(page: str, link: str) -> tuple[str, str]:
    parts = urlsplit(link)
    if not parts.path:
        return page, unquote(parts.fragment)
    base = Path(page).parent
    steps: list[str] = []
    for step in (base / unquote(parts.path)).parts:
        steps = steps[:-1] if step == ".." else [*steps, step]
    return "/".join(steps), unquote(parts.fragment)


def _wrong_shape(link: str) -> str | None:
    """Say what is wrong with an address, None for one that could be right."""
    parts = urlsplit(link)
    if parts.scheme != "https":
        return "not https"
    host = parts.hostname or ""
    if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", host):
        return "no host of the internet"
    if host in EXAMPLES or re.search(r"[\s<>\"{}]", link) or link.rstrip()[-1:] in ".,;":
        return "no address that can be followed"
    return None


def _unanswered(pages: Mapping[str, Page]) -> list[str]:
    """Questions whose answer is not within two clicks on links in the text, or lacks its words."""
    reached = {"index.html": 0}
    seen: dict[str, int] = {"index.html": 0}
    for clicks in range(1, CLICKS + 1):
        for name in [page for page, at in reached.items() if at == clicks - 1]:
            for link in pages[name].in_article:
                if urlsplit(link).scheme:
                    continue
                target, anchor = _resolve(name, link)
                for address in (target, f"{target}#{anchor}"):
                    seen.setdefault(address, clicks)
                if target in pages:
                    reached.setdefault(target, clicks)
    wrong = []
    for question, (answer, word) in QUESTIONS.items():
        page = answer.partition("#")[0]
        if answer not in seen:
            wrong.append(f"{question}? {answer} is not within {CLICKS} clicks of the first page")
        elif word.lower() not in " ".join(pages[page].words).lower():
            wrong.append(f"{question}? {answer} says nothing of {word!r}")
    return wrong


def main() -> int:
    """Check the site in the folder named, and print what is wrong with it."""
    wrong, external = check_site(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in [*external, *(f"WRONG {line}" for line in wrong)]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
