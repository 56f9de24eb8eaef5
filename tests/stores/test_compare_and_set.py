"""A vector that somebody else changed is never overwritten, and a node that somebody deleted never comes back."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nudge_rag.stores import StoreError
from nudge_rag.stores.history import TransactionalStore
from tests.support.builders.registry import BUILDERS

RNG = np.random.default_rng(4)


def test_only_expected_vectors_are_overwritten(built):
    store, contents = built.store, built.contents()
    nodes = list(built.vectors)[:20]
    expected = store.read(nodes)
    newer, ours = RNG.normal(size=(3, 12)), RNG.normal(size=(22, 12))
    store.replace(nodes[5:8], newer)
    gone = "00000000-0000-4000-8000-00000000dead"
    skipped = store.replace_vectors_if(
        [*nodes[:10], gone, *nodes[10:]], np.insert(expected, 10, 1.0, axis=0), ours[:21]
    )
    assert skipped == [*nodes[5:8], gone]
    assert built.same(store.read(nodes[5:8]), store.as_stored(newer))
    written = [row for row in range(20) if row not in (5, 6, 7)]
    kept = np.delete(ours[:21], 10, axis=0)
    assert built.same(store.read([nodes[row] for row in written]), store.as_stored(kept[written]))
    assert store.count() == 60
    assert store.matching([gone], None) == set()
    assert built.contents() == contents


def test_nothing_to_compare_is_nothing_written(untouched):
    assert untouched.store.replace_vectors_if([], np.zeros((0, 12)), np.zeros((0, 12))) == []
    nodes = list(untouched.vectors)[:2]
    with pytest.raises(ValueError, match="dimension 5, the store has 12"):
        untouched.store.replace_vectors_if(nodes, np.ones((2, 12)), np.ones((2, 5)))
    with pytest.raises(ValueError, match="2 ids but 3 vectors"):
        untouched.store.replace_vectors_if(nodes, np.ones((3, 12)), np.ones((2, 12)))


ATOMIC = ["duckdb-langchain", "parquet", "postgres-llama-index", "redis-langchain", "sqlite-vec-langchain"]


@pytest.mark.parametrize("name", [name for name in ATOMIC if name in BUILDERS])
def test_counters_that_two_threads_raise_lose_no_step(build, name):
    """Each thread adds 1 to a vector's first number by compare and set: 2 x 15 steps make 30, as nothing is lost."""
    built = build(name, 60)
    node = next(iter(built.vectors))
    stores = [built.reopen() if name.startswith(("postgres", "redis")) else built.store for _ in range(2)]
    stores[0].replace([node], np.zeros((1, 12)))
    failures = []

    def count(store):
        try:
            for _ in range(15):
                while True:
                    seen = store.read([node])
                    if not store.replace_vectors_if([node], seen, seen + np.eye(1, 12)):
                        break
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=count, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stores[0].read([node])[0, 0] == 30


@pytest.mark.parametrize("name", [name for name in [*ATOMIC, "lancedb-langchain"] if name in BUILDERS])
def test_the_last_vector_of_a_writer_that_never_compares_stays(build, name):
    """A pipeline writes each node once, in turn, while ours compares and sets: no vector of the pipeline is lost."""
    built = build(name, 60)
    nodes = list(built.vectors)[:30]
    ours = built.reopen() if name.startswith(("postgres", "redis", "lancedb")) else built.store
    embeddings = RNG.normal(size=(30, 12)).astype(ours.capabilities.dtype)
    failures = []

    def write(node, row):
        while True:
            try:
                return built.store.replace([node], row[None])
            except StoreError:  # Redis refuses a write that another has crossed
                continue

    def ingest():
        try:
            for node, row in zip(nodes, embeddings, strict=True):
                write(node, row)
        except Exception as error:
            failures.append(error)

    seen = ours.read(nodes)
    pipeline = threading.Thread(target=ingest)
    pipeline.start()
    while pipeline.is_alive():
        written = seen + ours.as_stored(np.ones_like(seen))
        skipped = set(ours.replace_vectors_if(nodes, seen, written))
        rows = [row for row, node in enumerate(nodes) if node not in skipped]
        seen[rows] = written[rows]
    pipeline.join()
    assert failures == []
    assert sorted(ours.replace_vectors_if(nodes, seen, seen)) == sorted(nodes)
    assert ours.read(nodes).tobytes() == embeddings.tobytes()


TRANSACTIONS = ["duckdb-langchain", "duckdb-llama-index", "postgres-langchain", "sqlite-vec-langchain"]


@pytest.mark.parametrize("name", [name for name in TRANSACTIONS if name in BUILDERS])
def test_a_transaction_that_fails_leaves_nothing(build, name):
    built = build(name, 60)
    nodes = list(built.vectors)
    before = built.store.read(nodes)
    with pytest.raises(RuntimeError, match="power cut"), built.store.transaction():
        built.store.replace(nodes[:2], np.ones((2, 12)))
        assert built.store.replace_vectors_if(nodes[2:4], before[2:4], np.ones((2, 12))) == []
        raise RuntimeError("power cut")
    assert built.same(built.store.read(nodes), before)
    with built.store.transaction():
        built.store.replace(nodes[:2], np.ones((2, 12)))
        with built.store.transaction():
            built.store.replace(nodes[2:3], np.ones((1, 12)))
    assert built.same(built.store.read(nodes[:3]), np.ones((3, 12), dtype=before.dtype))


def test_a_store_without_transactions_has_none(build):
    assert not isinstance(build("simple", 60).store, TransactionalStore)
    assert isinstance(build("sqlite-vec-langchain", 60).store, TransactionalStore)
