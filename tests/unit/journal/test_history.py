"""Where a history is, how large it grows, and what happens to nodes that somebody else writes to or takes away."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from nudge_rag import (
    CorruptArchiveError,
    JournalError,
    prune,
    reapply,
    repair,
    rollback,
    status,
    take_over,
    versions,
)
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.journal.push import PushError, push_vectors
from nudge_rag.journal.status import find_status
from nudge_rag.stores import MappingStore
from nudge_rag.stores.storages import FolderStorage, ProcessStorage

IDS = [f"n{i}" for i in range(6)]
ORIGINALS = np.random.default_rng(0).normal(size=(6, 3))
FIRST, SECOND, NEWER = ORIGINALS + 1, ORIGINALS + 2, np.array([9.0, -9.0, 0.5])


class Owning(MappingStore):
    """Holds its own history, as if in a database: whoever opens the table finds it."""

    def __init__(self, table, storage, key="test"):
        super().__init__(table, key=key)
        self.storage = storage

    def history(self):
        return self.storage


class Interrupted(MappingStore):
    """Lets somebody else act before and after a write."""

    replace_vectors_if = None  # so that every write goes through replace

    def __init__(self, table, before=lambda: None, after=lambda: None):
        super().__init__(table, key="test")
        self.before, self.after = before, after

    def replace(self, ids, vectors):
        self.before()
        super().replace(ids, vectors)
        self.after()


@pytest.fixture
def table():
    return dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def push(store, vectors=FIRST, folder=None, ids=IDS, **details):
    rows = [IDS.index(node_id) for node_id in ids]
    return push_vectors(store, ids, ORIGINALS[rows], vectors[rows], versions=folder, details=details)


def test_blobs_are_the_same_in_a_folder_and_in_memory(tmp_path):
    for storage in (FolderStorage(tmp_path / "a"), ProcessStorage()):
        assert storage.names() == []
        for name in ("b", "0001/manifest.json", "0001/arrays.npz", "0002/manifest.json"):
            storage.write(name, name.encode())
        storage.write("b", b"again")
        assert storage.names() == ["0001/arrays.npz", "0001/manifest.json", "0002/manifest.json", "b"]
        assert storage.names("0001/") == ["0001/arrays.npz", "0001/manifest.json"]
        assert storage.read("b") == b"again"
        storage.delete("b")
        storage.delete("b")
        with pytest.raises(KeyError):
            storage.read("b")
        with storage.lock():
            storage.write("c", b"")
        for name in ("", "../b", "/b", "a//b", ".hidden", "a/..", "a b", "a\n"):
            with pytest.raises(ValueError, match="a blob's name"):
                storage.write(name, b"")


def test_a_planted_link_is_neither_followed_nor_written_through(tmp_path):
    storage, outside = FolderStorage(tmp_path / "a"), tmp_path / "outside"
    outside.write_bytes(b"mine")
    storage.write("0001/manifest.json", b"1")
    (tmp_path / "a" / "0001" / "manifest.json.tmp").symlink_to(outside)
    (tmp_path / "a" / "0001" / "arrays.npz").symlink_to(outside)
    storage.write("0001/manifest.json", b"2")
    assert (outside.read_bytes(), storage.read("0001/manifest.json")) == (b"mine", b"2")
    with pytest.raises(CorruptArchiveError, match="not a regular file"):
        storage.read("0001/arrays.npz")
    storage.write("0001/arrays.npz", b"3")
    assert (outside.read_bytes(), storage.read("0001/arrays.npz")) == (b"mine", b"3")
    (tmp_path / "a" / "0002").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(CorruptArchiveError, match="is a link"):
        storage.read("0002/outside")


def test_a_store_that_holds_its_history_needs_no_folder(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = ProcessStorage()
    assert versions(Owning(table, storage)) == []
    assert storage.names() == []
    assert push(Owning(table, storage)).pushed
    elsewhere = Owning(table, storage, key="another-address")
    assert status(elsewhere).nudged == tuple(IDS)
    assert original_vectors(elsewhere, IDS, elsewhere.read(IDS)).tobytes() == ORIGINALS.tobytes()
    with pytest.raises(JournalError, match=r"holds its history itself.*leave versions= out"):
        rollback(elsewhere, tmp_path / "v")
    assert rollback(elsewhere).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_leaves_its_name_in_the_store_for_as_long_as_it_is_needed(table, tmp_path):
    storage = ProcessStorage()
    store = Owning(table, storage)
    push(store, folder=tmp_path / "v")
    for action in (status, rollback, versions, reapply, prune, repair, nudged_ids):
        with pytest.raises(
            JournalError, match=re.escape(f"is in the folder {tmp_path / 'v' / 'test'}: pass versions=")
        ):
            action(store)
    for action in (status, rollback):
        with pytest.raises(JournalError, match="not in"):
            action(store, tmp_path / "w")
    assert status(store, tmp_path / "v").nudged == tuple(IDS)
    shutil.move(tmp_path / "v", tmp_path / "moved")
    assert status(Owning(table, storage, key="another-address"), tmp_path / "moved").nudged == tuple(IDS)
    assert rollback(store, tmp_path / "moved").exact
    assert str(status(store)) == "nothing is pushed"


def test_a_store_is_let_go_of_if_its_first_push_fails_and_is_undone_and_kept_if_it_is_not(table, tmp_path):
    class Failing(Owning):
        replace_vectors_if = None  # so that every write goes through replace
        writes, good = 0, ()

        def replace(self, ids, vectors):
            self.writes += 1
            half = len(ids) if self.writes in self.good else len(ids) // 2
            super().replace(ids[:half], vectors[:half])
            if half < len(ids):
                raise RuntimeError("the line is cut")

    storage = ProcessStorage()
    store = Failing(table, storage)
    store.good = {2}  # the second write undoes the first
    with pytest.raises(PushError, match="the vectors that were there before are back"):
        push(store, folder=tmp_path / "undone")
    assert storage.names() == []
    store.good = {}
    with pytest.raises(PushError, match="some may be there"):
        push(store, folder=tmp_path / "left")
    with pytest.raises(JournalError, match=re.escape(f"is in the folder {tmp_path / 'left' / 'test'}: pass versions=")):
        status(store)
    assert rollback(Owning(table, storage), tmp_path / "left").exact
    assert storage.names() == []
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_copied_store_does_not_share_the_folder_of_the_one_it_was_copied_from(table, tmp_path):
    store, folder = Owning(table, ProcessStorage()), tmp_path / "v"
    push(store, folder=folder)
    copied = Owning(dict(table), ProcessStorage())
    copied.storage._blobs = dict(store.storage._blobs)
    push(store, SECOND, folder)
    push(store, FIRST, folder)
    before = dict(copied._table)
    for action in (reapply, rollback, status):
        with pytest.raises(JournalError, match="has gone on with another copy of this mapping store"):
            action(copied, folder)
    assert copied._table == before


def test_a_copied_store_takes_its_originals_from_the_folder_that_went_on_without_it(table, tmp_path):
    store, folder = Owning(table, ProcessStorage()), tmp_path / "v"
    push(store, folder=folder)
    copied = Owning(dict(table), ProcessStorage())
    copied.storage._blobs = dict(store.storage._blobs)
    push(store, SECOND, folder)
    push(store, FIRST + 1, folder)
    with pytest.raises(JournalError, match=r"take_over\(store, .*\) brings the originals that it still has") as told:
        repair(copied, folder)
    assert repr(str(folder)) in str(told.value)
    recorded = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert take_over(copied, folder) == ("0001",)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == recorded
    assert status(copied).version == "0001"
    assert status(copied).origin == f"the folder {folder / 'test'}"
    assert rollback(copied).exact
    assert copied._table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    assert str(repair(copied)) == "nothing was to be repaired"
    assert rollback(store, folder).exact


def test_a_copied_store_whose_originals_are_gone_is_let_go_by_force_alone(table, tmp_path):
    store, folder = Owning(table, ProcessStorage()), tmp_path / "v"
    push(store, folder=folder)
    copied = Owning(dict(table), ProcessStorage())
    copied.storage._blobs = dict(store.storage._blobs)
    assert rollback(store, folder).exact
    with pytest.raises(JournalError, match=r"no longer has the originals of nodes .*force=True"):
        take_over(copied, folder)
    for number in range(5):
        push(store, FIRST + number + 1, folder)
    before = dict(copied._table)
    with pytest.raises(
        JournalError, match=r"the originals of \d node\(s\) \(.*embed them again, then call.*force=True"
    ):
        take_over(copied, folder)
    assert copied._table == before
    assert take_over(copied, folder, force=True) == ()
    assert str(status(copied)) == "nothing is pushed"
    assert rollback(store, folder).exact


def test_a_copied_store_that_is_rolled_back_says_nothing_of_the_one_it_was_copied_from(table, tmp_path):
    """Nothing is live in the folder any more, and the first store is still nudged."""
    store, folder = Owning(table, ProcessStorage()), tmp_path / "v"
    push(store, folder=folder)
    copied = Owning(dict(table), ProcessStorage())
    copied.storage._blobs = dict(store.storage._blobs)
    assert rollback(copied, folder).exact
    assert str(status(copied, folder)) == "nothing is pushed"
    with pytest.raises(JournalError, match="has gone on with another copy of this mapping store"):
        status(store, folder)
    push(copied, SECOND, folder)
    assert rollback(copied, folder).exact
    assert copied._table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_an_existing_folder_is_taken_over_by_one_call(table, tmp_path):
    plain = MappingStore(table, key="test")
    push(plain, FIRST, tmp_path)
    push(plain, SECOND, tmp_path)
    store = Owning(table, ProcessStorage(), key="another-address")
    with pytest.raises(JournalError, match="no history of this mapping store"):
        take_over(store, tmp_path / "nowhere")
    others = Owning({node_id: [1.0, 2.0, 3.0] for node_id in IDS}, ProcessStorage())
    with pytest.raises(JournalError, match="is the history of another store"):
        take_over(others, tmp_path)
    assert take_over(store, tmp_path / "test") == ("0001", "0002")
    assert status(store).nudged == tuple(IDS)
    with pytest.raises(JournalError, match="has a history already"):
        take_over(store, tmp_path)
    assert rollback(store, version="0002").exact
    assert table == dict(zip(IDS, FIRST.tolist(), strict=True))
    assert rollback(store).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_the_default_folder_of_before_is_not_forgotten(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    push(MappingStore(table, key="test"))
    store = Owning(table, ProcessStorage())
    with pytest.raises(JournalError, match=r"records pushes to this mapping store: pass .*take_over"):
        status(store)
    take_over(store)
    assert status(store).nudged == tuple(IDS)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_vector_that_somebody_else_writes_during_a_push_stays(table, tmp_path, when):
    def embed_again():
        table["n2"] = NEWER.tolist()

    store = Interrupted(table, **{"after": embed_again} if when == "after" else {})
    if when == "before":
        read, calls = store.read, []

        def read_and_change(ids):
            found = read(ids)
            calls.append(ids)
            if len(calls) == 1:
                embed_again()
            return found

        store.read = read_and_change
    with pytest.warns(UserWarning, match=r"1 node\(s\) changed since they were read and are left alone: 'n2'"):
        receipt = push(store, folder=tmp_path)
    assert (receipt.written, receipt.changed_since) == (5, ("n2",))
    assert table["n2"] == NEWER.tolist()
    plain = MappingStore(table, key="test")
    record = versions(plain, tmp_path)[0]
    assert record.manifest["left_alone"] == {"changed": ["n2"], "missing": []}
    assert (status(plain, tmp_path).changed, status(plain, tmp_path).state) == (("n2",), "committed")
    with pytest.warns(UserWarning, match="1 node"):
        receipt = rollback(plain, tmp_path)
    assert (receipt.restored, receipt.changed_since, receipt.exact) == (5, ("n2",), True)
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True)) | {"n2": NEWER.tolist()}


@pytest.mark.parametrize("action", [rollback, reapply])
def test_a_vector_that_somebody_else_writes_during_a_rollback_or_reapply_stays(table, tmp_path, action):
    push(MappingStore(table, key="test"), folder=tmp_path)
    if action is reapply:
        table.update(n1=ORIGINALS[1].tolist(), n2=ORIGINALS[2].tolist())

    def embed_again():
        table["n2"] = NEWER.tolist()

    store = Interrupted(table, after=embed_again)
    if action is rollback:
        with pytest.warns(UserWarning, match="left alone"):
            receipt = rollback(store, tmp_path)
        assert (receipt.restored, receipt.changed_since, receipt.exact) == (5, ("n2",), True)
    else:
        assert reapply(store, tmp_path) == ("n1",)
    assert table["n2"] == NEWER.tolist()


def test_a_push_that_died_is_undone_without_touching_what_is_newer(table, tmp_path):
    push(MappingStore(table, key="test"), folder=tmp_path)
    store = MappingStore(table, key="test")
    version = versions(store, tmp_path)[0]
    version.set_state("writing")
    table["n2"] = NEWER.tolist()
    del table["n3"]
    with pytest.warns(UserWarning, match=r"4 node\(s\) have the vectors again"):
        reapply(store, tmp_path)
    assert table == {n: v.tolist() for n, v in zip(IDS, ORIGINALS, strict=True) if n not in ("n2", "n3")} | {
        "n2": NEWER.tolist()
    }
    assert str(status(store, tmp_path)) == "nothing is pushed"


def test_a_rollback_over_a_push_that_died_leaves_nothing_live(table, tmp_path):
    """The version before it is still committed then, as the dead push had not superseded it."""
    store = MappingStore(table, key="test")
    push(store, folder=tmp_path)
    first = versions(store, tmp_path)[0]
    vectors = Vectors(first.originals, first.after, first.after * 2)
    Journal.open(store, tmp_path).record(first.ids, vectors, {}).set_state("writing")
    assert rollback(store, tmp_path).exact
    assert table == {n: v.tolist() for n, v in zip(IDS, ORIGINALS, strict=True)}
    assert [version.state for version in versions(store, tmp_path)] == ["rolled back", "rolled back"]
    assert status(store, tmp_path).version is None


def test_a_node_that_is_away_during_a_rollback_is_undone_when_it_is_back(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, folder=tmp_path)
    row = table.pop("n3")
    with pytest.warns(UserWarning, match="1 no longer in the store: 'n3'"):
        assert rollback(store, tmp_path).missing == ("n3",)
    assert status(store, tmp_path).away == ("n3",)
    assert str(status(store, tmp_path)) == (
        "nothing is pushed; 1 node(s) that a push had moved are away: 'n3' (if one comes back with that nudge,"
        " rollback() undoes it)"
    )
    assert rollback(store, tmp_path).restored == 0
    table["n3"] = row
    assert nudged_ids(store, tmp_path) == ("n3",)
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    receipt = rollback(store, tmp_path)
    assert (receipt.restored, receipt.exact) == (1, True)
    assert table["n3"] == ORIGINALS[3].tolist()
    assert status(store, tmp_path).away == ()


def test_a_node_that_is_away_during_a_push_is_known_when_it_is_back(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, folder=tmp_path)
    row = table.pop("n3")
    with pytest.warns(UserWarning, match="no longer in the store"):
        push(store, SECOND, tmp_path)
    table["n3"] = row
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    push(store, SECOND, tmp_path)
    assert table["n3"] == SECOND[3].tolist()
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True)) | {}
    table.pop("n0")
    push(store, FIRST, tmp_path, ids=IDS[1:])
    prune(store, tmp_path, forget_away=True)
    assert status(store, tmp_path).away == ()


def test_a_push_that_could_not_be_read_again_is_refused_before_anything_is_written(table, tmp_path):
    store = MappingStore(table, key="test")
    with pytest.raises(ValueError, match="gamma is not a finite number; nothing was written"):
        push(store, folder=tmp_path, gamma=float("nan"))
    store.as_stored = lambda vectors: np.where(vectors == vectors[0, 0], np.inf, vectors)
    with pytest.raises(ValueError, match="hold NaN or infinite values; nothing was written"):
        push(store, folder=tmp_path)
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    del store.as_stored
    assert versions(store, tmp_path) == []
    assert push(store, folder=tmp_path).pushed


def test_old_versions_shrink_and_the_newest_can_still_be_undone_one_by_one(table, tmp_path):
    store = MappingStore(table, key="test")
    rng, states = np.random.default_rng(1), []
    moved = FIRST.copy()
    for _ in range(8):
        moved = moved.copy()
        moved[rng.integers(6)] += 1
        push(store, moved, tmp_path)
        states.append(dict(table))
    every = versions(store, tmp_path)
    assert [version.is_thinned for version in every] == [True] * 5 + [False] * 3
    assert [version.n_nodes for version in every] == [6] * 8
    assert sorted(path.name for path in (tmp_path / "test" / "0001").iterdir()) == ["manifest.json"]
    # Superseded versions hold one row that changed, and no ids or originals of their own.
    assert len((tmp_path / "test" / "0007" / "manifest.json").read_bytes()) < 800
    for number in (8, 7, 6):
        assert rollback(store, tmp_path, version=f"{number:04d}").exact
        assert table == states[number - 2]
        assert status(store, tmp_path).nudged == tuple(IDS)
        assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    with pytest.raises(ValueError, match=r"version 0004 cannot be undone by itself.*rollback\(\) undoes all"):
        rollback(store, tmp_path, version="0004")
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    assert {version.state for version in versions(store, tmp_path)} == {"rolled back"}
    push(store, SECOND, tmp_path)
    assert [version.state for version in versions(store, tmp_path)] == ["rolled back"] * 8 + ["committed"]
    assert rollback(store, tmp_path, version="0009").exact
    assert str(status(store, tmp_path)) == "nothing is pushed"
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_version_whose_map_of_queries_is_not_kept_does_not_become_live_again(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path, adapter={"packed": "a map"})
    for number in range(2, 5):
        push(store, FIRST + number, tmp_path)
    before = dict(table)
    with pytest.raises(ValueError, match=r"the map of queries that belongs to version 0001.*is not kept"):
        rollback(store, tmp_path, version="0002")
    assert table == before
    assert rollback(store, tmp_path, version="0003").exact
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_difference_to_a_version_that_is_gone_has_neither_ids_nor_vectors(table, tmp_path):
    """The older version is stored as a difference with ids of its own; histories of before kept the manifests alone."""
    store = MappingStore(table, key="test")
    push(store, folder=tmp_path, ids=IDS[:4])
    push(store, SECOND, tmp_path)
    rollback(store, tmp_path)
    versions(store, tmp_path)[1].thin()
    older = versions(store, tmp_path)[0]
    assert older.manifest["base"] == "0002"
    assert older.manifest["ids"] == IDS[:4]
    assert older.is_thinned
    assert older.ids == ()
    assert len(older.after) == 0
    assert older.n_nodes == 4


def test_prune_keeps_what_is_live(table, tmp_path):
    store = MappingStore(table, key="test")
    for vectors in (FIRST, SECOND, FIRST, SECOND):
        push(store, vectors, tmp_path)
    with pytest.raises(ValueError, match="keep must be a number"):
        prune(store, tmp_path, keep=-1)
    assert prune(store, tmp_path, keep=1) == ("0001", "0002")
    assert prune(store, tmp_path) == ("0003",)
    assert [version.name for version in versions(store, tmp_path)] == ["0004"]
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))
    assert prune(store, tmp_path) == ("0004",)
    assert versions(store, tmp_path) == []


def test_a_version_whose_record_was_pruned_does_not_become_live_again(table, tmp_path):
    """Its vectors would be in the store, and nothing would be said to be live: they would be taken for originals."""
    store = MappingStore(table, key="test")
    pushed = []
    for vectors in (FIRST, SECOND):
        push(store, vectors, tmp_path)
        pushed.append(dict(table))
    assert prune(store, tmp_path) == ("0001",)
    message = r"version 0002 cannot be undone by itself: the record of version 0001.*rollback\(\) undoes all; nothing"
    with pytest.raises(ValueError, match=message):
        rollback(store, tmp_path, version="0002")
    assert table == pushed[1]
    assert status(store, tmp_path).version == "0002"
    push(store, FIRST + 3, tmp_path)
    push(store, FIRST + 4, tmp_path)
    with pytest.raises(ValueError, match=r"0003 \(back to 0002\), 0004 \(back to 0003\); nothing was written"):
        rollback(store, tmp_path, version="0002")
    assert rollback(store, tmp_path, version="0003").exact
    assert table == pushed[1]
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_rollback_of_all_names_the_oldest_version_that_it_undoes(table, tmp_path, is_pruned):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    if is_pruned:
        assert prune(store, tmp_path) == ("0001",)
    receipt = rollback(store, tmp_path)
    assert str(receipt) == "6 vectors are as they were before version 0001, bit for bit."
    assert (receipt.version, receipt.live) == ("0001", None)
    assert store.read(IDS).tobytes() == ORIGINALS.tobytes()


def test_a_rollback_of_what_is_not_live_names_what_is(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    assert rollback(store, tmp_path, version="0002").live == "0001"
    again = rollback(store, tmp_path, version="0002")
    assert (again.restored, again.live) == (0, "0001")
    assert str(again) == "Nothing was rolled back: version 0001 is live, which is older."
    assert store.read(IDS).tobytes() == FIRST.tobytes()


def test_after_a_rollback_of_all_a_pruned_history_begins_anew(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    rollback(store, tmp_path)
    prune(store, tmp_path)
    name = push(store, FIRST, tmp_path).version
    assert rollback(store, tmp_path, version=name).exact
    assert str(status(store, tmp_path)) == "nothing is pushed"
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


@pytest.mark.parametrize("earlier", [(), ("n1",)], ids=["nothing", "another version"])
def test_a_nudge_that_came_back_is_known_after_the_push_that_found_it_is_undone(table, tmp_path, earlier):
    """The push was made over a vector of a version that is no longer live; undone, it leaves that vector there."""
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    away = table.pop("n0")
    with pytest.warns(UserWarning, match="no longer in the store"):
        rollback(store, tmp_path)
    if earlier:
        push(store, FIRST, tmp_path, ids=list(earlier))
    table["n0"] = away
    name = push(store, SECOND, tmp_path, ids=["n0"]).version
    assert rollback(store, tmp_path, version=name).exact
    assert table["n0"] == away
    assert status(store, tmp_path).away == ("n0",)
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    rollback(store, tmp_path)
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_node_that_is_away_while_one_version_is_undone_goes_back_to_its_original(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    away = table.pop("n0")
    with pytest.warns(UserWarning, match="no longer in the store"):
        rollback(store, tmp_path, version="0002")
    table["n0"] = away
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    with pytest.warns(UserWarning, match="left alone"):
        rollback(store, tmp_path)
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


@pytest.mark.parametrize("damage", ["manifest", "arrays", "link", "away"])
def test_repair_sets_damaged_records_aside(table, tmp_path, damage):
    store, folder = MappingStore(table, key="test"), tmp_path / "test"
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    assert str(repair(store, tmp_path)) == "nothing was to be repaired"
    if damage == "link":
        shutil.rmtree(folder / "0002")
        (folder / "0002").symlink_to(tmp_path, target_is_directory=True)
    elif damage == "away":
        (folder / "away.npz").write_bytes(b"PK")
    else:
        name = {"manifest": "manifest.json", "arrays": "arrays.npz"}[damage]
        (folder / "0002" / name).write_bytes(b"{}")
    with pytest.raises(CorruptArchiveError):
        versions(store, tmp_path)
    report = repair(store, tmp_path)
    assert ("0002" in report.set_aside) == (damage != "away")
    assert "set aside" in str(report)
    versions(store, tmp_path)
    assert status(store, tmp_path) is not None
    assert push(store, FIRST, tmp_path) is not None
    assert (tmp_path / "test").is_dir()


def test_what_a_version_says_of_itself_changes_nothing_on_a_terminal(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, folder=tmp_path, solver="\x1b[2J\u202eevil" + "x" * 500, gamma=0.5)
    told = str(versions(store, tmp_path)[0])
    assert "\\x1b[2J\\u202eevil" in told
    assert told.isprintable()
    assert len(told) < 300


def test_a_folder_with_a_huge_number_is_no_reason_to_lose_a_push(table, tmp_path):
    store = MappingStore(table, key="test")
    (tmp_path / "test" / "999999999").mkdir(parents=True)
    assert push(store, folder=tmp_path).version == "0001"
    assert [version.name for version in versions(store, tmp_path)] == ["0001"]


def test_a_folder_as_it_was_written_first_is_read_and_gone_on_with(table, tmp_path):
    """Whole arrays and all ids, in every version."""
    from nudge_rag.common.archive import write_folder

    manifest = {
        "state": "superseded",
        "created": "2026-01-01T00:00:00+00:00",
        "store": {"name": "mapping", "key": "test", "similarity": "cosine"},
        "dimension": 3,
        "details": {"gamma": 0.5, "solver": "nudge-n"},
        "ids": IDS,
    }
    first = {"originals": ORIGINALS, "before": ORIGINALS, "after": FIRST}
    write_folder(tmp_path / "test" / "0001", manifest, first)
    second = {"originals": ORIGINALS, "before": FIRST, "after": SECOND}
    write_folder(tmp_path / "test" / "0002", manifest | {"state": "committed"}, second)
    table.update(zip(IDS, SECOND.tolist(), strict=True))
    store = MappingStore(table, key="test")
    assert [version.state for version in versions(store, tmp_path)] == ["superseded", "committed"]
    assert status(store, tmp_path).nudged == tuple(IDS)
    push(store, FIRST + 5, tmp_path)
    assert rollback(store, tmp_path, version="0002").exact
    assert table == dict(zip(IDS, FIRST.tolist(), strict=True))
    assert json.loads((tmp_path / "test" / "0001" / "manifest.json").read_text())["state"] == "committed"
    assert rollback(store, tmp_path).exact
    assert table == dict(zip(IDS, ORIGINALS.tolist(), strict=True))


def test_a_journal_is_read_once_and_vectors_when_asked_for(table, tmp_path):
    store = MappingStore(table, key="test")
    push(store, FIRST, tmp_path)
    push(store, SECOND, tmp_path)
    reads, read = [], FolderStorage.read
    try:
        FolderStorage.read = lambda self, name: reads.append(name) or read(self, name)
        journal = Journal.open(store, tmp_path)
        assert sorted(reads) == ["0001/manifest.json", "0002/manifest.json", "store.json"]
        assert journal.live is not None
        _ = journal.live.after
        assert reads[3:] == ["0002/arrays.npz"]
    finally:
        FolderStorage.read = read


@pytest.mark.parametrize("old", [status, rollback, versions, reapply])
def test_root_is_a_deprecated_name_of_versions(table, tmp_path, old):
    store = MappingStore(table, key="test")
    with pytest.warns(DeprecationWarning, match=r"\(root=\) is deprecated: use versions=") as caught:
        old(store, root=tmp_path)
    assert caught[0].filename == __file__


def test_a_status_that_reads_while_another_process_removes_the_record_looks_again(tmp_path, monkeypatch):
    store = MappingStore({"a": [1.0, 0.0]})
    push_vectors(store, ["a"], store.read(["a"]), np.array([[0.6, 0.8]]), versions=tmp_path)
    opened = [Journal.open(store, tmp_path), Journal.open]
    rollback(store, versions=tmp_path)
    assert prune(store, versions=tmp_path) == ("0001",)
    with pytest.raises(CorruptArchiveError, match=r"arrays\.npz is missing"):
        find_status(opened[0])
    # As it was before, for the first one that asks.
    monkeypatch.setattr(Journal, "open", lambda *where: opened.pop(0) if len(opened) > 1 else opened[0](*where))
    assert status(store, tmp_path).version is None
