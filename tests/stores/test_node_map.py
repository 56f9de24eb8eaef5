"""A map of all nodes on real databases: every vector is written in place or side by side, and undone bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import nudge_rag.stores.lance.copies
from nudge_rag import Nudge, drop_copies, reapply, rollback, status, switch
from nudge_rag.journal.manifest import IN_PLACE, SIDE_BY_SIDE
from nudge_rag.solvers import QueryAdapter, ValidationCurve
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


@pytest.mark.parametrize("name", SIDE_BY_SIDE_STORES)
def test_nodes_written_before_the_switch_are_mapped_by_it_and_keep_their_vectors_after_a_rollback(
    build, tmp_path, name
):
    built = build(name, 60)
    store = built.store
    nudge, before, wanted = make_nudge(store, tmp_path)
    nudge.push(mode=SIDE_BY_SIDE)
    late = sorted(before)[40]
    newer = before[late][::-1].copy()
    store.replace([late], newer[None])
    assert switch(store, tmp_path, accept_gap=True).caught_up >= 1
    assert_close(store, wanted | {late: mapped(newer[None])[0]})
    assert status(store, tmp_path).unmapped == ()
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in (before | {late: newer}).items())


@pytest.mark.parametrize("name", ["chroma-langchain", "lancedb-llama-index", "parquet", "postgres-llama-index"])
def test_originals_are_saved_when_the_copy_that_holds_them_is_dropped(build, tmp_path, name):
    built = build(name, 60)
    store = built.store
    nudge, before, wanted = make_nudge(store, tmp_path)
    nudge.push(mode=SIDE_BY_SIDE)
    switch(store, tmp_path, accept_gap=True)
    late = sorted(before)[40]
    newer = before[late][::-1].copy()
    store.replace([late], newer[None])
    found = status(store, tmp_path)
    assert (len(found.nudged), found.unmapped) == (59, (late,))
    with pytest.warns(UserWarning, match=f"1 node.s. were written since all nodes were mapped .*{late}"):
        assert reapply(store, tmp_path) == ()
    drop_copies(store, tmp_path)
    assert store.copy_labels() == []
    assert_close(store, wanted | {late: newer})
    assert reapply(store, tmp_path) == (late,)
    assert_close(store, wanted | {late: mapped(newer[None])[0]})
    assert reapply(store, tmp_path) == ()
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in (before | {late: newer}).items())


@pytest.mark.parametrize("name", ["lancedb-llama-index", "parquet", "postgres-llama-index"])
def test_a_second_map_starts_from_the_originals_that_a_copy_or_the_history_holds(build, tmp_path, name):
    built = build(name, 60)
    store = built.store
    nudge, before, wanted = make_nudge(store, tmp_path)
    nudge.push(mode=IN_PLACE)
    nudge.push(mode=SIDE_BY_SIDE, force=True)
    assert_close(store, wanted)
    switch(store, tmp_path)
    assert_close(store, wanted)
    plain = replace(nudge, node_map=None)
    only_nudged = before | dict(zip(nudge.ids, nudge.vectors, strict=True))
    view = plain.overlay()
    names = sorted(before)
    np.testing.assert_array_equal(view.read(names), np.stack([only_nudged[node_id] for node_id in names]))
    drop_copies(store, tmp_path)
    plain.push(mode=IN_PLACE, force=True)
    found = everything(store)
    assert all(built.same(found[node_id], vector) for node_id, vector in only_nudged.items())
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in before.items())


def test_a_switch_of_lancedb_without_pylance(build, tmp_path, monkeypatch):
    monkeypatch.setattr(nudge_rag.stores.lance.copies, "can_rewrite", lambda: False)
    test_side_by_side(build, tmp_path, "lancedb-llama-index")


def test_two_switches_of_lancedb_keep_rows_and_handles_of_others(build, tmp_path):
    """A row that is added by a handle from before the switch is there, and live, afterwards."""
    built = build("lancedb-llama-index", 60)
    store = built.store
    nudge, before, wanted = make_nudge(store, tmp_path)
    pyarrow = pytest.importorskip("pyarrow")
    other = store.table._conn.open_table(store.table.name)
    other.checkout(other.version)
    nudge.push(mode=SIDE_BY_SIDE)
    switch(store, tmp_path)
    other.checkout_latest()
    rows = other.search().limit(1).to_arrow().drop_columns(["vector__beside_" + store.copy_labels()[0]])
    rows = rows.set_column(rows.schema.get_field_index("id"), "id", pyarrow.array(["late"]))
    other.add(rows)
    assert store.count() == 61
    late = store.read(["late"])[0]
    assert_close(store, wanted | {"late": late})
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in (before | {"late": late}).items())


def test_a_vector_that_is_written_while_lancedb_switches_is_mapped(build, tmp_path, monkeypatch):
    """Right before the commit of the switch, another writer commits: it is noticed, and the switch made anew."""
    lance = pytest.importorskip("lance")
    built = build("lancedb-llama-index", 60)
    store = built.store
    nudge, before, wanted = make_nudge(store, tmp_path)
    nudge.push(mode=SIDE_BY_SIDE)
    late = sorted(before)[40]
    newer = before[late][::-1].copy()
    commit, commits = lance.LanceDataset.commit, []

    def commit_second(*given, **options):
        commits.append(given)
        if len(commits) == 1:
            store.replace([late], newer[None])
        return commit(*given, **options)

    monkeypatch.setattr(lance.LanceDataset, "commit", commit_second)
    switch(store, tmp_path)
    assert len(commits) == 2
    assert_close(store, wanted | {late: mapped(newer[None])[0]})
    rollback(store, tmp_path)
    after = everything(store)
    assert all(built.same(after[node_id], vector) for node_id, vector in (before | {late: newer}).items())
