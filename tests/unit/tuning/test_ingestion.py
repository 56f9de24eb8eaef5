"""Documents that were mapped as they were embedded, while what is live has changed before they were added."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import nudge_rag.journal.ingested as module
from nudge_rag import prune, reapply, rollback, status
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.packed_map import NODE_MAP, pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.ingestion import DocumentMap

RNG = np.random.default_rng(5)
FIRST, SECOND = (RNG.normal(size=(2, 4, 4)) * 0.3).astype(np.float32)
IDS = ["a", "b", "c"]
VECTORS = RNG.normal(size=(3, 4))
LATE = RNG.normal(size=4)


def mapped(change, vectors):
    """(I + B^T) v at the length of v, by the equation."""
    turned = vectors + vectors @ change.astype(np.float64)
    return turned * np.linalg.norm(vectors, axis=-1, keepdims=True) / np.linalg.norm(turned, axis=-1, keepdims=True)


class Table:
    """A store whose documents are added to the table beneath it."""

    def __init__(self, folder):
        self.table = dict(zip(IDS, VECTORS.tolist(), strict=True))
        self.store, self.versions = MappingStore(self.table, key=f"ingestion {folder.name}"), folder
        self.documents = DocumentMap(lambda: self.store, folder)

    def push(self, change=None, moved=None):
        details = {} if change is None else {NODE_MAP: pack_adapter(QueryAdapter(change))}
        ids, before = ([], VECTORS[:0]) if moved is None else (["a"], VECTORS[:1])
        push_vectors(
            self.store, ids, before, before if moved is None else moved, versions=self.versions, details=details
        )

    def embed(self):
        (vector,) = self.documents([LATE.tolist()])
        return vector

    def add_after_rollback(self):
        """A document is mapped while the first map is live, and added once it no longer is."""
        self.push(FIRST)
        vector = self.embed()
        rollback(self.store, self.versions)
        self.table["late"] = vector

    def holds_originals(self):
        expected = {**dict(zip(IDS, VECTORS.tolist(), strict=True)), "late": LATE.tolist()}
        return self.table == expected


@pytest.fixture
def application(tmp_path):
    return Table(tmp_path)


def test_each_batch_is_mapped_by_what_is_live_then(application):
    application.push(FIRST)
    np.testing.assert_allclose(application.embed(), mapped(FIRST, LATE), atol=1e-6)
    application.push(SECOND)
    np.testing.assert_allclose(application.embed(), mapped(SECOND, LATE), atol=1e-6)
    rollback(application.store, application.versions)
    assert application.embed() == LATE.tolist()


def test_a_look_that_fails_is_made_again_at_the_next_batch(application, monkeypatch):
    assert application.embed() == LATE.tolist()
    application.push(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(application, "store", None)
        with pytest.raises(TypeError):
            application.embed()
    assert application.embed() == pytest.approx(mapped(FIRST, LATE).tolist())


def test_a_document_that_another_map_was_applied_to_is_mapped_by_the_live_one(application):
    store, versions = application.store, application.versions
    application.push(FIRST)
    vector = application.embed()
    application.push(SECOND)
    application.table["late"] = vector
    assert status(store, versions).unmapped == ("late",)
    assert reapply(store, versions) == ("late",)
    np.testing.assert_allclose(application.table["late"], mapped(SECOND, LATE), atol=1e-6)
    assert status(store, versions).unmapped == ()
    rollback(store, versions)
    assert application.holds_originals()


@pytest.mark.parametrize(("action", "scans"), [("reapply", 1), ("reapply", 2), ("push", 1)])
def test_a_document_that_is_added_in_the_middle_of_a_call_is_not_mapped_twice(application, action, scans, monkeypatch):
    store, versions = application.store, application.versions
    application.push(FIRST)
    application.table["unmapped"] = LATE[::-1].tolist()
    scan, counted = store.scan, itertools.count(1)

    def scan_later(size):
        if next(counted) == scans:
            application.table["late"] = application.embed()
        yield from scan(size)

    with monkeypatch.context() as patch:
        patch.setattr(store, "scan", scan_later)
        if action == "reapply":
            reapply(store, versions)
        else:
            application.push(SECOND)
    live = FIRST if action == "reapply" else SECOND
    np.testing.assert_allclose(application.table["late"], mapped(live, LATE), atol=1e-6)
    np.testing.assert_allclose(application.table["unmapped"], mapped(live, LATE[::-1]), atol=1e-6)
    rollback(store, versions)
    assert application.table["late"] == LATE.tolist()


def test_a_document_that_is_added_after_a_rollback_gets_its_vector_by_the_next(application):
    store, versions = application.store, application.versions
    application.add_after_rollback()
    found = status(store, versions)
    assert found.mapped == ("late",)
    assert str(found) == (
        "nothing is pushed; 1 node(s) were mapped as they were added although no map is live any more: rollback()"
        " undoes that"
    )
    assert rollback(store, versions).restored == 1
    assert application.holds_originals()


def test_a_backup_that_brings_a_mapped_document_back_is_undone(application):
    store, versions = application.store, application.versions
    application.push(FIRST)
    vector = application.table["late"] = application.embed()
    rollback(store, versions)
    assert application.holds_originals()
    application.table["late"] = vector
    assert status(store, versions).mapped == ("late",)
    rollback(store, versions)
    assert application.holds_originals()


def test_what_nobody_has_added_within_a_day_is_forgotten(application, monkeypatch):
    store, versions = application.store, application.versions
    application.push(FIRST)
    application.embed()
    rollback(store, versions)
    prune(store, versions)
    rollback(store, versions)
    assert Journal.open(store, versions).ingested
    now = module.time.time() + 25 * 3600
    monkeypatch.setattr(module.time, "time", lambda: now)
    rollback(store, versions)
    assert not Journal.open(store, versions).ingested


@pytest.mark.parametrize("over", ["originals", "map"])
def test_a_mapped_document_under_a_version_without_a_map_gets_its_own_vector(application, over):
    store, versions = application.store, application.versions
    application.push(FIRST)
    vector = application.embed()
    if over == "originals":
        rollback(store, versions)
    application.push(moved=-VECTORS[:1])
    application.table["late"] = vector
    assert status(store, versions).mapped == ("late",)
    assert reapply(store, versions) == ("late",)
    assert application.table["late"] == LATE.tolist()
    assert application.table["a"] == (-VECTORS[0]).tolist()
    assert status(store, versions).mapped == ()
    rollback(store, versions)
    assert application.holds_originals()


def test_a_push_to_a_mapped_document_starts_from_its_own_vector(application):
    store, versions = application.store, application.versions
    application.add_after_rollback()
    assert push_vectors(store, ["late"], LATE[None], -LATE[None], versions=versions).changed_since == ()
    assert application.table["late"] == (-LATE).tolist()
    rollback(store, versions)
    assert application.holds_originals()


def test_a_mapped_document_is_not_told_as_returned_once_its_map_is_live_again(application):
    store, versions = application.store, application.versions
    application.push(FIRST)
    application.table["late"] = application.embed()
    application.push(moved=-VECTORS[:1])
    assert application.table["late"] == LATE.tolist()
    rollback(store, versions, version="0002")
    np.testing.assert_allclose(application.table["late"], mapped(FIRST, LATE), atol=1e-6)
    found = status(store, versions)
    assert (found.returned, found.away, found.unmapped, found.mapped) == ((), (), (), ())
    assert reapply(store, versions) == ()
    rollback(store, versions)
    assert application.holds_originals()
