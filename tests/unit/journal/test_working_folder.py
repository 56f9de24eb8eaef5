"""A push without a folder, to a store that cannot hold its history, says which folder calls from elsewhere need."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nudge_rag import rollback
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore

BEFORE, MOVED = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])


def persistent():
    return MappingStore({"a": [1.0, 0.0]}, key="docs", save=lambda: None)


def test_the_folder_is_named_and_found_by_that_name_from_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    store, folder = persistent(), tmp_path.resolve() / "one" / "nudge-versions"
    with pytest.warns(UserWarning, match="does not hold its history: it is in the folder") as caught:
        push_vectors(store, ["a"], BEFORE, MOVED)
    assert [warning.filename for warning in caught] == [__file__]
    assert str(folder / "docs") in str(caught[0].message)
    monkeypatch.chdir(tmp_path)
    assert rollback(store, folder).restored == 1
    assert (store.read(["a"]) == BEFORE).all()


@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_said_of_a_named_folder_or_of_a_store_that_ends_with_the_process(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    store = persistent() if named else MappingStore({"a": [1.0, 0.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert push_vectors(store, ["a"], BEFORE, MOVED, versions=tmp_path if named else None).pushed
