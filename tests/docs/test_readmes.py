"""The readmes are short, their examples run, and their links work on an index page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run_examples import BLOCK
from scripts.try_packages import READMES, RELATIVE_LINK

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_work_wherever_it_is_read(readme):
    assert RELATIVE_LINK.findall(readme.read_text(encoding="utf-8")) == []


def test_the_readme_is_short_and_has_one_table():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert sum(1 for line in lines if re.fullmatch(r"\|(-+\|)+", line)) == 1


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_an_example_imports_or_makes_every_name(readme):
    import ast
    import builtins

    for code in BLOCK.findall(readme.read_text(encoding="utf-8")):
        known = set(dir(builtins))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name) for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        assert used <= known


def test_files_and_folders_that_the_readme_names_are_there():
    text = BLOCK.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    named = [name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name or name.endswith((".md", ".txt"))]
    missing = [name for name in [*named, "notebooks"] if name != "docs/_build" and not (ROOT / name).exists()]
    assert missing == []
    assert len(named) >= 3


@pytest.mark.slow
def test_the_examples_run():
    command = [sys.executable, ROOT / "scripts" / "run_examples.py", *READMES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("block 1 runs") == len(READMES)
