"""Whatever stands in the place of a record's file: repair makes every call work again, or an error says what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import CorruptArchiveError, JournalError, prune, reapply, repair, rollback, status, take_over, versions
from nudge_rag.common.files import save_through
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore
from nudge_rag.stores.storages import FolderStorage

IDS = ["a", "b", "c"]
ORIGINALS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
VERBS = (status, versions, reapply, prune, rollback)
PIPE = pytest.param("pipe", marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes"))


class Owning(MappingStore):
    """Holds its own history in a folder, as a store with a file does."""

    def __init__(self, table, folder):
        super().__init__(table, key="test")
        self.folder = folder

    def history(self):
        return FolderStorage(self.folder)


@pytest.fixture
def store(tmp_path):
    return Owning(dict(zip(IDS, ORIGINALS.tolist(), strict=True)), tmp_path / "own")


def push(store, by=1, versions=None):
    assert push_vectors(store, IDS, ORIGINALS, ORIGINALS + by, versions=versions).pushed


def plant(path, kind, victim):
    if path.exists():
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "full folder":
        path.mkdir()
        (path / "x").write_text("x")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim) if kind == "link" else path.write_text(kind)


@pytest.mark.parametrize("kind", ["folder", "full folder", "link", PIPE, "", '{"a": 1}'])
@pytest.mark.parametrize(
    "name",
    ["store.json", "elsewhere.json", "away.npz", "0001/manifest.json", "0002/manifest.json.tmp", "0003", "ingested"],
)
def test_every_call_works_after_a_repair(store, tmp_path, name, kind):
    push(store)
    push(store, 2)
    (victim := tmp_path / "victim").write_text("precious")
    plant(store.folder / name, kind, victim)
    repair(store)
    assert str(repair(store)) == "nothing was to be repaired"
    push(store, 3)
    for verb in VERBS:
        verb(store)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["folder", "link", PIPE])
def test_what_stands_in_the_place_of_a_lock_is_named(store, tmp_path, kind):
    push(store)
    (victim := tmp_path / "victim").write_text("precious")
    plant(store.folder / "lock", kind, victim)
    for verb in (repair, rollback, push):
        with pytest.raises(JournalError, match=r"it is no regular file: remove it.*own/lock"):
            verb(store)
    if kind == "folder":
        (store.folder / "lock").rmdir()
    else:
        (store.folder / "lock").unlink()
    assert rollback(store).exact


def test_a_damaged_mark_asks_for_the_folder_that_it_named(store, tmp_path):
    """Without the mark, the store would be taken for one that nobody has pushed to."""
    folder = tmp_path / "versions"
    push(store, versions=folder)
    (store.folder / "elsewhere.json").write_text("{")
    for verb in VERBS:
        with pytest.raises(CorruptArchiveError, match="elsewhere"):
            verb(store)
    with pytest.raises(JournalError, match="pass that folder as versions="):
        repair(store)
    assert "the history is the folder" in str(repair(store, folder))
    with pytest.raises(JournalError, match="pass versions="):
        status(store)
    assert rollback(store, folder).restored == 3


def test_a_folder_that_is_lost_is_let_go_of_by_force_alone(store, tmp_path):
    """As after a container that had no volume for it; until then, nudges would be taken for originals."""
    folder = tmp_path / "versions"
    push(store, versions=folder)
    shutil.rmtree(folder)
    for call in (lambda: status(store), lambda: rollback(store, folder), lambda: repair(store, tmp_path / "new")):
        with pytest.raises(JournalError, match=r"is in the folder .*versions/test"):
            call()
    for place in (folder, "nudge-versions"):
        with pytest.raises(JournalError, match=r"if that is lost, embed the nodes .*take_over\(store, force=True\)"):
            take_over(store, place)
    store.replace(IDS, ORIGINALS)
    assert take_over(store, force=True) == ()
    assert status(store).version is None
    push(store)
    assert rollback(store).restored == 3


def test_a_damaged_name_of_the_store_in_the_folder_of_its_history_is_written_anew(store, tmp_path):
    folder = tmp_path / "versions"
    push(store, versions=folder)
    (folder / "test" / "store.json").write_text("{")
    with pytest.raises(CorruptArchiveError):
        rollback(store, folder)
    assert "it was damaged, and is written anew" in str(repair(store, folder))
    assert rollback(store, folder).restored == 3


def test_a_planted_link_is_not_followed_while_a_framework_saves_its_file(tmp_path):
    (victim := tmp_path / "victim").write_text("precious")
    (tmp_path / "store.json.nudge-tmp").symlink_to(victim)
    save_through(tmp_path / "store.json", lambda place: Path(place).write_text("vectors"))
    assert (tmp_path / "store.json").read_text() == "vectors"
    assert victim.read_text() == "precious"
