"""Labelled sets that are not part of the project: found through the environment, or their tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# They hold no tests, and only some of their clients are installed; those of the tests that use them say which.
collect_ignore_glob = ["store_builders/*", "doubles/*"]


@pytest.fixture(scope="session")
def beir_data() -> Path:
    """Folder with scifact, nfcorpus and stackfaq in BEIR layout, each with all-MiniLM-L6-v2.npz."""
    folder = os.environ.get("NUDGE_RAG_DATA", "")
    if not folder:
        pytest.skip("NUDGE_RAG_DATA is not set: it names a folder of BEIR data sets (scifact, stackfaq, nfcorpus)")
    path = Path(folder)
    if not (path / "scifact").is_dir():
        pytest.skip(f"NUDGE_RAG_DATA={folder} holds no scifact folder")
    return path
