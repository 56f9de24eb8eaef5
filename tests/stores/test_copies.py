"""Two versions beside each other, in every store that can: nothing changes before the switch, no reader sees both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from llama_index.core.vector_stores import VectorStoreQuery

from nudge_rag import PushError, drop_copies, rollback, status, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores.base import SideBySideStore
from tests.faults.test_killed_processes import IDS, ORIGINALS
from tests.stores.test_contract import QUERIES, assert_found, brute_force, everything
from tests.support import reading_worker
from tests.support.builders.registry import STORE_OF
from tests.support.killed_worker import COLLECTION, nudged, open_store
from tests.support.killing import Killer, fill, is_whole, quietly, switch
from tests.support.reading_worker import seen

POSTGRES = ["postgres-llama-index", "postgres-llama-index-hnsw", "postgres-langchain", "postgres-langchain-v2"]
LANCE = ["lancedb-llama-index", "lancedb-langchain", "lancedb-llama-index-cosine", "lancedb-langchain-dot"]
QDRANT = ["qdrant-llama-index-cosine-alias", "qdrant-langchain-dot-alias"]
DICTIONARIES = ["simple", "simple-persisted", "in-memory", "in-memory-persisted"]
FAISS = [name for name, store in STORE_OF.items() if store == "faiss"]
IN_PROCESS = [*DICTIONARIES, *FAISS]
CHROMA = [name for name, store in STORE_OF.items() if store == "chroma"]
MILVUS = ["milvus-langchain-alias", "milvus-server-llama-index-alias"]
PARQUET = [name for name, store in STORE_OF.items() if store == "parquet"]
SIDE_BY_SIDE_STORES = [*POSTGRES, *LANCE, *QDRANT, *IN_PROCESS, *CHROMA, *MILVUS, *PARQUET]
SWITCHES = 24
EVERY = int(os.environ.get("NUDGE_RAG_KILL_EVERY", "4"))
ROUNDS = int(os.environ.get("NUDGE_RAG_KILL_ROUNDS", "4"))


@pytest.fixture(params=SIDE_BY_SIDE_STORES)
def side(request, build):
    return build(request.param, 60)


def push(store, nodes, root, shift=0.5):
    originals = store.read(nodes)
    moved = originals + np.random.default_rng(2).normal(size=originals.shape) * shift
    return push_vectors(store, nodes, originals, moved, versions=root, mode=SIDE_BY_SIDE), store.as_stored(moved)


def identical(side, found, expected):
    """Bit for bit, but for Qdrant's local mode, which normalises stored vectors again whenever it searches them."""
    return found.keys() == expected.keys() and all(side.same(found[node], expected[node]) for node in found)


def test_capabilities_are_true(built, request, tmp_path):
    able = request.node.callspec.params["built"] in SIDE_BY_SIDE_STORES
    capabilities = built.store.capabilities
    atomic = able and built.store.name != "chroma"
    assert (capabilities.side_by_side, capabilities.atomic_switch) == (able, atomic)
    if able:
        assert isinstance(built.store, SideBySideStore)
        return
    nodes = list(built.vectors)[:2]
    with pytest.raises(ValueError, match=r"does not hold two versions.*use mode='in-place'.*works on Simple"):
        push(built.store, nodes, tmp_path / "versions")
    assert not (tmp_path / "versions").exists()


def test_nothing_changes_until_the_switch_and_the_originals_come_back(side, tmp_path):
    store, root = side.store, tmp_path / "versions"
    before, contents, key = everything(store), side.contents(), store.key
    nodes = list(side.vectors)[:20]
    receipt, moved = push(store, nodes, root)
    assert receipt.written == 20
    assert identical(side, everything(store), before)
    assert side.contents() == contents
    assert_found(store.search(QUERIES, 8), brute_force(before, 8, store.capabilities.similarity))
    (label,) = store.copy_labels()
    copied = everything(store.open_copy(label))
    expected = {**before, **dict(zip(nodes, moved, strict=True))}
    assert copied.keys() == expected.keys()
    assert all(side.same(copied[node], expected[node]) for node in expected)

    assert switch(store, root).nodes == 20
    assert store.key == key
    after = everything(store)
    assert all(side.same(after[node], expected[node]) for node in expected)
    assert side.contents() == contents
    for where, keep in ((None, lambda node: True), (side.even, side.is_even)):
        found = store.search(QUERIES, 8, where=where)
        assert_found(found, brute_force(after, 8, store.capabilities.similarity, keep))
    assert identical(side, everything(store.open_copy(label)), before)
    assert str(status(store, root)) == "version 0001 (switched): 20 nudged, 0 lost, 0 changed, 0 missing"

    store = side.reopen() if side.reopen else store
    assert rollback(store, root).exact
    assert identical(side, everything(store), before)
    assert side.contents() == contents
    assert drop_copies(store, root) == ("0001",)
    assert store.copy_labels() == []
    assert side.contents() == contents
    assert_found(store.search(QUERIES, 8), brute_force(before, 8, store.capabilities.similarity))


def test_versions_of_a_label(side):
    store = side.store
    before = everything(store)
    for label in ("a", "b", "a"):
        made = store.create_copy(label)
        assert made.count() == store.count() == 60
        made.replace(list(before), -np.array(list(before.values())))
    assert sorted(store.copy_labels()) == ["a", "b"]
    store.switch("a")
    store.create_copy("c").count()
    assert identical(side, everything(store.open_copy("a")), before)
    store.switch("a")
    assert identical(side, everything(store), before)
    for label in ("a", "b", "c"):
        store.drop_copy(label)
    assert store.copy_labels() == []
    for action in (store.open_copy, store.switch, store.drop_copy):
        with pytest.raises(ValueError, match="there is no version 'a'"):
            action("a")
    for label in ("", "a b", 'a"; DROP TABLE nodes', "é", "a" * 25, None):
        with pytest.raises(ValueError, match="a label is 1 to 24 letters, digits and underscores"):
            store.create_copy(label)
    assert identical(side, everything(store), before)


def test_what_is_written_since_the_push_is_caught_up_with(side, tmp_path):
    """One node that the push moved and one that it did not are embedded again, before the switch and after it."""
    store, root = side.store, tmp_path / "versions"
    nodes = list(side.vectors)
    _, moved = push(store, nodes[:5], root)
    originals, again = everything(store), np.full((2, 12), 0.25)
    store.replace([nodes[4], nodes[9]], again)
    before = everything(store)
    assert switch(store, root).caught_up == 2
    assert identical(side, everything(store), before | dict(zip(nodes[:4], moved, strict=False)))
    store.replace([nodes[3], nodes[10]], again)
    assert rollback(store, root).exact
    stored = store.as_stored(again)
    expected = originals | dict(zip([nodes[4], nodes[9]], stored, strict=True))
    assert identical(side, everything(store), expected | dict(zip([nodes[3], nodes[10]], stored, strict=True)))


def test_a_push_of_which_nothing_is_left_is_not_switched_to(side, tmp_path):
    store, root = side.store, tmp_path / "versions"
    nodes = list(side.vectors)
    push(store, nodes[:5], root)
    store.replace(nodes[:5], np.eye(5, 12))
    before = everything(store)
    with pytest.raises(PushError, match=r"no longer what version 0001 was made from \(5 node\(s\) changed"):
        switch(store, root)
    assert identical(side, everything(store), before)


def test_a_push_in_place_to_other_nodes_makes_a_version_that_waits_stale(side, tmp_path):
    store, root = side.store, tmp_path / "versions"
    nodes, originals = list(side.vectors), everything(side.store)
    push(store, nodes[:5], root)
    before = store.read(nodes[5:8])
    push_vectors(store, nodes[5:8], before, before + 1, versions=root)
    held = everything(store)
    with pytest.raises(PushError, match=r"\(it was made over no version, and version 0002 is live\)"):
        switch(store, root)
    assert identical(side, everything(store), held)
    assert rollback(store, root).exact
    assert identical(side, everything(store), originals)


KINDS = ["postgres", "lancedb"]
FILES = ["simple", "faiss"]
KILLED = [*KINDS, *FILES, "chroma", "chroma-server"]
LOOKS = np.array([[1.0, 0.5, -0.5, 0.25]])


def url_of(kind, address):
    if kind == "postgres":
        return f"{address}&table={COLLECTION}"
    return f"lance://{quote(address)}?table=nodes"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_readers_see_one_version_or_the_other_during_switches(kind, tmp_path, servers, record_property):
    """A thread and a process search without a pause while the versions are switched back and forth."""
    address = fill(kind, tmp_path, servers, IDS, ORIGINALS)
    store = open_store(kind, address)
    push_vectors(store, IDS, ORIGINALS, -ORIGINALS, versions=tmp_path / "v", mode=SIDE_BY_SIDE)
    (label,) = store.copy_labels()
    known = [seen(one, LOOKS, 12) for one in (store, store.open_copy(label))]
    assert json.loads(known[0])[0][0] != json.loads(known[1])[0][0]
    command = [sys.executable, str(Path(reading_worker.__file__)), url_of(kind, address)]
    worker = subprocess.Popen(
        [*command, json.dumps(LOOKS[0].tolist()), "12"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    answers, errors, done = Counter(), [], threading.Event()

    def read():
        reader = open_store(kind, address)
        while not done.is_set():
            try:
                answers[seen(reader, LOOKS, 12)] += 1
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert worker.stdout.readline() == "ready\n"
        for round_ in range(SWITCHES // 2):
            switch(store, tmp_path / "v")
            done.wait(0.05 * (round_ % 3))
            assert rollback(store, tmp_path / "v").exact
            done.wait(0.05 * (round_ % 2))
            if round_ >= ROUNDS and len(answers) == 2:
                break
    finally:
        done.set()
        thread.join()
        told, _ = worker.communicate("")
    other = json.loads(told)
    for found, failed in ((answers, errors), (Counter(other["answers"]), other["errors"])):
        assert not failed, failed[:3]
        assert set(found) == set(known)
    record_property("answers", {"thread": list(answers.values()), "process": list(other["answers"].values())})
    assert store.read(IDS).tobytes() == ORIGINALS.tobytes()


def by_its_own(store):
    """How the framework searches its own object, as whoever holds that does."""
    held = store.vector_store if hasattr(store, "vector_store") else store._held_by[0]
    if hasattr(held, "similarity_search_with_score_by_vector"):
        found = held.similarity_search_with_score_by_vector(QUERIES[0].tolist(), k=60)
        return [(document.id, round(float(score), 4)) for document, score in found]
    found = held.query(VectorStoreQuery(query_embedding=QUERIES[0].tolist(), similarity_top_k=60))
    return [(node, round(score, 4)) for node, score in zip(found.ids, found.similarities, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_PROCESS)
def test_threads_see_one_version_or_the_other_during_switches(name, build, tmp_path):
    """Searches through the adapter and the framework's object, and the file read anew, while versions are switched."""
    side = build(name, 60)
    store, root = side.store, tmp_path / "versions"
    nodes = list(side.vectors)
    before = everything(store)
    push_vectors(store, nodes, store.read(nodes), -store.read(nodes), versions=root, mode=SIDE_BY_SIDE)
    looks = [lambda: seen(store, QUERIES[:1], 60), lambda: by_its_own(store), lambda: store.read(nodes).tobytes()]
    if side.reopen:
        looks.append(lambda: side.reopen().read(nodes).tobytes())
    known = [{str(look())} for look in looks]
    switch(store, root)
    for one, look in zip(known, looks, strict=True):
        one.add(str(look()))
    rollback(store, root)
    answers, errors, done = [Counter() for _ in looks], [], threading.Event()

    def read(look, count):
        while not done.is_set():
            try:
                count[str(look())] += 1
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=read, args=pair) for pair in zip(looks, answers, strict=True)]
    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for round_ in range(SWITCHES // 2):
            switch(store, root)
            done.wait(0.02 * (round_ % 3))
            assert rollback(store, root).exact
            done.wait(0.02 * (round_ % 2))
            if round_ >= ROUNDS and all(len(count) == 2 for count in answers):
                break
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(often)
    assert not errors, errors[:3]
    for found, one in zip(answers, known, strict=True):
        assert len(one) == 2
        assert set(found) == one
    assert identical(side, everything(store), before)


@pytest.fixture
def killer():
    return Killer()


@pytest.mark.slow
@pytest.mark.parametrize("action", ["push-beside", "switch", "rollback", "drop"])
@pytest.mark.parametrize("kind", KILLED)
def test_no_version_is_lost_wherever_the_process_is_killed(kind, action, tmp_path, servers, killer, record_property):
    kills, moved = 0, nudged(ORIGINALS, 2)
    for steps in range(0, 400, EVERY):
        folder = tmp_path / str(steps)
        folder.mkdir()
        address, root = fill(kind, folder, servers, IDS, ORIGINALS), folder / "v"
        store = open_store(kind, address)
        if action != "push-beside":
            push_vectors(store, IDS, ORIGINALS, moved, versions=root, mode=SIDE_BY_SIDE)
        if action in ("rollback", "drop"):
            switch(store, root)
        np.savez(folder / "vectors.npz", ids=np.array(IDS), originals=ORIGINALS)
        ended = killer.run(
            kind, address=address, vectors=folder / "vectors.npz", root=root, action=action, number=2, steps=steps
        )
        assert ended in (0, signal.SIGKILL)
        kills += ended != 0
        store = open_store(kind, address)
        may_be = {"push-beside": [ORIGINALS], "drop": [moved]}.get(action, [ORIGINALS, moved])
        assert is_whole(store, IDS, *may_be), f"a mixture after {steps} steps"
        assert quietly(rollback, store, root).exact
        assert is_whole(store, IDS, ORIGINALS)
        quietly(push_vectors, store, IDS, ORIGINALS, moved, versions=root, mode=SIDE_BY_SIDE)
        switch(store, root)
        assert is_whole(store, IDS, moved)
        rollback(store, root)
        drop_copies(store, root)
        assert is_whole(store, IDS, ORIGINALS)
        assert store.copy_labels() == []
        assert {version.state for version in versions(store, root)} == {"rolled back"}
        if kind in FILES:
            history = f"{Path(address).name}.nudge-rag"  # holds the mark that names the folder of versions
            left = {path.name for path in folder.iterdir()} - {
                "v",
                "vectors.npz",
                Path(address).name,
                "ids.json",
                history,
            }
            assert not left, "nothing of what was cut off stays behind"
        if ended == 0:
            break
    record_property("store", kind)
    record_property("kills", kills)
    assert kills == steps // EVERY > 0
