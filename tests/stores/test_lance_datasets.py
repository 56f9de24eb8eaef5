"""Lance datasets: opened by their folder, pushed to by merges, scanned by fragments of one version."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import lance
import numpy as np
import pyarrow
import pytest

from nudge_rag import open_store, rollback
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import LanceStore, MappingStore, scan

N, DIMENSION = 900, 8
VECTORS = np.random.default_rng(3).normal(size=(N, DIMENSION)).astype(np.float32)
VECTORS[500:600] = VECTORS[:100]  # equal scores in other fragments
IDS = [f"n{row}" for row in range(N)]
QUERIES = np.random.default_rng(4).normal(size=(20, DIMENSION))


@pytest.fixture
def dataset(tmp_path):
    flat = pyarrow.array(VECTORS.ravel())
    columns = {"key": IDS, "v": pyarrow.FixedSizeListArray.from_arrays(flat, DIMENSION), "number": range(N)}
    return lance.write_dataset(pyarrow.table(columns), str(tmp_path / "docs.lance"), max_rows_per_file=250)


def url(dataset):
    return f"lance://{dataset.uri}?id=key&vector=v"


def in_memory():
    table = {name: vector.tolist() for name, vector in zip(IDS, VECTORS, strict=True)}
    return MappingStore(table, similarity="l2")


def test_a_dataset_is_opened_by_its_folder(dataset):
    store = open_store(url(dataset))
    assert (store.count(), store.name) == (N, "lancedb")
    assert store.read(IDS[:3]).tobytes() == VECTORS[:3].tobytes()
    other = open_store(f"lance://{dataset.uri.removesuffix('/docs.lance')}?table=docs&id=key&vector=v")
    assert other.key == store.key
    with pytest.raises(ValueError, match=r"misses table.*a path that ends in \.lance needs no table"):
        open_store("lance:///data/docs")


def test_a_push_is_a_merge_and_a_rollback_another(dataset):
    store, before = open_store(url(dataset)), dataset.version
    push_vectors(store, IDS[:4], VECTORS[:4], VECTORS[:4] + 1)
    fresh = lance.dataset(dataset.uri)
    assert fresh.version == before + 1
    moved = fresh.to_table(filter="key IN ('n0', 'n1', 'n2', 'n3')").sort_by("number")
    assert np.array(moved["v"].to_pylist(), dtype=np.float32).tobytes() == (VECTORS[:4] + 1).tobytes()
    assert moved["number"].to_pylist() == [0, 1, 2, 3]
    assert rollback(open_store(url(dataset))).exact
    assert open_store(url(dataset)).read(IDS).tobytes() == VECTORS.tobytes()


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_fragments_answer_as_memory_does_to_the_last_tie(dataset, pool):
    store = open_store(url(dataset))
    expected = scan(in_memory(), QUERIES, 15)
    assert scan(store, QUERIES, 15).ids == expected.ids
    # Lance's own threads do not survive a fork.
    spawned = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) if pool == "threads" else ProcessPoolExecutor(2, mp_context=spawned) as executor:
        found = scan(store, QUERIES, 15, executor)
        assert found.ids == expected.ids
        assert np.array(found.scores).tobytes() == np.array(expected.scores).tobytes()
        chosen = scan(store, QUERIES, 15, executor, where="number % 3 = 0")
        assert chosen.ids == scan(in_memory(), QUERIES, 15, without={n for n in IDS if int(n[1:]) % 3}).ids
        assert scan(
            LanceStore(store.table, id_column="key", vector_column="v", executor=executor), QUERIES, 15
        ).ids == (expected.ids)


def test_fragments_stay_at_their_version(dataset):
    store = open_store(url(dataset))
    fragments = store.fragments()
    assert [fragment.rows for fragment in fragments] == [250, 250, 250, 150]
    store.replace(IDS[:2], np.zeros((2, DIMENSION)))
    seen = [
        (name, row)
        for part in fragments
        for names, rows in part.batches(64)
        for name, row in zip(names, rows, strict=True)
    ]
    assert [name for name, _ in seen] == IDS
    assert np.array([row for _, row in seen]).tobytes() == VECTORS.tobytes()
    assert sum(fragment.rows for fragment in store.fragments()) == N


def test_a_copy_is_scanned_by_fragments(dataset):
    store = open_store(url(dataset))
    copy = store.create_copy("other")
    copy.replace(IDS[:2], np.full((2, DIMENSION), 9.0))
    with ThreadPoolExecutor(2) as executor:
        assert sorted(scan(copy, np.full((1, DIMENSION), 9.0), 2, executor).ids[0]) == ["n0", "n1"]
        assert scan(store, QUERIES, 15, executor).ids == scan(in_memory(), QUERIES, 15).ids
