"""The version whose vectors are in memory, of stores whose history has gone on by other processes."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import prune, rollback
from nudge_rag.journal.changes import CHANGES_HERE
from nudge_rag.journal.journal import Journal, original_vectors
from nudge_rag.journal.packed_map import pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.stores.storages import ProcessStorage
from nudge_rag.tuning.adapters import ADAPTER, LiveAdapter
from nudge_rag.tuning.held_version import HeldVersions

pytestmark = pytest.mark.filterwarnings("ignore:this mapping store has no file")
IDS = [f"n{row}" for row in range(200)]
MAPS = {name: QueryAdapter(np.full((4, 4), number, dtype=np.float32)) for number, name in enumerate("abcdefgh", 1)}


class LoadedStore(MappingStore):
    """A store that others write to, while this process searches what it had loaded."""

    def __init__(self, table):
        super().__init__(table)
        self.loaded = None

    def history(self):
        return ProcessStorage.of(self)

    def load(self):
        self.loaded = {node_id: list(vector) for node_id, vector in self._mapping().items()}

    def vectors_in_memory(self, ids):
        return {node_id: np.array(self.loaded[node_id]) for node_id in ids if node_id in self.loaded}


@pytest.fixture
def store():
    rows = np.random.default_rng(0).normal(size=(len(IDS), 4)).tolist()
    made = LoadedStore(dict(zip(IDS, rows, strict=True)))
    made.load()
    return made


def push(store, name, ids, by):
    originals = original_vectors(store, ids, store.read(ids))
    details = {} if name is None else {ADAPTER: pack_adapter(MAPS[name])}
    push_vectors(store, ids, originals, originals + by, details=details)


def found(store, versions=None):
    return (HeldVersions() if versions is None else versions).find(Journal.open(store))


def test_whatever_was_loaded_keeps_its_map_however_the_history_goes_on(store):
    steps = [
        lambda: push(store, "a", IDS[:50], 0.1),
        lambda: push(store, "b", IDS[:120], 0.2),
        lambda: push(store, None, IDS[40:130], 0.3),
        lambda: push(store, "c", [IDS[0], *IDS[40:130]], 0.3),  # one node moves, all others stay
        lambda: rollback(store, version="0004"),
        lambda: rollback(store, version="0003"),
        lambda: rollback(store),
    ]
    maps = [None, "a", "b", None, "c", None, "b", None]
    names = [None, "0001", "0002", "0003", "0004", "0003", "0002", None]
    followers = []
    for stage in range(len(steps) + 1):
        store.load()
        followers.append((stage, store.loaded, HeldVersions()))
        for loaded_at, loaded, versions in followers:
            store.loaded = loaded
            held = found(store, versions)
            expected = None if maps[loaded_at] is None else MAPS[maps[loaded_at]].change
            assert held.name == names[loaded_at], (loaded_at, stage)
            assert (held.adapter is None) == (expected is None)
            assert held.adapter is None or np.array_equal(held.adapter.change, expected)
            if stage - loaded_at <= 2:  # the records of three versions before the live one are kept
                assert found(store).name == names[loaded_at], (loaded_at, stage)
        if stage < len(steps):
            steps[stage]()


def test_what_was_served_stays_if_its_record_is_pruned(store):
    push(store, "a", IDS[:50], 0.1)
    store.load()
    versions = HeldVersions()
    assert found(store, versions).name == "0001"
    for number in range(5):
        push(store, "b", IDS[:50], 0.2 + number)
    prune(store, keep=1)
    assert "0001" not in [version.name for version in Journal.open(store).versions]
    held = found(store, versions)
    assert held.name == "0001"
    assert np.array_equal(held.adapter.change, MAPS["a"].change)
    store.load()
    assert found(store, versions).name == "0006"
    # Once nothing can be held of it any more, nothing is kept of it.
    assert found(store, versions).name == "0006"
    assert {mark.partition("-")[0] for mark in versions._nodes} <= {"0005", "0006"}


def test_a_map_is_followed_that_came_with_no_move(store):
    """The vectors are those of both versions: the live one counts."""
    push(store, "a", IDS[:50], 0.1)
    store.load()
    versions = HeldVersions()
    assert found(store, versions).name == "0001"
    push(store, "b", IDS[:50], 0.1)
    assert found(store, versions).name == "0002"
    assert found(store).name == "0002"


def test_nodes_that_were_all_embedded_again_by_another_model_tell_nothing(store):
    push(store, "a", IDS[:50], 0.1)
    store.loaded = {node_id: [9.0, 9.0, 9.0, 9.0] for node_id in IDS}
    assert found(store).name == "0001"


def test_nothing_is_told_while_the_process_writes_itself(store, recwarn):
    adapter = LiveAdapter(lambda: store)
    push(store, "a", IDS[:50], 0.1)
    with CHANGES_HERE.change():
        assert adapter.find() is None
    assert not [one for one in recwarn if "in memory, and" in str(one.message)]
    with pytest.warns(UserWarning, match="this mapping store holds the vectors from before any push in memory"):
        assert adapter.find() is None
    store.load()
    with CHANGES_HERE.change():
        pass
    assert np.array_equal(adapter.find().change, MAPS["a"].change)
