"""Importing the core loads numpy and nothing heavier."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nudge_rag

CODE = """
import sys, nudge_rag, nudge_rag.compat, nudge_rag.cli, nudge_rag.stores
heavy = ["torch", "llama_index", "langchain_core", "chromadb", "sentence_transformers", "scipy", "tqdm", "pandas"]
heavy += ["ir_measures", "matplotlib", "jinja2"]
print([name for name in heavy if name in sys.modules])
"""


def test_no_framework_and_no_torch():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse(Path(nudge_rag.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == nudge_rag._MODULE_OF
    assert sorted({*seen, "__version__"}) == sorted(nudge_rag.__all__)
    for name in nudge_rag.__all__:
        assert getattr(nudge_rag, name) is not None
    assert set(nudge_rag.__all__) <= set(dir(nudge_rag))
    with pytest.raises(AttributeError, match="module 'nudge_rag' has no attribute 'nothing'"):
        _ = nudge_rag.nothing


def test_packages_are_imported_when_they_are_asked_for():
    code = "import nudge_rag, sys; assert 'numpy' not in sys.modules; print(nudge_rag.stores.MappingStore.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "MappingStore"
