"""A map of all nodes on real databases: every vector is written in place or side by side, and undone bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import Nudge, drop_copies, reapply, rollback, switch
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE
from nudge_rag.solvers import QueryAdapter, ValidationCurve
from nudge_rag.stores.base import SideBySideStore
from tests.stores.test_contract import everything
from tests.support.builders.common import DIMENSION

IN_PLACE_STORES = [
    "chroma-llama-index-cosine",
    "duckdb-llama-index",
    "faiss-langchain-flat-ip",
    "in-memory",
    "lancedb-llama-index",
    "milvus-langchain",
    "parquet",
    "postgres-llama-index",
    "postgres-langchain-v2",
    "qdrant-llama-index-cosine",
    "simple-persisted",
    "sqlite-vec-langchain",
]
SIDE_BY_SIDE_STORES = [
    "chroma-langchain",
    "faiss-langchain-flat-ip",
    "lancedb-llama-index",
    "parquet",
    "postgres-llama-index-hnsw",
    "postgres-langchain",
    "qdrant-langchain-dot-alias",
    "simple",
]
CHANGE = np.random.default_rng(7).normal(size=(DIMENSION, DIMENSION)) * 0.2


def mapped(vectors):
    """(I + B^T) v at the length of v, by the equation, in float64."""
    wide = np.asarray(vectors, dtype=np.float64)
    turned = wide + wide @ CHANGE
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return turned / np.linalg.norm(turned, axis=1, keepdims=True) * lengths


def make_nudge(store, versions):
    """A map of all nodes with three nodes turned round on top."""
    before = everything(store)
    ids = sorted(before)[10:13]
    originals = np.stack([before[node_id] for node_id in ids])
    curve = ValidationCurve(np.array([0.0]), np.array([0.0]), "nDCG@10")
    moved = originals[:, ::-1].copy()
    nudge = Nudge(
        store,
        tuple(ids),
        moved,
        originals,
        0.1,
        curve,
        True,
        "by hand",
        "auto",
        versions,
        node_map=QueryAdapter(CHANGE),
    )
    names = sorted(before)
    rows = dict(zip(names, mapped(np.stack([before[name] for name in names])), strict=True))
    return nudge, before, rows | dict(zip(ids, moved, strict=True))


def assert_close(store, wanted):
    found = everything(store)
    assert found.keys() == wanted.keys()
    for node_id, vector in wanted.items():
        np.testing.assert_allclose(found[node_id], vector, atol=2e-6)


@pytest.mark.parametrize("name", IN_PLACE_STORES)
def test_in_place(build, tmp_path, name):
    built = build(name, 60)
    nudge, before, wanted = make_nudge(built.store, tmp_path)
    assert nudge.push(mode=IN_PLACE).written == 60
    assert_close(built.store, wanted)
    rollback(built.store, tmp_path)
    after = everything(built.store)
    assert all(built.same(after[node_id], vector) for node_id, vector in before.items())


@pytest.mark.parametrize("name", SIDE_BY_SIDE_STORES)
def test_side_by_side(build, tmp_path, name):
    built = build(name, 60)
    nudge, before, wanted = make_nudge(built.store, tmp_path)
    assert nudge.push(mode=SIDE_BY_SIDE).pushed
    live = everything(built.store)
    assert all(built.same(live[node_id], vector) for node_id, vector in before.items())
    switch(built.store, tmp_path, accept_gap=True)
    assert_close(built.store, wanted)
    rollback(built.store, tmp_path)
    after = everything(built.store)
    assert all(built.same(after[node_id], vector) for node_id, vector in before.items())


@pytest.mark.parametrize("name", ["lancedb-llama-index", "postgres-llama-index"])
def test_a_node_embedded_again_before_the_switch_is_told_and_mapped_by_reapply(build, tmp_path, name):
    built = build(name, 60)
    store = built.store
    assert isinstance(store, SideBySideStore)
    nudge, before, wanted = make_nudge(store, tmp_path)
    nudge.push(mode=SIDE_BY_SIDE)
    late = sorted(before)[40]
    newer = before[late][::-1].copy()
    store.replace([late], newer[None])
    with pytest.warns(UserWarning, match=f"1 node.s. were written since all nodes were mapped .*{late}"):
        switch(store, tmp_path)
    assert built.same(store.read([late])[0], newer)
    with pytest.warns(UserWarning, match="hold unmapped vectors"):
        assert reapply(store, tmp_path) == ()
    drop_copies(store, tmp_path)
    assert reapply(store, tmp_path) == (late,)
    assert_close(store, wanted | {late: mapped(newer[None])[0]})
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in (before | {late: newer}).items())
