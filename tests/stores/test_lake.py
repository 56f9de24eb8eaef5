"""One pass over fragments on any executor: the same answer as in memory, a question a worker, workers that die."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest

from nudge_rag import LabeledPairs, tune
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores import MappingStore, ParquetStore, StoreError, map_nodes, scan
from nudge_rag.stores.lake import executors
from nudge_rag.stores.lake.executors import map_fragments
from tests.support import lake_workers

RNG = np.random.default_rng(8)
N, DIMENSION = 3000, 16
VECTORS = RNG.normal(size=(N, DIMENSION)).astype(np.float32)
VECTORS[1000:1400] = VECTORS[:400]  # equal scores in other fragments
IDS = [f"n{row}" for row in range(N)]
QUERIES = RNG.normal(size=(40, DIMENSION))


@pytest.fixture(scope="module")
def cluster():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, protocol="tcp://") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request):
    if request.param == "dask":
        yield request.getfixturevalue("cluster").get_executor()
        return
    with (ThreadPoolExecutor if request.param == "threads" else ProcessPoolExecutor)(2) as pool:
        yield pool


@pytest.fixture
def small_fragments(monkeypatch):
    monkeypatch.setattr("nudge_rag.stores.parquet.counting.ROWS_PER_FRAGMENT", 250)


@pytest.fixture
def folder(tmp_path, small_fragments):
    """Seven files in groups of 100 rows: 17 fragments."""
    place = tmp_path / "nodes"
    place.mkdir()
    flat = pyarrow.array(VECTORS.ravel())
    table = pyarrow.table({"id": IDS, "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, DIMENSION)})
    for number, start in enumerate(range(0, N, 450)):
        pyarrow.parquet.write_table(table.slice(start, 450), place / f"part-{number}.parquet", row_group_size=100)
    return place


def in_memory(similarity):
    table = {name: vector.tolist() for name, vector in zip(IDS, VECTORS, strict=True)}
    return MappingStore(table, similarity=similarity)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_the_answer_is_that_of_memory_to_the_last_tie(folder, executor, similarity):
    store = ParquetStore(folder, similarity=similarity)
    assert len(store.fragments()) == 14
    expected, without = scan(in_memory(similarity), QUERIES, 25), frozenset(IDS[::3])
    for found in (scan(store, QUERIES, 25, executor), scan(store, QUERIES, 25), store.search(QUERIES, 25)):
        assert found.ids == expected.ids
        assert np.array(found.scores).tobytes() == np.array(expected.scores).tobytes()
    found = scan(store, QUERIES, 25, executor, without=without)
    assert found.ids == scan(in_memory(similarity), QUERIES, 25, without=without).ids
    search = in_memory(similarity).search(QUERIES, 25)
    np.testing.assert_allclose(np.array(expected.scores), np.array(search.scores), rtol=1e-9)
    # Half of the nodes of a pair are there twice: the first of the two is before the other.
    twice = [line for line in expected.ids if any(name in line and f"n{int(name[1:]) + 1000}" in line for name in line)]
    assert len(twice) > 5
    for line in twice:
        pairs = [(name, f"n{int(name[1:]) + 1000}") for name in line if int(name[1:]) < 400]
        assert all(line.index(one) + 1 == line.index(other) for one, other in pairs if other in line)


def test_processes_that_are_spawned_answer_as_well(folder):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert scan(ParquetStore(folder), QUERIES, 25, pool).ids == scan(in_memory("cosine"), QUERIES, 25).ids


def test_a_filter_goes_with_the_fragments(folder, executor):
    store = ParquetStore(folder)
    chosen = pyarrow.compute.field("id").isin(IDS[::7])
    found = scan(store, QUERIES, 10, executor, where=chosen)
    assert found.ids == scan(in_memory("cosine"), QUERIES, 10, without=set(IDS) - set(IDS[::7])).ids
    assert ParquetStore(folder, executor=executor).matching(IDS[:20], chosen) == {"n0", "n7", "n14"}


def test_a_question_is_sent_once_a_worker(executor):
    seen = [
        result
        for _, result in map_fragments(lake_workers.arrival, range(40), lake_workers.Counted(os.urandom(8)), executor)
    ]
    assert len(seen) == 40
    assert len({arrival for _, arrival in seen}) == len({process for process, _ in seen}) <= 2


def test_a_worker_that_cannot_see_the_file_is_sent_the_question(executor, monkeypatch):
    monkeypatch.setattr(executors, "_shared_place", lambda folder: "/nowhere/question")
    seen = [
        result
        for _, result in map_fragments(lake_workers.arrival, range(40), lake_workers.Counted(os.urandom(8)), executor)
    ]
    assert len(seen) == 40
    assert len({arrival for _, arrival in seen}) == len({process for process, _ in seen}) <= 2


def test_without_room_for_a_file_the_question_goes_with_the_fragments(folder, executor, monkeypatch):
    expected = scan(ParquetStore(folder), QUERIES, 5).ids
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert scan(ParquetStore(folder), QUERIES, 5, executor).ids == expected


def test_no_room_is_made_for_nodes_that_are_not_there(folder):
    store = ParquetStore(folder)
    assert scan(store, QUERIES, 10**12).ids == scan(store, QUERIES, store.count()).ids


def test_threads_of_linear_algebra_do_not_multiply(executor, monkeypatch):
    counts = [result for _, result in map_fragments(lake_workers.blas_threads, range(8), None, executor)]
    assert all(count == 1 for part in counts for count in part)
    assert any(counts)


def test_results_come_with_the_numbers_of_their_fragments(executor):
    assert sorted(map_fragments(lake_workers.doubled, range(30), 1, executor)) == [(n, 2 * n + 1) for n in range(30)]
    assert list(map_fragments(lake_workers.doubled, [], 1, executor)) == []


@pytest.mark.parametrize("error", [ValueError("bad vector"), TypeError("no"), StoreError("gone")], ids=repr)
def test_errors_of_ours_are_raised_at_once(executor, error):
    with pytest.raises(type(error), match=str(error)):
        list(map_fragments(lake_workers.fail, range(5), error, executor))


def test_a_fragment_that_cannot_be_read_is_tried_again(executor, tmp_path):
    assert sorted(map_fragments(lake_workers.fail_twice, range(4), str(tmp_path), executor)) == [
        (number, number) for number in range(4)
    ]
    with pytest.raises(StoreError, match=r"could not be read in 3 tries \(OSError: broken"):
        list(map_fragments(lake_workers.fail, range(2), OSError("broken"), executor))


def processes_only(executor):
    if isinstance(executor, ThreadPoolExecutor):
        pytest.skip("a thread cannot be killed")


def test_a_worker_that_is_killed_costs_its_fragment(executor, tmp_path):
    processes_only(executor)
    found = sorted(map_fragments(lake_workers.die_once, range(12), str(tmp_path / "died"), executor))
    assert (tmp_path / "died").exists()
    assert found == [(number, number * number) for number in range(12)]


def test_a_scan_whose_worker_is_killed_midway_has_the_same_answer(folder, executor, tmp_path, monkeypatch):
    processes_only(executor)
    store, died = ParquetStore(folder), tmp_path / "died"
    fragments = store.fragments()
    fragments[5] = lake_workers.MortalFragment(fragments[5], str(died))
    monkeypatch.setattr(store, "fragments", lambda where=None: fragments)
    found = scan(store, QUERIES, 25, executor)
    assert died.exists()
    expected = scan(in_memory("cosine"), QUERIES, 25)
    assert found.ids == expected.ids
    assert np.array(found.scores).tobytes() == np.array(expected.scores).tobytes()


def test_a_fragment_that_kills_every_worker_is_an_error():
    with (
        ProcessPoolExecutor(2) as pool,
        pytest.raises(StoreError, match=r"workers died 3 time\(s\) without finishing a fragment"),
    ):
        list(map_fragments(lake_workers.die_always, range(6), None, pool))


class Inline(Executor):
    """The smallest executor that there is."""

    def submit(self, function, /, *arguments, **options):
        future = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_that_was_shut_down_is_said_to_be(folder, kind):
    with kind(1) as pool:
        store = ParquetStore(folder, executor=pool)
    with pytest.raises(StoreError, match=r"takes no calls \(cannot schedule .*\): give one that was not shut down"):
        scan(store, QUERIES, 5)


def test_any_executor_will_do(folder):
    assert scan(ParquetStore(folder), QUERIES, 5, Inline()).ids == scan(in_memory("cosine"), QUERIES, 5).ids


def test_an_executor_is_one(folder):
    with pytest.raises(TypeError, match=r"must be a concurrent\.futures\.Executor or None, got int"):
        scan(ParquetStore(folder), QUERIES, 5, 4)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="a mapping store has no fragments for an exec"):
        scan(in_memory("dot"), QUERIES, 5, pool)


def test_every_node_is_mapped_fragment_by_fragment(folder, executor):
    store = ParquetStore(folder)
    adapter = QueryAdapter(np.random.default_rng(1).normal(size=(DIMENSION, DIMENSION)) * 0.1)
    copy = map_nodes(store, adapter.apply_to_nodes, "mapped", executor)
    np.testing.assert_allclose(copy.read(IDS), adapter.apply_to_nodes(VECTORS), rtol=2e-6, atol=1e-6)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    store.switch("mapped")
    found = store.search(QUERIES, 10)
    moved = MappingStore(dict(zip(IDS, store.read(IDS).tolist(), strict=True)))
    assert found.ids == scan(moved, QUERIES, 10).ids
    store.switch("mapped")
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_a_map_that_does_not_fit_leaves_nothing(folder):
    store = ParquetStore(folder)
    for function, message in (
        (lambda vectors: vectors[:, :3], "dimension 3, the store has 16"),
        (lambda vectors: vectors[:-1], "ids but"),
        (lambda vectors: vectors * np.nan, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            map_nodes(store, function, "mapped")
    assert store.copy_labels() == []
    with pytest.raises(ValueError, match="this mapping store holds no copy"):
        map_nodes(in_memory("dot"), lake_workers.turned, "mapped")


def test_tune_scans_on_the_stores_own_executor(folder, executor):
    rng = np.random.default_rng(2)
    queries = {f"query {number} of {node}": node for node in IDS[:20] for number in range(6)}
    shift = {node: rng.normal(size=DIMENSION) for node in IDS[:20]}
    embedded = {
        text: VECTORS[int(node[1:])] * 0.6 + shift[node] + rng.normal(size=DIMENSION) * 0.2
        for text, node in queries.items()
    }

    def tuned(store):
        return tune(
            store,
            LabeledPairs.from_pairs(queries.items()),
            lambda texts: np.array([embedded[text] for text in texts]),
            solver="nudge-n",
            competitors="scan",
        )

    here, there = tuned(ParquetStore(folder)), tuned(ParquetStore(folder, executor=executor))
    assert here.reads.vectors_read == there.reads.vectors_read >= N
    assert here.vectors.tobytes() == there.vectors.tobytes()
    assert here.comparison == there.comparison
    assert there.gamma > 0


# Prints the threads that linear algebra has before, inside and after scans of several threads in one pool.
SCANS_AT_ONCE = """
import sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np, threadpoolctl
from nudge_rag.stores import ParquetStore
from nudge_rag.stores.lake.executors import map_fragments
from nudge_rag.stores.lake.scanning import scan

def threads(*_):
    return [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]

warnings.simplefilter("error")
store, queries, before = ParquetStore(sys.argv[1]), np.load(sys.argv[2]), threads()
with ThreadPoolExecutor(3) as pool:
    inside = [found for _, found in map_fragments(threads, range(9), None, pool)]
    others = [threading.Thread(target=scan, args=(store, queries, 5, pool)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
print(before, [each for each in inside if each != [1] * len(before)], threads())
"""


def test_scans_limit_threads_while_they_last_and_give_them_back(folder, tmp_path):
    np.save(tmp_path / "queries.npy", QUERIES)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", SCANS_AT_ONCE, str(folder), str(tmp_path / "queries.npy")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert printed.strip() == "[2] [] [2]"
