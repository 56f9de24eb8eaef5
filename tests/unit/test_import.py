"""Importing the core loads numpy and nothing heavier."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, nudge_rag, nudge_rag.compat, nudge_rag.cli, nudge_rag.stores
heavy = ["torch", "llama_index", "langchain_core", "chromadb", "sentence_transformers", "scipy", "tqdm"]
print([name for name in heavy if name in sys.modules])
"""


def test_no_framework_and_no_torch():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
