"""What is read without the lock while another process pushes and prunes: no record passes for one that is gone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from nudge_rag import CorruptArchiveError, live_version, prune, rollback, status, versions
from nudge_rag.journal.journal import original_vectors
from nudge_rag.journal.ownership import Home
from nudge_rag.journal.push import push_vectors
from nudge_rag.journal.versions import Version
from nudge_rag.stores import MappingStore

IDS = ["a", "b", "c"]
ROWS = np.eye(3)


@pytest.fixture
def store():
    return MappingStore(dict(zip(IDS, ROWS.tolist(), strict=True)), key="beside")


def push(store, folder, change):
    originals = original_vectors(store, IDS, store.read(IDS), folder)
    return push_vectors(store, IDS, originals, ROWS + change, versions=folder)


def once_before(monkeypatch, owner, name, action):
    """Another process acts just before the first call of a method."""
    method = getattr(owner, name)

    def called(*values, **options):
        monkeypatch.setattr(owner, name, method)
        action()
        return method(*values, **options)

    monkeypatch.setattr(owner, name, called)


def test_a_push_between_the_list_of_records_and_the_note_of_the_newest(store, tmp_path, monkeypatch):
    push(store, tmp_path, 0.5)
    once_before(monkeypatch, Home, "newest", lambda: push(store, tmp_path, 0.25))
    assert live_version(store, tmp_path) == "0002"


@pytest.mark.parametrize("ask", ["status", "versions", "original_vectors"])
def test_a_record_that_is_pruned_before_its_vectors_are_read(store, tmp_path, monkeypatch, ask):
    push(store, tmp_path, 0.5)

    def replace_all():
        rollback(store, tmp_path)
        push(store, tmp_path, 0.25)
        assert prune(store, versions=tmp_path) == ("0001",)

    once_before(monkeypatch, Version, "load", replace_all)
    if ask == "status":
        assert status(store, versions=tmp_path).nudged == tuple(IDS)
    elif ask == "versions":
        assert [version.name for version in versions(store, tmp_path)] == ["0002"]
    else:
        assert np.array_equal(original_vectors(store, IDS, ROWS + 0.25, tmp_path), ROWS)


def test_a_record_that_is_gone_for_good_is_told_at_once(store, tmp_path):
    push(store, tmp_path, 0.5)
    shutil.rmtree(tmp_path / "beside" / "0001")
    with pytest.raises(CorruptArchiveError, match="the record of version 0001 is gone"):
        status(store, versions=tmp_path)
