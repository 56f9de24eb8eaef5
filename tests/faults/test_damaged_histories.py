"""Histories in collections whose rows were removed, copied, cut, retyped or added by somebody: one error, and an end.

Whatever is done to them, no node gets a vector that is neither its original nor one that a push wrote.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from chromadb.api.shared_system_client import SharedSystemClient
from milvus_lite.server_manager import server_manager_instance

from nudge_rag import CorruptArchiveError, JournalError, reapply, repair, rollback, status, versions
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores.blob_records import HEAD, PART, BlobRecord
from tests.faults.test_hostile_collections import chroma, milvus, qdrant

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
FIRST, SECOND = ROWS + 1, ROWS + 2
CALLS = (status, versions, rollback, reapply)


def removed(storage, records):
    storage.remove([one.id for one in records])


def copied(storage, records):
    """Under other ids, and in the name of another version of the blob."""
    storage.put([replace(one, id=f"{one.id} again") for one in records])
    storage.put([replace(one, id=f"{one.id}x", version=f"{one.version}x") for one in records])


def changed(**fields):
    return lambda storage, records: storage.put([replace(one, **fields) for one in records])


def cut(storage, records):
    storage.put([replace(one, content=one.content[: len(one.content) // 2]) for one in records])


def swapped(storage, records):
    """The content of each row in the next one's place."""
    contents = [one.content for one in records]
    pairs = zip(records, [*contents[1:], *contents[:1]], strict=True)
    storage.put([replace(one, content=content) for one, content in pairs])


def emptied(storage, records):
    storage.put([BlobRecord(one.id, "", "", "", "") for one in records])


def foreign(storage, records):
    """Rows whose names are none of ours, or lead elsewhere."""
    names = ["../../etc/passwd", "0001/../0002", "0009/manifest.json", "notes of somebody", "", "0001/x y", "9" * 40]
    told = "1 " + "0" * 64
    storage.put([BlobRecord(f"head {name}", HEAD, name, "v", told) for name in names])
    storage.put([BlobRecord(f"foreign {at}", HEAD, name, "v", told) for at, name in enumerate(names)])
    storage.put([BlobRecord(f"part {at}", PART, name, "v", "!!!") for at, name in enumerate(names)])
    storage.put([BlobRecord("theirs", "note", "n", "1", "text")])


DAMAGES = {
    "removed": removed,
    "copied": copied,
    "cut": cut,
    "swapped": swapped,
    "emptied": emptied,
    "foreign rows": foreign,
    "another name": changed(name="0007/manifest.json"),
    "a name that leads elsewhere": changed(name="../x"),
    "another version": changed(version="0"),
    "another kind": changed(kind="note"),
    "not base64": changed(content="\u00e9"),
    "a count of parts": changed(content="99999 " + "0" * 64),
}


def let_go(made, folder):
    """Of all files, which are replaced."""
    made.close()
    SharedSystemClient.clear_system_cache()
    server_manager_instance.release_server(str(folder / "milvus.db"))


@pytest.fixture(scope="module")
def pushed_twice(tmp_path_factory):
    """Gives the folder of a database with two versions, and its originals: made once, and then put back as it was."""
    made_once = {}

    def fill(make, folder):
        made = make(folder)
        made.make("nodes", made.ids)
        originals = made.opened("nodes").read(made.ids)
        for moved in (originals + 1, originals + 2):
            push_vectors(made.opened("nodes"), made.ids, originals, moved)
        let_go(made, folder)
        shutil.copytree(folder, f"{folder}-as-it-was")
        return folder, originals

    def folder_of(make):
        if make not in made_once:
            made_once[make] = fill(make, tmp_path_factory.mktemp(make.__name__))
        folder, originals = made_once[make]
        shutil.rmtree(folder)
        shutil.copytree(f"{folder}-as-it-was", folder)
        return folder, originals

    return folder_of


@pytest.fixture(params=[chroma, milvus, qdrant], ids=["chroma", "milvus", "qdrant"])
def database(request, pushed_twice):
    folder, originals = pushed_twice(request.param)
    made = request.param(folder)
    made.kind = request.param.__name__
    made.open = lambda: made.opened("nodes")
    made.known = [originals, originals + 1, originals + 2]
    yield made
    let_go(made, folder)


def is_known(database):
    found = database.open().read(database.ids)
    return all(any(found[row].tobytes() == part[row].tobytes() for part in database.known) for row in range(len(found)))


def records_of(storage, chosen):
    """Heads, parts, or those of one blob."""
    every = [*storage.listed(HEAD), *storage.listed(PART)]
    if chosen in (HEAD, PART):
        kept = [one for one in every if one.kind == chosen]
    else:
        kept = [one for one in every if one.name.endswith(chosen)]
    return storage.get([one.id for one in kept])  # with their contents


CHOSEN = (HEAD, PART, "manifest.json", "arrays.npz", "store.json")
# Each damage to two kinds of rows, so that the tests stay quick.
CASES = [(damage, CHOSEN[(at + 2 * step) % 5]) for at, damage in enumerate(DAMAGES) for step in range(2)]


@pytest.mark.parametrize(("damage", "chosen"), CASES)
def test_damage_is_told_as_one_error_and_repaired(database, damage, chosen, record_property):
    storage = database.open().history()
    DAMAGES[damage](storage, records_of(storage, chosen))
    refused = 0
    for call in CALLS:
        try:
            call(database.open())
        except (CorruptArchiveError, JournalError):
            refused += 1
        assert is_known(database)
    repair(database.open())
    assert repair(database.open()).found == (), "once is enough"
    for call in CALLS:
        call(database.open())
    assert is_known(database)
    store, now = database.open(), database.open().read(database.ids)
    assert push_vectors(store, database.ids, now, now + 5).written == len(database.ids)
    assert rollback(database.open()).exact
    assert database.open().read(database.ids).tobytes() == now.tobytes()
    counts = {"fault": "history in a collection damaged", "store": database.kind}
    for name, value in {**counts, "times": 1, "refused": int(refused > 0), "lost": 0}.items():
        record_property(name, value)
