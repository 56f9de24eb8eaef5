"""A push to all nodes in blocks: memory, other writers, stores that fail, and what its record is good for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import nudge_rag.journal.blocks
from nudge_rag import prune, reapply, repair, rollback, status, switch, versions
from nudge_rag.errors import CorruptArchiveError, PushError
from nudge_rag.journal.packed_map import NODE_MAP, pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.stores.base import Capabilities

DIMENSION = 4
CHANGE = np.random.default_rng(3).normal(size=(DIMENSION, DIMENSION)).astype(np.float32) * 0.3
VECTORS = np.random.default_rng(4).normal(size=(23, DIMENSION))
IDS = [f"n{row}" for row in range(len(VECTORS))]
OWN = np.array([[9.0, 8.0, 7.0, 6.0]])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", 5 * DIMENSION)


def mapped(vectors, change=CHANGE):
    """(I + B^T) v at the length of v, by the equation."""
    wide = np.asarray(vectors, dtype=np.float64)
    turned = wide + wide @ change.astype(np.float64)
    return turned * np.linalg.norm(wide, axis=1, keepdims=True) / np.linalg.norm(turned, axis=1, keepdims=True)


def push_map(store, folder, **options):
    return push_vectors(
        store, IDS[:1], VECTORS[:1], OWN, versions=folder, details={NODE_MAP: pack_adapter(QueryAdapter(CHANGE))}
    )


WANTED = mapped(VECTORS)
WANTED[0] = OWN


class Table(MappingStore):
    """Nodes in a dictionary; something happens at the n-th write."""

    def __init__(self, at=-1, happens=lambda table: None):
        self.table = dict(zip(IDS, VECTORS.tolist(), strict=True))
        super().__init__(self.table, key="t")
        self.writes, self.at, self.happens = 0, at, happens

    def _write_if(self, names, expected, rows):
        self.writes += 1
        if self.writes == self.at + 1:
            self.happens(self.table)
        return super()._write_if(names, expected, rows)


def fail(table):
    raise OSError("the disk is gone")


def test_each_block_is_recorded_before_it_is_written(tmp_path):
    def look(table):
        found.extend(path.name[:11] for path in tmp_path.rglob("block-*"))

    found: list[str] = []
    store = Table(2, look)
    receipt = push_map(store, tmp_path)
    assert sorted(found) == ["block-00000", "block-00001", "block-00002"]
    assert receipt.written == 23
    np.testing.assert_allclose(store.read(IDS), WANTED, atol=1e-12)
    (version,) = versions(store, tmp_path)
    assert (version.n_nodes, len(version.ids), version.manifest["blocks"]) == (23, 1, 5)
    assert rollback(store, tmp_path).restored == 23
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    prune(store, tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_store_that_fails_midway_is_as_it_was(tmp_path):
    store = Table(3, fail)
    with pytest.raises(PushError, match="the vectors that were there before are back"):
        push_map(store, tmp_path)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    assert status(store, tmp_path).version is None


def test_newer_vectors_of_others_stay_in_a_push_and_in_its_rollback(tmp_path):
    def write(table):
        table["n22"] = [1.0, 1.0, 1.0, 1.0]
        table["new"] = [2.0, 1.0, 1.0, 1.0]
        del table["n21"]

    # While the first block is written: the fifth one is read after that, and nodes that come later are not looked for.
    store = Table(0, write)
    receipt = push_map(store, tmp_path)
    assert receipt.written == 22
    np.testing.assert_allclose(store.read(["n22"]), mapped([[1.0, 1.0, 1.0, 1.0]]), atol=1e-12)
    assert status(store, tmp_path).unmapped == ("new",)
    store.table["n5"] = [3.0, 3.0, 3.0, 3.0]
    with pytest.warns(UserWarning, match="1 node.s. changed since the push"):
        assert rollback(store, tmp_path).changed_since == ("n5",)
    assert store.table["n22"] == [1.0, 1.0, 1.0, 1.0]
    assert store.table["n5"] == [3.0, 3.0, 3.0, 3.0]


def test_a_node_that_comes_back_after_the_rollback_is_undone(tmp_path):
    store = Table()
    push_map(store, tmp_path)
    held = store.table.pop("n7")
    with pytest.warns(UserWarning, match="no longer in the store"):
        assert rollback(store, tmp_path).missing == ("n7",)
    store.table["n7"] = held
    assert rollback(store, tmp_path).restored == 1
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_a_node_that_is_away_while_another_version_is_pushed_is_undone_when_it_is_back(tmp_path):
    store = Table()
    push_map(store, tmp_path)
    held = store.table.pop("n7")
    push_vectors(store, IDS[:1], VECTORS[:1], OWN, versions=tmp_path)
    store.table["n7"] = held
    rollback(store, tmp_path)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_pushes_over_a_map_are_undone_one_by_one(tmp_path):
    store = Table()
    first = VECTORS.copy()
    first[:3] += 1.0
    push_vectors(store, IDS[:3], VECTORS[:3], first[:3], versions=tmp_path)
    push_map(store, tmp_path)
    np.testing.assert_allclose(store.read(IDS), WANTED, atol=1e-12)
    over = store.read(IDS)
    second = VECTORS.copy()
    second[5] = 7.0
    push_vectors(store, IDS[5:6], VECTORS[5:6], second[5:6], versions=tmp_path)
    np.testing.assert_array_equal(store.read(IDS), second)
    rollback(store, tmp_path, version="0003")
    assert store.read(IDS).tobytes() == over.tobytes()
    rollback(store, tmp_path, version="0002")
    assert store.read(IDS).tobytes() == first.tobytes()
    rollback(store, tmp_path)
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_two_versions_are_undone_at_once(tmp_path):
    store = Table()
    first = VECTORS.copy()
    first[:3] += 1.0
    push_vectors(store, IDS[:3], VECTORS[:3], first[:3], versions=tmp_path)
    push_map(store, tmp_path)
    push_vectors(store, IDS[5:6], VECTORS[5:6], OWN, versions=tmp_path)
    assert rollback(store, tmp_path, version="0002").restored == 23
    assert store.read(IDS).tobytes() == first.tobytes()


def test_a_node_that_lost_its_map_gets_it_again(tmp_path):
    store = Table()
    push_map(store, tmp_path)
    store.table["n4"] = VECTORS[4].tolist()
    found = status(store, tmp_path)
    assert (len(found.nudged), found.lost, found.unmapped) == (22, ("n4",), ())
    assert reapply(store, tmp_path) == ("n4",)
    np.testing.assert_allclose(store.read(IDS), WANTED, atol=1e-12)


def test_a_damaged_block_is_told_and_set_aside(tmp_path):
    store = Table()
    push_map(store, tmp_path)
    path = sorted(tmp_path.rglob("block-*"))[1]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptArchiveError, match=r"block-00001-.*does not match the checksum"):
        rollback(store, tmp_path)
    assert repair(store, tmp_path).set_aside == ("0001",)
    assert status(store, tmp_path).version is None


def test_nothing_waits_for_a_switch(tmp_path):
    store = Table()
    push_map(store, tmp_path)
    with pytest.raises(ValueError, match="does not hold two versions"):
        switch(store, tmp_path)


def test_blocks_are_shown_while_it_takes(tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.setattr("nudge_rag.common.progress.SECONDS_BEFORE_BAR", 0.0)
    store, shown = Table(), []
    with caplog.at_level("INFO", logger="nudge_rag"):
        for call in (lambda: push_map(store, tmp_path), lambda: rollback(store, tmp_path)):
            call()
            # A bar if tqdm is installed; a line in the log if it is not.
            shown.append(capsys.readouterr().err + caplog.text)
            caplog.clear()
    assert "mapping all nodes" in shown[0]
    assert "rolling back" in shown[1]


class ManyNodes(MappingStore):
    """Nodes in one array that is no part of what is measured."""

    def __init__(self, count):
        super().__init__({"n0": [0.0]}, key="many")
        self.rows = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
        self._capabilities = Capabilities("cosine")

    @property
    def capabilities(self):
        return self._capabilities

    @property
    def dimension(self):
        return 16

    def count(self):
        return len(self.rows)

    def _places(self, ids):
        return [int(node_id[1:]) for node_id in ids]

    def _fetch(self, names):
        return dict(zip(names, self.rows[self._places(names)], strict=True))

    def _batches(self, batch_size):
        for first in range(0, len(self.rows), batch_size):
            rows = self.rows[first : first + batch_size]
            yield [f"n{row}" for row in range(first, first + len(rows))], rows.copy()

    def matching(self, ids, where):
        return set(ids)

    def as_stored(self, vectors):
        return np.asarray(vectors, dtype=np.float32)

    def _write_if(self, names, expected, rows):
        assert (self.rows[self._places(names)] == expected).all()
        self.rows[self._places(names)] = rows
        return []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(nudge_rag.journal.blocks, "NUMBERS_PER_BLOCK", 8_000)
    change = QueryAdapter(np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32) * 0.1)
    peaks = []
    for count in (5_000, 10_000):
        store = ManyNodes(count)
        before = store.rows.tobytes()
        tracemalloc.start()
        push_vectors(
            store,
            ["n0"],
            store.rows[:1].copy(),
            -store.rows[:1],
            versions=tmp_path / str(count),
            details={NODE_MAP: pack_adapter(change)},
        )
        assert store.rows.tobytes() != before
        rollback(store, tmp_path / str(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert store.rows.tobytes() == before
    # 5,000 vectors more take 320,000 bytes, and a push that held them would hold four of each; ids take some 40 bytes.
    assert peaks[1] - peaks[0] < 300_000, peaks
