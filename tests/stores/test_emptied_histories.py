"""All that a database holds of a history is deleted while vectors are pushed: where it can be told, it is."""

from __future__ import annotations

import contextlib
import shutil

import numpy as np
import pytest

from nudge_rag import (
    CorruptArchiveError,
    JournalError,
    LabeledPairs,
    LostHistoryError,
    prune,
    reapply,
    repair,
    rollback,
    status,
    take_over,
    tune,
    versions,
)
from nudge_rag.journal.push import push_vectors
from nudge_rag.tuning.adapters import LiveAdapter
from tests.support.push_model import IDS
from tests.support.push_model_stores import DuckDB, Lance, SQLiteVec

PAIRS = LabeledPairs.from_pairs((f"{word} {node}", node) for node in IDS for word in "abcdefgh")


def delete_rows(model):
    if isinstance(model, DuckDB):
        model.connection.execute("DELETE FROM nudge_rag_history")
    elif isinstance(model, SQLiteVec):
        with model.connection:
            model.connection.execute(f"DELETE FROM {history_table(model)}")
    else:
        model.connect().history()._opened().delete("true")


def drop_table(model):
    if isinstance(model, DuckDB):
        model.connection.execute("DROP TABLE nudge_rag_history")
    elif isinstance(model, Lance):
        shutil.rmtree(model.connect().history().place())
    else:
        with model.connection:
            model.connection.execute(f"DROP TABLE {history_table(model)}")


def history_table(model):
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'nudge_rag_history_%'"
    return model.connection.execute(query).fetchone()[0]


@pytest.fixture(params=[DuckDB, SQLiteVec, Lance], ids=lambda model: model.__name__)
def model(request):
    made = request.param()
    yield made
    made.teardown()


def push(model, change=1, **options):
    store = model.connect()
    vectors = store.read(IDS[:3])
    return push_vectors(store, IDS[:3], vectors, store.as_stored(vectors + change), **options)


@pytest.mark.parametrize(
    ("model", "delete"),
    [
        (DuckDB, delete_rows),
        (DuckDB, drop_table),
        (SQLiteVec, delete_rows),
        (SQLiteVec, drop_table),
        (Lance, delete_rows),
        (Lance, drop_table),
    ],
    indirect=["model"],
)
def test_every_call_is_refused_until_it_is_said_what_to_do(model, delete, tmp_path):
    push(model)
    delete(model)
    held = {n: v.tobytes() for n, v in model.held().items()}
    for call in (
        status,
        versions,
        rollback,
        reapply,
        lambda store: tune(store, PAIRS, lambda texts: np.ones((len(texts), 4))),
        lambda store: push(model),
        lambda store: push(model, versions=tmp_path / "elsewhere"),
    ):
        with pytest.raises(LostHistoryError, match=r"nothing is left of it.*take_over\(store, force=True\)"):
            call(model.connect())
    with pytest.raises(JournalError, match="no history of this"):
        take_over(model.connect())
    adapter = LiveAdapter(model.connect)
    with pytest.warns(UserWarning, match=r"whether queries must pass a map .*nothing is left of it"):
        adapter.start()
    assert {n: v.tobytes() for n, v in model.held().items()} == held
    assert take_over(model.connect(), force=True) == ()
    assert status(model.connect()).version is None
    assert push(model, change=2).written == 3
    rollback(model.connect())
    assert {n: v.tobytes() for n, v in model.held().items()} == held, "what was there counts as the nodes' own"
    delete_rows(model)
    with pytest.raises(LostHistoryError):
        status(model.connect())


class Backup:
    """What a history holds now, to be put back alone."""

    def __init__(self, model, folder):
        self.model, self.names = model, {"newer": folder / "newer", "older": folder / "older"}
        self.place = model.connect().history().place()
        self.save("older")

    def save(self, name):
        if isinstance(self.model, Lance):
            shutil.copytree(self.place, self.names[name])
            return
        self._execute(f"CREATE TABLE {name} AS SELECT * FROM {self._table()}")

    def put_back(self, name):
        if isinstance(self.model, Lance):
            shutil.rmtree(self.place)
            shutil.copytree(self.names[name], self.place)
            return
        self._execute(f"DELETE FROM {self._table()}", f"INSERT INTO {self._table()} SELECT * FROM {name}")

    def _execute(self, *statements):
        with contextlib.nullcontext() if isinstance(self.model, DuckDB) else self.model.connection:
            for statement in statements:
                self.model.connection.execute(statement)

    def _table(self):
        return "nudge_rag_history" if isinstance(self.model, DuckDB) else history_table(self.model)


def test_an_older_backup_of_the_history_alone_is_refused_until_it_is_said_what_to_do(model, tmp_path):
    assert status(model.connect()).version is None
    push(model)
    backup = Backup(model, tmp_path)
    store, originals = model.connect(), np.stack([model.truth[node_id] for node_id in IDS[:3]])
    assert push_vectors(store, IDS[:3], originals, store.as_stored(originals + 2)).version == "0002"
    held = {n: v.tobytes() for n, v in model.held().items()}
    backup.save("newer")
    backup.put_back("older")
    for call in (
        status,
        versions,
        rollback,
        reapply,
        repair,
        take_over,
        lambda store: tune(store, PAIRS, lambda texts: np.ones((len(texts), 4))),
        lambda store: push(model),
    ):
        with pytest.raises(LostHistoryError, match=r"as after an older backup.*take_over\(store, force=True\)"):
            call(model.connect())
    with pytest.warns(UserWarning, match=r"whether queries must pass a map .*as after an older backup"):
        LiveAdapter(model.connect).start()
    assert {n: v.tobytes() for n, v in model.held().items()} == held
    backup.put_back("newer")
    assert status(model.connect()).version == "0002"
    backup.put_back("older")
    assert take_over(model.connect(), force=True) == ()
    assert (status(model.connect()).version, len(status(model.connect()).changed)) == ("0001", 3)
    with pytest.raises(JournalError, match="has a history already"):
        take_over(model.connect(), force=True)
    assert push(model, change=5).written == 3
    rollback(model.connect())
    assert {n: v.tobytes() for n, v in model.held().items()} == held, "what was there counts as the nodes' own"
    backup.put_back("newer")
    with pytest.raises(LostHistoryError, match="as after an older backup"):
        status(model.connect())


def test_a_backup_of_the_history_from_after_the_newest_push_is_enough(model, tmp_path):
    push(model)
    backup = Backup(model, tmp_path)
    rollback(model.connect())
    prune(model.connect())
    backup.put_back("older")
    found = status(model.connect())
    assert (found.version, set(found.lost)) == ("0001", set(IDS[:3]))
    assert push(model, change=3).version == "0002"
    rollback(model.connect())
    assert prune(model.connect()) == ("0001", "0002")
    assert push(model, change=4).version == "0001"
    assert status(model.connect()).version == "0001"
    backup.put_back("older")
    with pytest.raises(LostHistoryError, match="as after an older backup"):
        status(model.connect())


def test_a_damaged_record_of_the_store_is_still_set_aside(model):
    push(model)
    model.connect().history().write("store.json", b"{")
    assert repair(model.connect()).found
    assert status(model.connect()).version == "0001"
    store, originals = model.connect(), np.stack([model.truth[node_id] for node_id in IDS[:3]])
    assert push_vectors(store, IDS[:3], originals, store.as_stored(originals + 2)).version == "0002"
    assert rollback(model.connect()).restored == 3


def test_a_store_whose_history_was_in_a_folder_is_empty_on_purpose(model, tmp_path):
    push(model, versions=tmp_path / "folder")
    rollback(model.connect(), versions=tmp_path / "folder")
    shutil.rmtree(tmp_path / "folder")
    assert status(model.connect()).version is None
    assert push(model).written == 3
    rollback(model.connect())
    assert {n: v.tobytes() for n, v in model.held().items()} == {n: v.tobytes() for n, v in model.truth.items()}


def test_an_older_backup_of_a_folder_is_refused(model, tmp_path):
    folder, backup = tmp_path / "folder", tmp_path / "backup"
    push(model, versions=folder)
    shutil.copytree(folder, backup)
    store, originals = model.connect(), np.stack([model.truth[node_id] for node_id in IDS[:3]])
    assert push_vectors(store, IDS[:3], originals, store.as_stored(originals + 2), versions=folder).written == 3
    held = {n: v.tobytes() for n, v in model.held().items()}
    shutil.move(folder, tmp_path / "newer")
    shutil.copytree(backup, folder)
    for call in (status, versions, rollback, reapply, lambda store, place: push(model, versions=place)):
        with pytest.raises(JournalError, match=r"another copy of this .* store, or was restored from an older backup"):
            call(model.connect(), folder)
    assert {n: v.tobytes() for n, v in model.held().items()} == held
    shutil.rmtree(folder)
    shutil.move(tmp_path / "newer", folder)
    assert rollback(model.connect(), folder).restored == 3
    assert model.held()[IDS[3]].tobytes() == model.truth[IDS[3]].tobytes()


@pytest.mark.parametrize("model", [Lance], indirect=True)
def test_a_table_of_lancedb_whose_files_are_gone_is_said_to_be_removed_which_leads_on(model):
    push(model)
    folder = model.connect().history().place()
    for file in (folder / "history.lance" / "data").iterdir():
        file.unlink()  # what a cleaning does that does not wait for others
    for call in (status, repair, rollback, take_over):
        with pytest.raises(CorruptArchiveError, match=r"_nudge_rag cannot be read .* if it is lost, remove it, and"):
            call(model.connect())
    shutil.rmtree(folder)
    with pytest.raises(LostHistoryError, match="nothing is left of it"):
        status(model.connect())
    assert take_over(model.connect(), force=True) == ()
    assert push(model).written == 3


def test_a_store_that_was_never_pushed_to_is_no_such_one(model):
    assert status(model.connect()).version is None
    with pytest.raises(ValueError, match="more than once"):
        push_vectors(model.connect(), IDS[:1] * 2, np.ones((2, 4)), np.ones((2, 4)))
    assert status(model.connect()).version is None
