"""Lance datasets: opened by their folder, pushed to by merges, scanned by fragments of one version."""

from __future__ import annotations

import datetime
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import lance
import numpy as np
import pyarrow
import pytest

from nudge_rag import open_store, rollback, switch
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import LanceStore, MappingStore, StoreError, UnknownIdError, map_nodes, scan
from nudge_rag.stores.copies import DerivedNodes

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


def test_a_dataset_is_opened_with_an_executor(dataset, tmp_path, monkeypatch):
    columns = {"id_column": "key", "vector_column": "v"}
    with ThreadPoolExecutor(1) as pool:
        for place in (dataset.uri, f"{dataset.uri}/", tmp_path / "docs.lance"):
            store = LanceStore.open(place, executor=pool, **columns)
            assert (store.key, store.executor) == (open_store(url(dataset)).key, pool)
    monkeypatch.chdir(tmp_path)
    assert LanceStore.open("docs.lance", **columns).count() == N
    with pytest.raises(
        ValueError, match=r"name the table, or give the folder of a Lance dataset, which ends in \.lance"
    ):
        LanceStore.open(tmp_path)
    with pytest.raises(ValueError, match="there is no LanceDB folder at '/nowhere'"):
        LanceStore.open("/nowhere/docs.lance")
    with pytest.raises(ValueError, match="Table 'others' was not found"):
        LanceStore.open(tmp_path / "others.lance")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_a_dataset_without_an_index_ranks_as_the_application_does(dataset, similarity):
    store = open_store(f"{url(dataset)}&similarity={similarity}")
    memory = MappingStore(dict(zip(IDS[:500], VECTORS.tolist(), strict=False)), similarity=similarity)
    assert store.capabilities.similarity == similarity
    assert store.search(QUERIES, 9, where="number < 500").ids == memory.search(QUERIES, 9).ids
    with pytest.raises(ValueError, match="similarity must be one of cosine, dot, l2, got 'near'"):
        open_store(f"{url(dataset)}&similarity=near")


def test_an_index_says_how_a_dataset_ranks(dataset):
    dataset.create_index("v", "IVF_FLAT", num_partitions=1, metric="cosine")
    assert open_store(f"{url(dataset)}&similarity=cosine").capabilities.similarity == "cosine"
    with pytest.raises(ValueError, match="similarity is 'dot', and the index over 'v' ranks by 'cosine'"):
        open_store(f"{url(dataset)}&similarity=dot")


WITHOUT_ID, WITHOUT_VECTOR = (3, 260), (5, 6, 270)


@pytest.fixture
def with_gaps(tmp_path):
    """A dataset with rows that lack an id or a vector, and the rows of its nodes."""
    ids = [None if row in WITHOUT_ID else name for row, name in enumerate(IDS)]
    vectors = [None if row in WITHOUT_VECTOR else vector.tolist() for row, vector in enumerate(VECTORS)]
    kind = pyarrow.list_(pyarrow.float32(), DIMENSION)
    table = pyarrow.table({"id": ids, "vector": pyarrow.array(vectors, kind), "number": range(N)})
    lance.write_dataset(table, str(tmp_path / "docs.lance"), max_rows_per_file=250)
    return tmp_path / "docs.lance", table, [row for row in range(N) if row not in WITHOUT_ID + WITHOUT_VECTOR]


def test_rows_without_an_id_or_a_vector_are_no_nodes(with_gaps):
    place, _, rows = with_gaps
    store, ids = LanceStore.open(place), [IDS[row] for row in rows]
    memory = MappingStore({IDS[row]: VECTORS[row].tolist() for row in rows}, similarity="l2")
    assert [name for names, _ in store.scan(100) for name in names] == ids
    assert store.count() == N - len(WITHOUT_ID)
    expected = scan(memory, QUERIES, 20).ids
    with ThreadPoolExecutor(2) as pool:
        assert scan(store, QUERIES, 20).ids == scan(store, QUERIES, 20, pool).ids == expected
    nearest = VECTORS[[*WITHOUT_ID, *WITHOUT_VECTOR]]
    assert store.search(nearest, 3).ids == memory.search(nearest, 3).ids
    assert store.search(nearest, 3, where="number < 500").ids == [
        [name for name in line if int(name[1:]) < 500][:3] for line in memory.search(nearest, 9).ids
    ]
    assert store.matching([IDS[3], IDS[5], IDS[7]], None) == {IDS[7]}
    with pytest.raises(UnknownIdError, match="n5"):
        store.read([IDS[5], IDS[7]])
    assert store.replace_vectors_if(IDS[4:6], VECTORS[4:6], VECTORS[4:6] + 1) == [IDS[5]]


@pytest.mark.parametrize("written", ["pushed", "derived", "mapped"])
def test_rows_without_an_id_or_a_vector_stay_as_they_are(with_gaps, written):
    place, table, rows = with_gaps
    store, ids = LanceStore.open(place), [IDS[row] for row in rows]
    if written == "pushed":
        assert push_vectors(store, ids[:9], VECTORS[rows[:9]], -VECTORS[rows[:9]], mode=SIDE_BY_SIDE).pushed
        switch(store)
    elif written == "derived":
        assert store.derive_copy("turned", lambda names, vectors: -vectors) == len(rows)
        same = DerivedNodes(lambda names, vectors: -vectors, lambda one, other: (one == other).all(axis=1))
        store.catch_up_and_switch("turned", same, None)
    else:
        map_nodes(store, np.negative, "turned")
        store.switch("turned")
    n_moved = 9 if written == "pushed" else len(rows)
    expected = VECTORS[rows] * np.where(np.arange(len(rows)) < n_moved, -1, 1)[:, None].astype(np.float32)
    assert store.read(ids).tobytes() == expected.tobytes()
    (label,) = store.copy_labels()
    assert store.open_copy(label).read(ids).tobytes() == VECTORS[rows].tobytes()
    store.switch(label)
    found = lance.dataset(str(place)).to_table(["id", "vector", "number"]).sort_by("number")
    assert found.equals(table.cast(found.schema))


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


def test_fragments_of_a_version_that_is_cleaned_up_say_so_and_later_reads_go_on(dataset):
    store = open_store(url(dataset))
    fragments = store.fragments()
    theirs = lance.dataset(dataset.uri)
    theirs.update({"number": "number + 1"})
    theirs.cleanup_old_versions(datetime.timedelta(0), delete_unverified=True)
    with pytest.raises(StoreError, match="the version that was being read was cleaned up meanwhile: call again"):
        list(fragments[0].batches(64))
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert sum(len(names) for part in store.fragments() for names, _ in part.batches(64)) == N


def test_a_copy_is_scanned_by_fragments(dataset):
    store = open_store(url(dataset))
    copy = store.create_copy("other")
    copy.replace(IDS[:2], np.full((2, DIMENSION), 9.0))
    with ThreadPoolExecutor(2) as executor:
        assert sorted(scan(copy, np.full((1, DIMENSION), 9.0), 2, executor).ids[0]) == ["n0", "n1"]
        assert scan(store, QUERIES, 15, executor).ids == scan(in_memory(), QUERIES, 15).ids
