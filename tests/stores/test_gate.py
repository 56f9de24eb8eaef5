"""What a push would forget is known on every kind of store, after a prune, a switch, a drop and a rollback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nudge_rag import drop_copies, prune, rollback, switch, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from tests.stores.test_node_map import SIDE_BY_SIDE_STORES, make_nudge
from tests.support.nudges import swapped

STORES = [
    "chroma-langchain",
    "duckdb-llama-index",
    "lancedb-llama-index",
    "milvus-langchain",
    "postgres-langchain-v2",
    "qdrant-llama-index-cosine",
    "simple-persisted",
    "sqlite-vec-langchain",
]
# Of five nights: each learns one query that is new, and forgets one.
NIGHTS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")]


def push_nights(store):
    """A push a night, each with its own vectors; the last one is live."""
    names = [node for part, _ in store.scan() for node in part][:4]
    originals = store.read(names)
    for shift, queries in enumerate(NIGHTS):
        nudge = swapped(store, names, originals)
        moved = originals[[(row + 1 + shift % 3) % 4 for row in range(4)]]
        assert replace(nudge, vectors=moved, query_hashes=queries).push(force=True).pushed
    return names, originals


def forgotten(store, names, originals, queries, versions=None):
    """What a push that knows these queries alone says, if it is not forced."""
    return replace(swapped(store, names, originals), query_hashes=queries, versions=versions).refusal() or ""


@pytest.mark.parametrize("name", STORES)
def test_after_a_prune_the_live_version_knows_its_queries(build, name):
    store = build(name, 8).store
    names, originals = push_nights(store)
    assert prune(store, keep=0) == ("0001", "0002", "0003", "0004")
    assert "forget 1 of the 2 queries that version 0005" in forgotten(store, names, originals, ("f",))
    assert forgotten(store, names, originals, ("e", "f", "g")) == ""


@pytest.mark.parametrize("name", STORES)
def test_a_version_that_is_live_again_knows_its_queries_although_its_own_record_was_thinned_out(build, name):
    built = build(name, 8)
    store = built.store
    names, originals = push_nights(store)
    assert next(one for one in versions(store) if one.name == "0002").is_thinned
    assert rollback(store, version="0003").exact
    assert "forget 2 of the 2 queries that version 0002" in forgotten(store, names, originals, ("a",))
    assert forgotten(store, names, originals, ("b", "c")) == ""
    held = store.read(names).tobytes()
    with pytest.raises(ValueError, match=r"0002 cannot be undone by itself: it is live again by a rollback"):
        rollback(store, version="0002")
    assert store.read(names).tobytes() == held
    prune(store, keep=0)
    assert "forget 1 of the 2 queries that version 0002" in forgotten(store, names, originals, ("b",))
    assert rollback(store).restored == 4
    assert built.same(store.read(names), originals)


@pytest.mark.parametrize("name", SIDE_BY_SIDE_STORES)
def test_a_map_of_all_nodes_that_was_switched_to_knows_its_queries(build, tmp_path, name):
    built = build(name, 60)
    store, queries = built.store, ("a", "b", "c")
    nudge, before, _ = make_nudge(store, tmp_path)
    assert replace(nudge, query_hashes=queries).push(mode=SIDE_BY_SIDE).pushed
    names = sorted(before)[:4]
    originals = store.read(names)
    assert forgotten(store, names, originals, ("a",), tmp_path) == "", "it waits, and nothing is live"
    switch(store, tmp_path, accept_gap=True)
    for prepare in (lambda: None, lambda: prune(store, tmp_path, keep=0), lambda: drop_copies(store, tmp_path)):
        prepare()
        assert "forget 2 of the 3 queries that version 0001" in forgotten(store, names, originals, ("a",), tmp_path)
        assert forgotten(store, names, originals, (*queries, "d"), tmp_path) == ""
    rollback(store, tmp_path)
    assert forgotten(store, names, originals, ("a",), tmp_path) == ""
    assert all(built.same(store.read([node_id])[0], vector) for node_id, vector in list(before.items())[:5])
