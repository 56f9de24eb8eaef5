"""Stores that are renamed or copied after a push: the same history, one of their own, or a refusal that says where.

What is moved together with its history is tested in `test_history`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import JournalError, rollback, status, take_over, versions
from nudge_rag.journal.push import push_vectors


def nudge(store):
    """Push to three nodes; their originals."""
    ids = [name for names, _ in store.scan(10) for name in names][:3]
    originals = store.read(ids)
    assert push_vectors(store, ids, originals, originals + np.float32(1)).pushed
    return dict(zip(ids, originals, strict=True))


@pytest.mark.parametrize("kind", ["simple-persisted", "in-memory-persisted"])
@pytest.mark.parametrize("change", ["renamed", "copied"])
def test_a_file_without_the_history_of_its_pushes_is_refused_until_it_is_brought(build, kind, change, tmp_path):
    """Its nudges would be taken for originals."""
    opened = build(kind, 5).store
    originals = nudge(opened)
    file, folder = opened._path, opened.history().path
    new = file.with_name("new.json")
    shutil.copy(file, new) if change == "copied" else file.rename(new)
    store = type(opened).open(new)
    before = store.read(list(originals)).tobytes()
    for call in (status, rollback, versions):
        with pytest.raises(
            JournalError, match=f"version 0001 in the folder {re.escape(str(folder))} wrote.*[Mm]ove that"
        ):
            call(store)
    assert store.read(list(originals)).tobytes() == before
    history = new.with_name("new.json.nudge-rag")
    shutil.copytree(folder, history) if change == "copied" else folder.rename(history)
    assert status(store).version == "0001"
    assert rollback(store).restored == 3
    assert store.read(list(originals)).tobytes() == np.array(list(originals.values())).tobytes()


def test_the_history_of_a_file_that_was_moved_elsewhere_is_taken_over(build, tmp_path):
    opened = build("simple-persisted", 5).store
    originals = nudge(opened)
    (moved := tmp_path / "elsewhere" / "moved.json").parent.mkdir()
    opened._path.rename(moved)
    store = type(opened).open(moved)
    assert take_over(store, opened.history().path) == ("0001",)
    assert rollback(store).restored == 3
    assert store.read(list(originals)).tobytes() == np.array(list(originals.values())).tobytes()


def test_files_in_one_folder_that_hold_other_vectors_are_not_taken_for_copies(build, tmp_path):
    """One was copied before the push, another embedded again after it; a third record is damaged."""
    opened = build("simple-persisted", 5).store
    shutil.copy(opened._path, opened._path.with_name("before.json"))
    originals = nudge(opened)
    shutil.copy(opened._path, opened._path.with_name("again.json"))
    (damaged := tmp_path / "old.json.nudge-rag" / "0001").mkdir(parents=True)
    (damaged / "manifest.json").write_text("{")
    again = type(opened).open(opened._path.with_name("again.json"))
    again.replace(list(originals), np.array(list(originals.values())) * 2)
    for name in ("before.json", "again.json"):
        assert status(type(opened).open(opened._path.with_name(name))).version is None
    assert status(opened).version == "0001"


def test_a_milvus_collection_that_is_renamed_alone_is_refused_until_its_history_is_renamed(build):
    from nudge_rag.stores import MilvusStore

    opened = build("milvus-langchain", 5).store
    originals = nudge(opened)
    client, name = opened.client, opened.collection
    client.rename_collection(name, "renamed")
    store = MilvusStore(client, "renamed")
    advice = rf"rename_collection\('{name}__nudge_rag_history', 'renamed__nudge_rag_history'\)"
    with pytest.raises(JournalError, match=f"wrote, such as that of.*{advice}"):
        status(store)
    client.rename_collection(f"{name}__nudge_rag_history", "renamed__nudge_rag_history")
    assert rollback(store).restored == 3
    assert store.read(list(originals)).tobytes() == np.array(list(originals.values())).tobytes()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_copied_database_has_a_history_of_its_own(build, kind, tmp_path):
    from nudge_rag.stores import DuckDBStore, SQLiteVecStore

    adapter, name = (DuckDBStore, "nodes.duckdb") if kind == "duckdb" else (SQLiteVecStore, "nodes.db")
    opened = build("duckdb-langchain" if kind == "duckdb" else "sqlite-vec-langchain", 5).store
    originals = nudge(opened)
    nudged = opened.read(list(originals)).tobytes()
    opened.connection.execute("CHECKPOINT" if kind == "duckdb" else "PRAGMA wal_checkpoint")
    shutil.copy(tmp_path / name, tmp_path / "copy.db")
    copied = adapter.open(tmp_path / "copy.db", "nodes")
    assert status(copied).version == "0001"
    assert rollback(copied).restored == 3
    assert copied.read(list(originals)).tobytes() == np.array(list(originals.values())).tobytes()
    assert (status(copied).version, status(opened).version) == (None, "0001")
    assert opened.read(list(originals)).tobytes() == nudged
    assert rollback(opened).restored == 3


def test_a_duckdb_file_is_known_by_its_place_whatever_the_working_directory(tmp_path, monkeypatch):
    import duckdb

    from nudge_rag.stores import DuckDBStore

    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    connection = duckdb.connect("nodes.duckdb")
    connection.execute("CREATE TABLE nodes (id VARCHAR, embedding FLOAT[2])")
    connection.execute("INSERT INTO nodes VALUES ('a', [1, 0]), ('b', [0, 1]), ('c', [1, 1])")
    opened = DuckDBStore(connection, "nodes")
    key, place = opened.key, opened.history()._place
    nudge(opened)
    monkeypatch.chdir(tmp_path)
    assert (opened.key, opened.history()._place) == (key, place)
    connection.close()
    (tmp_path / "link").symlink_to(tmp_path / "inside")
    names = "inside", "./inside/../inside", "link", tmp_path / "inside"
    for path in (Path(name) / "nodes.duckdb" for name in names):
        again = DuckDBStore.open(path, "nodes")
        assert (again.key, again.history()._place) == (key, place)
        assert status(again).version == "0001"
        again.connection.close()
