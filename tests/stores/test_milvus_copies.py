"""Versions beside a Milvus alias: copied whole, switched in one step for readers, whole again after interruptions."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from pymilvus import MilvusClient

from nudge_rag import drop_copies, rollback, switch, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MilvusStore, SideBySideStore, StoreError
from tests.stores.test_milvus import FIELDS, IDS, VECTORS, everything, make
from tests.support.builders.milvus import release

SWITCHES = 12
LABELS = ["v1", "_2026", "under_score", "a__switching"]


@pytest.fixture
def client(tmp_path):
    client = MilvusClient(str(tmp_path / "milvus.db"))
    make(client, fields=FIELDS, partitions=["first", "second"])
    client.create_alias("docs", "live")
    yield client
    client.close()


def opened(client):
    return MilvusStore(client, "live", vector_field="vector")


def rows_of(client, place):
    """Every row, vector included, by partition."""
    partitions = {"first", "second", "_default"}
    query = {"filter": "", "limit": 100, "output_fields": ["*"]}
    return {name: sorted(map(repr, client.query(place, partition_names=[name], **query))) for name in partitions}


def test_capabilities_are_those_of_an_alias(client):
    store, plain = opened(client), MilvusStore(client, "docs", vector_field="vector")
    assert isinstance(store, SideBySideStore)
    assert (store.capabilities.side_by_side, store.capabilities.atomic_switch) == (True, True)
    assert (plain.capabilities.side_by_side, plain.capabilities.atomic_switch) == (False, False)
    assert store.key != plain.key
    for action in (plain.copy_labels, lambda: plain.create_copy("v1"), lambda: plain.switch("v1")):
        with pytest.raises(ValueError, match=r"'docs' is a Milvus collection, not an alias.*client\.create_alias\(\)"):
            action()


@pytest.mark.parametrize("label", LABELS)
def test_copied_changed_switched_back_and_dropped(client, label):
    store, before = opened(client), rows_of(client, "docs")
    beside = store.create_copy(label)
    assert rows_of(client, beside.collection) == before
    assert client.describe_index(beside.collection, "vector")["metric_type"] == "COSINE"
    assert sorted(client.list_indexes(beside.collection)) == sorted(client.list_indexes("docs"))
    beside.replace(IDS, -VECTORS)
    assert rows_of(client, "docs") == before
    assert store.read(IDS).tobytes() == VECTORS.tobytes()
    store.switch(label)
    assert store.copy_labels() == [label]
    assert store.read(IDS).tobytes() == (-VECTORS).tobytes()
    assert store.open_copy(label).read(IDS).tobytes() == VECTORS.tobytes()
    assert store.open_copy(label).collection == "docs"
    store.switch(label)
    assert rows_of(client, "live") == before
    store.drop_copy(label)
    assert store.copy_labels() == []
    assert client.list_collections() == ["docs"]
    assert client.list_aliases()["aliases"] == ["live"]


def test_several_labels_and_leftovers(client):
    store = opened(client)
    for at, label in enumerate(LABELS):
        store.create_copy(label).replace(IDS[:1], VECTORS[at : at + 1])
    store.switch("v1")
    store.switch("under_score")
    assert store.read(IDS[:1]).tobytes() == VECTORS[2:3].tobytes()
    assert {label: store.open_copy(label).collection == "docs" for label in store.copy_labels()} == {
        label: label == "v1" for label in LABELS
    }
    again = store.create_copy("under_score")
    assert again.read(IDS[:1]).tobytes() == VECTORS[2:3].tobytes()
    assert len(client.list_collections()) == len(LABELS) + 1
    for action in (store.open_copy, store.switch, store.drop_copy):
        with pytest.raises(ValueError, match=r"there is no version 'gone' of 'live'; there are _2026, .*, v1"):
            action("gone")
    for label in ("", None, "a b", "é", 'a"', "a" * 25):
        with pytest.raises(ValueError, match="a label is 1 to 24 letters, digits and underscores"):
            store.create_copy(label)


def test_a_collection_that_another_alias_names_is_not_dropped(client):
    store = opened(client)
    client.create_alias("docs", "mine")
    store.create_copy("v1")
    store.switch("v1")
    store.drop_copy("v1")
    assert "docs" in client.list_collections()
    assert len(everything(client)) == len(IDS)


def test_rows_that_cannot_be_copied(client):
    client.create_collection("made", dimension=4, auto_id=True)
    client.create_alias("made", "alias_of_made")
    with pytest.raises(ValueError, match="cannot be copied because of auto_id: Milvus would give the copies new ids"):
        MilvusStore(client, "alias_of_made").create_copy("v1")
    assert sorted(client.list_collections()) == ["docs", "made"]


@pytest.mark.slow
def test_readers_see_one_version_or_the_other(client):
    store = opened(client)
    store.create_copy("v1").replace(IDS, -VECTORS)
    versions = {VECTORS.tobytes(): 0, (-VECTORS).tobytes(): 1}
    seen, wrong, done = set(), [], threading.Event()

    def hammer():
        reader, order = opened(client), np.argsort(IDS)
        while not done.is_set():
            found = reader.search(VECTORS, 1).scores
            scanned = np.concatenate([rows for _, rows in reader.scan(3)])[np.argsort(order)]
            read = versions.get(reader.read(IDS).tobytes())
            whole = [read, versions.get(scanned.tobytes()), {True: 0, False: None}.get(all(s[0] > 0.99 for s in found))]
            seen.add(read)
            if None in whole[:2] or (whole[2] is None and any(s[0] > 0.99 for s in found)):
                wrong.append(whole)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for switches in range(40):
        store.switch("v1")
        if switches >= SWITCHES and seen == {0, 1}:
            break
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == {0, 1}


class CutOff(Exception):
    pass


class Interrupted:
    """A client whose process ends before its n-th change."""

    def __init__(self, client, n):
        self.client, self.left = client, n

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if not name.startswith(("create_c", "create_a", "create_p", "alter_", "drop_", "rename_", "insert", "upsert")):
            return method

        def change(*args, **kwargs):
            if self.left <= 0:
                raise CutOff
            self.left -= 1
            return method(*args, **kwargs)

        return change


def interrupted(client, n, action):
    """Whether the action ended before it was cut off at its n-th change."""
    try:
        action(opened(Interrupted(client, n)))
    except CutOff:
        return False
    return True


def test_a_switch_that_is_cut_off_anywhere_has_or_has_not_happened(client):
    """Each switch begins with what the one before left, so that the completion of one is cut off as well."""
    opened(client).create_copy("v1").replace(IDS, -VECTORS)
    live, outcomes = VECTORS, []
    for n in (*range(8), 1, 2, 1, 3, 1, 4, 0, 4, 1, 1, 7):
        ended = interrupted(client, n, lambda store: store.switch("v1"))
        store = opened(client)
        switched = store.read(IDS).tobytes() == (-live).tobytes()
        live = -live if switched else live
        outcomes.append((ended, switched))
        assert store.read(IDS).tobytes() == live.tobytes()
        assert store.copy_labels() == ["v1"]
        assert store.open_copy("v1").read(IDS).tobytes() == (-live).tobytes()
        assert len(client.list_collections()) == 2
    assert set(outcomes) == {(False, False), (False, True), (True, True)}
    assert outcomes[-1] == (True, True)
    assert sorted(client.list_aliases()["aliases"]) == ["live", "live__beside_v1"]


@pytest.mark.parametrize("change", ["edited", "added", "deleted"])
def test_a_switch_that_would_lose_a_change_of_the_rows_is_refused(client, change):
    store = opened(client)
    store.create_copy("v1")
    row = client.query("live", filter="number == 1", output_fields=["*"])[0]
    if change == "edited":
        client.upsert("live", [row | {"colour": "blue"}], partition_name="second")
    elif change == "added":
        client.insert("live", [row | {"id": "new"}], partition_name="second")
    else:
        client.delete("live__beside_v1", ids=[row["id"]])
    before = rows_of(client, "live")
    with pytest.raises(StoreError, match=r"1 node\(s\) of 'live' are not the same in the two versions"):
        store.switch("v1")
    assert rows_of(client, "live") == before
    assert client.describe_alias("live")["collection_name"] == "docs"
    assert store.copy_labels() == ["v1"]


@pytest.mark.parametrize("leftover", [False, True])
def test_a_copy_that_is_cut_off_is_not_seen_and_is_cleaned_up_by_the_next(client, leftover):
    n = 0
    if leftover:
        opened(client).create_copy("v1").replace(IDS, -VECTORS)
    while not interrupted(client, n, lambda store: store.create_copy("v1")):
        store = opened(client)
        assert store.copy_labels() in (["v1"], []) if leftover else store.copy_labels() == []
        for label in store.copy_labels():
            assert store.open_copy(label).read(IDS).tobytes() == (-VECTORS).tobytes()
        assert store.read(IDS).tobytes() == VECTORS.tobytes()
        assert len(client.list_collections()) <= 3
        n += 1 if n < 4 else 3
    assert n >= 10
    store = opened(client)
    assert store.open_copy("v1").read(IDS).tobytes() == VECTORS.tobytes()
    store.create_copy("v2")
    assert len(client.list_collections()) == 3
    assert sorted(client.list_aliases()["aliases"]) == ["live", "live__beside_v1", "live__beside_v2"]


def test_a_drop_that_is_cut_off_is_completed_by_the_next_change(client):
    opened(client).create_copy("v2")
    for n in range(5):
        opened(client).create_copy("v1")
        interrupted(client, n, lambda store: store.drop_copy("v1"))
        store = opened(client)
        assert store.copy_labels() == (["v1", "v2"] if n == 0 else ["v2"])
        assert store.read(IDS).tobytes() == VECTORS.tobytes()
        store.switch("v2")
        assert len(client.list_collections()) == (3 if n == 0 else 2)


@pytest.mark.parametrize("lost", ["live__copy_0", "live__scrap_0"])
def test_an_alias_of_a_collection_that_milvus_lite_had_half_renamed_is_nothing(client, tmp_path, lost):
    opened(client).create_copy("v1")
    release(client, str(tmp_path / "milvus.db"))
    (file,) = tmp_path.rglob("aliases.json")
    aliases = json.loads(file.read_text())
    file.write_text(json.dumps({**aliases, "live__beside_v2": lost}))
    store = MilvusStore.open(tmp_path / "milvus.db", "live", vector_field="vector")
    assert store.copy_labels() == ["v1"]
    store.create_copy("v2")
    assert store.copy_labels() == ["v1", "v2"]
    store.switch("v2")
    assert store.read(IDS).tobytes() == VECTORS.tobytes()


def test_collections_that_are_not_loaded_after_a_restart_are_looked_at_all_the_same(client):
    store = opened(client)
    push_vectors(store, IDS, VECTORS, -VECTORS, mode=SIDE_BY_SIDE)
    for collection in client.list_collections():
        client.release_collection(collection)
    switch(opened(client))
    for collection in client.list_collections():
        client.release_collection(collection)
    assert drop_copies(opened(client)) == (versions(opened(client))[-1].name,)
    assert rollback(opened(client)).exact
    assert opened(client).read(IDS).tobytes() == VECTORS.tobytes()
