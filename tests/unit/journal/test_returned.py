"""Vectors of a push that is over come back, from a backup or a process that had them in memory: they are known."""

from __future__ import annotations

import numpy as np
import pytest

import nudge_rag.journal.blocks
from nudge_rag import drop_copies, prune, reapply, rollback, status, switch, versions
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.journal.node_map import NODE_MAP, pack_adapter, untouched_store
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.versions import Version
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from tests.support.two_tables import FIRST, IDS, ORIGINALS, SECOND, holds, nudged, two_tables
from tests.support.two_tables import push as push_beside


@pytest.fixture
def table():
    return dict(zip(IDS, ORIGINALS.tolist(), strict=True))


@pytest.fixture
def store(table):
    return MappingStore(table, key="test")


@pytest.fixture
def push(store, tmp_path):
    def push_some(ids, vectors):
        originals = original_vectors(store, ids, store.read(ids), tmp_path)
        return push_vectors(store, ids, originals, np.asarray(vectors), versions=tmp_path)

    return push_some


def held(table):
    return {node_id: np.array(vector).tobytes() for node_id, vector in table.items()}


def test_a_nudge_that_a_backup_brings_back_after_a_rollback_is_told_and_undone(table, store, push, tmp_path):
    before = held(table)
    push(IDS[:4], FIRST[:4])
    backup = dict(table)
    rollback(store, tmp_path)
    assert status(store, tmp_path).returned == ()
    table.update(backup)
    found = status(store, tmp_path)
    assert (found.version, found.returned, found.returned_from) == (None, tuple(IDS[:4]), ("0001",))
    assert str(found) == (
        "nothing is pushed; 4 node(s) hold vectors of version 0001 although it was rolled back: rollback() undoes them"
    )
    receipt = rollback(store, tmp_path)
    assert (receipt.restored, receipt.version, receipt.changed_since) == (4, "0001", ())
    assert held(table) == before
    assert status(store, tmp_path).returned == ()


def test_what_came_back_is_never_taken_for_an_original(table, store, push, tmp_path):
    push(IDS[:4], FIRST[:4])
    backup = dict(table)
    rollback(store, tmp_path)
    table.update({node_id: backup[node_id] for node_id in IDS[:3]})
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tolist() == ORIGINALS.tolist()
    assert set(nudged_ids(store, tmp_path)) == set(IDS[:3])
    # n0 is pushed anew, n1 and n2 are nudged no longer, n4 is new.
    push(["n0", "n4"], SECOND[[0, 4]])
    wanted = ORIGINALS.copy()
    wanted[[0, 4]] = SECOND[[0, 4]]
    assert store.read(IDS).tolist() == wanted.tolist()
    rollback(store, tmp_path)
    assert store.read(IDS).tolist() == ORIGINALS.tolist()


def test_what_was_embedded_again_since_stays(table, store, push, tmp_path):
    push(IDS[:4], FIRST[:4])
    rollback(store, tmp_path)
    table.update({"n0": [7.0, 7.0, 7.0], "n1": FIRST[1].tolist()})
    assert status(store, tmp_path).returned == ("n1",)
    rollback(store, tmp_path)
    assert store.read(["n0", "n1"]).tolist() == [[7.0, 7.0, 7.0], ORIGINALS[1].tolist()]


@pytest.mark.parametrize("way", ["rollback", "reapply"])
def test_vectors_of_a_version_before_the_live_one_come_back(table, store, push, tmp_path, way):
    push(IDS[:3], FIRST[:3])
    backup = dict(table)
    push(IDS[1:5], SECOND[1:5])
    push(IDS[1:5], SECOND[1:5] + 1)
    live = dict(table)
    table.update({node_id: backup[node_id] for node_id in ("n0", "n1")})
    found = status(store, tmp_path)
    # The live version had found the second one's vectors, of the first it knows nothing.
    assert (set(found.returned), found.returned_from, found.changed) == ({"n0", "n1"}, ("0001",), ())
    assert "version 0001 although it is no longer live: reapply() or rollback()" in str(found)
    if way == "reapply":
        assert set(reapply(store, tmp_path)) == {"n0", "n1"}
        assert table == live
        assert status(store, tmp_path).returned == ()
    assert rollback(store, tmp_path).changed_since == ()
    assert store.read(IDS).tolist() == ORIGINALS.tolist()


def test_a_version_undone_by_itself_is_known_as_well(table, store, push, tmp_path):
    push(IDS[:3], FIRST[:3])
    before = dict(table)
    push(IDS[:3], SECOND[:3])
    backup = dict(table)
    rollback(store, tmp_path, version="0002")
    assert table == before
    table["n0"] = backup["n0"]
    assert status(store, tmp_path).returned_from == ("0002",)
    reapply(store, tmp_path)
    assert table == before
    table["n0"] = backup["n0"]
    rollback(store, tmp_path)
    assert store.read(IDS).tolist() == ORIGINALS.tolist()


def test_the_newest_versions_that_are_over_are_known_and_older_ones_keep_no_vectors(table, store, push, tmp_path):
    backups = []
    for step in range(5):
        push(IDS, ORIGINALS + 1 + step)
        backups.append(dict(table))
        rollback(store, tmp_path)
    assert [version.is_thinned for version in versions(store, tmp_path)] == [True, True, False, False, False]
    for name, backup in zip(("0003", "0004", "0005"), backups[2:], strict=True):
        table.update(backup)
        assert status(store, tmp_path).returned_from == (name,)
        assert rollback(store, tmp_path).restored == len(IDS)
        assert store.read(IDS).tolist() == ORIGINALS.tolist()
    prune(store, tmp_path)
    table.update(backups[-1])
    assert status(store, tmp_path).returned == ()


def test_vectors_are_read_only_if_the_live_version_does_not_explain_all(table, store, push, tmp_path, monkeypatch):
    for step in range(3):
        push(IDS, ORIGINALS + 1 + step)
    journal = Journal.open(store, tmp_path)
    assert len(journal.over(journal.live)) == 2
    loaded = []
    load = Version.load
    monkeypatch.setattr(Version, "load", lambda version: loaded.append(version.name) or load(version))
    assert len(status(store, tmp_path).nudged) == len(IDS)
    assert set(loaded) == {"0003"}


def test_a_version_of_another_dimension_says_nothing(table, store, push, tmp_path):
    push(IDS, FIRST)
    rollback(store, tmp_path)
    table.clear()
    table.update({node_id: [1.0, 2.0] for node_id in IDS})
    assert status(store, tmp_path).returned == ()
    assert rollback(store, tmp_path).restored == 0
    push(IDS[:1], [[0.5, 0.5]])
    assert table["n0"] == [0.5, 0.5]


@pytest.mark.parametrize("dropped", [False, True])
def test_a_version_that_was_live_by_a_switch_is_known(tmp_path, dropped):
    store = two_tables()
    push_beside(store, tmp_path)
    switch(store, tmp_path)
    backup = dict(store.tables[None])
    rollback(store, tmp_path)
    assert status(store, tmp_path).returned == ()
    if dropped:
        drop_copies(store, tmp_path)
    store.tables[None].update({node_id: backup[node_id] for node_id in IDS[1:]})
    found = status(store, tmp_path)
    assert (found.version, set(found.returned), found.returned_from) == (None, set(IDS[1:4]), ("0001",))
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    assert rollback(store, tmp_path).restored == 3
    assert holds(store, ORIGINALS)


def test_a_copy_that_nobody_ever_read_leaves_no_vectors(tmp_path):
    store = two_tables()
    push_beside(store, tmp_path)
    drop_copies(store, tmp_path)
    assert [version.is_thinned for version in versions(store, tmp_path)] == [True]
    assert not list(tmp_path.rglob("*.npz"))


def test_a_map_of_all_nodes_comes_back_and_is_neither_original_nor_left(table, store, tmp_path, monkeypatch):
    monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", 6)  # two nodes a block
    change = np.random.default_rng(3).normal(size=(3, 3)).astype(np.float32)
    details = {NODE_MAP: pack_adapter(QueryAdapter(change))}
    push_vectors(store, IDS[:1], ORIGINALS[:1], FIRST[:1], versions=tmp_path, details=details)
    backup = dict(table)
    assert all(not np.array_equal(backup[node_id], ORIGINALS[row]) for row, node_id in enumerate(IDS))
    rollback(store, tmp_path)
    assert untouched_store(store, Journal.open(store, tmp_path)) is store
    table.update(backup)
    found = status(store, tmp_path)
    assert (set(found.returned), found.returned_from) == (set(IDS), ("0001",))
    untouched = untouched_store(store, Journal.open(store, tmp_path))
    assert untouched.read(IDS).tobytes() == ORIGINALS.tobytes()
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    assert rollback(store, tmp_path).restored == 6
    assert store.read(IDS).tobytes() == ORIGINALS.tobytes()
    # Under another version, and then mapped again over what came back.
    push_vectors(store, IDS[:2], ORIGINALS[:2], SECOND[:2], versions=tmp_path)
    live = dict(table)
    table.update(backup)
    assert set(reapply(store, tmp_path)) == set(IDS)
    assert table == live
    table.update(backup)
    push_vectors(store, IDS[:1], ORIGINALS[:1], FIRST[:1], versions=tmp_path, details=details)
    assert table == backup
    assert rollback(store, tmp_path).exact
    assert store.read(IDS).tobytes() == ORIGINALS.tobytes()


def test_of_pushes_of_all_nodes_one_record_is_kept(store, tmp_path):
    details = {NODE_MAP: pack_adapter(QueryAdapter(np.eye(3, dtype=np.float32) * 0.5))}
    for _ in range(3):
        push_vectors(store, IDS[:1], ORIGINALS[:1], FIRST[:1], versions=tmp_path, details=details)
        rollback(store, tmp_path)
    assert [version.is_thinned for version in versions(store, tmp_path)] == [True, True, False]
    assert len({path.parent.name for path in tmp_path.rglob("block-*")}) == 1


def test_a_push_beside_what_came_back_is_made_from_originals(tmp_path):
    store = two_tables()
    push_beside(store, tmp_path, mode="in-place")
    backup = dict(store.tables[None])
    rollback(store, tmp_path)
    store.tables[None].update(backup)
    push_beside(store, tmp_path, SECOND, slice(2, 6))
    switch(store, tmp_path)
    assert holds(store, nudged(SECOND, slice(2, 6)))
    rollback(store, tmp_path)
    assert holds(store, ORIGINALS)


def test_a_push_that_died_after_others_had_read_it_is_known(table, store, push, tmp_path):
    push(IDS[:4], FIRST[:4])
    backup = dict(table)
    Journal.open(store, tmp_path).versions[0].set_state("writing")
    with pytest.warns(UserWarning, match="it died while it wrote"):
        push(IDS[4:5], FIRST[4:5])
    rollback(store, tmp_path)
    table.update(backup)
    assert set(status(store, tmp_path).returned) == set(IDS[:4])
    rollback(store, tmp_path)
    assert store.read(IDS).tolist() == ORIGINALS.tolist()
