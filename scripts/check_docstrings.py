"""Check what ruff does not: ``python scripts/check_docstrings.py FOLDER...`` prints a line for each docstring at fault.

An entry of a section names one thing, as documentation tools expect; the first sentence has at most 25 words; errors
stand in a ``Raises:`` section and not in a sentence.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["faults"]

SECTIONS = ("Args", "Attributes", "Keyword Args", "Raises", "Warns")
LONGEST_SENTENCE = 25
# Not the full stop of an abbreviation, a file name or a number.
END_OF_SENTENCE = re.compile(r"(?<!e\.g)(?<!i\.e)[.:;](?=\s|$)")
SEVERAL_NAMES = re.compile(r"^\s*\**[\w.]+(?:, \**[\w.]+)+:")
ERROR_IN_A_SENTENCE = re.compile(r"\bRaises (?:an? )?`*[\w.]*(?:Error|Exception)\b")


def faults(source: str) -> Iterator[tuple[int, str]]:
    r"""Iterate over line numbers and what is wrong there.

    Example:
        >>> list(faults('def add(x, y):\n    "Add.\\n\\n    Args:\\n        x, y: numbers.\\n    "'))
        [(2, 'an entry of Args names several things: x, y')]
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for owner in ast.walk(ast.parse(source)):
        if isinstance(owner, kinds) and (text := ast.get_docstring(owner)):
            line = owner.body[0].lineno
            for fault in (*_entries(text), *_first_sentence(text), *_errors(text)):
                yield line, fault


def _entries(text: str) -> Iterator[str]:
    section = ""
    for line in text.splitlines():
        heading = line.removesuffix(":")
        if line and not line.startswith(" "):
            section = heading if line.endswith(":") and heading in SECTIONS else ""
        elif section and len(line) - len(line.lstrip()) == 4 and (several := SEVERAL_NAMES.match(line)):
            yield f"an entry of {section} names several things: {several[0].strip().removesuffix(':')}"


def _first_sentence(text: str) -> Iterator[str]:
    paragraph = text.partition("\n\n")[0]
    words = END_OF_SENTENCE.split(paragraph, maxsplit=1)[0].split()
    if len(words) > LONGEST_SENTENCE:
        yield f"the first sentence has {len(words)} words: {' '.join(words[:6])} ..."


def _errors(text: str) -> Iterator[str]:
    if found := ERROR_IN_A_SENTENCE.search(text):
        yield f"an error stands in a sentence, not in a section: {found[0]}"


def main(folders: Sequence[str]) -> int:
    """Print the faults of all Python files in ``folders``; return 1 if there are any."""
    found = [
        f"{path}:{line}: {fault}"
        for folder in folders
        for path in sorted(Path(folder).rglob("*.py"))
        for line, fault in faults(path.read_text(encoding="utf-8"))
    ]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
