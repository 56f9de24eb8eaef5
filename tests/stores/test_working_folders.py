"""Clients that were opened by a relative path, and then the working folder changes: they write to their own, or not."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import StoreError, rollback, status
from nudge_rag.journal.push import push_vectors
from tests.support.databases import close_store
from tests.support.killed_worker import open_store
from tests.support.killing import fill
from tests.support.kinds import KINDS

IDS = ["1", "2", "3"]
ORIGINALS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
FOLLOW = ("chroma", "qdrant")  # their clients go along with the working folder


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind in ("duckdb", "sqlite-vec", "lancedb", "milvus", "parquet", *FOLLOW)]
)
def test_a_push_from_another_working_folder(kind, tmp_path, monkeypatch):
    (here := tmp_path / "here").mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    address = fill(kind, here, None, IDS, ORIGINALS)
    name = address.rpartition("/")[2]
    if kind in FOLLOW:
        (elsewhere / name).mkdir()
    monkeypatch.chdir(here)
    store = open_store(kind, f"./{name}")
    monkeypatch.chdir(elsewhere)
    moved = ORIGINALS + np.float32(1)
    if kind in FOLLOW:
        with pytest.raises(StoreError, match=r"the working folder has changed since the .* client opened"):
            push_vectors(store, IDS, ORIGINALS, moved)
        assert [path for path in elsewhere.rglob("*") if path.is_file()] == []
        monkeypatch.chdir(here)
    assert push_vectors(store, IDS, ORIGINALS, moved).pushed
    close_store(kind, store)
    again = open_store(kind, address)
    assert (status(again).version, len(status(again).nudged), status(again).origin) == ("0001", 3, None)
    assert rollback(again).restored == 3
    assert again.read(IDS).tobytes() == ORIGINALS.tobytes()
    close_store(kind, again)
