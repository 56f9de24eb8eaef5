"""Chroma side by side: what a copy carries along, who follows a switch, and the moment without a collection."""

from __future__ import annotations

import shutil
import threading
from collections import Counter

import chromadb
import numpy as np
import pytest
from chromadb.errors import NotFoundError
from langchain_chroma import Chroma
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.chroma import ChromaVectorStore

import nudge_rag
from nudge_rag import PushError, drop_copies, open_store, rollback, versions
from nudge_rag.journal.manifest import SIDE_BY_SIDE
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import ChromaStore, StoreError
from nudge_rag.stores.chroma.copies import recovered
from tests.stores.test_contract import everything
from tests.support.builders.common import LangChainEmbeddings
from tests.support.killing import switch

IDS = [f"n{i}" for i in range(12)]
ORIGINALS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
NAME = "docs.of-2026"
ROUNDS = 5


@pytest.fixture
def client(tmp_path):
    return chromadb.PersistentClient(path=str(tmp_path / "chroma"))


def filled(client, name=NAME, **options):
    collection = client.get_or_create_collection(name, **options)
    documents = [f"text {node}" for node in IDS]
    metadata = [{"place": at} if at % 2 else None for at in range(12)]
    collection.add(ids=IDS, embeddings=ORIGINALS, documents=documents, metadatas=metadata)
    return collection


def waiting(client, root, **options):
    """A collection beside which all vectors are turned round."""
    store = ChromaStore(filled(client, **options))
    push_vectors(store, IDS, ORIGINALS, -ORIGINALS, versions=root, mode=SIDE_BY_SIDE)
    return store


def names(client):
    return sorted(one.name for one in client.list_collections())


def names_of_nodes(client):
    """All collections but the one that holds the history."""
    found = names(client)
    (history,) = [name for name in found if name.startswith("nudge-rag.")]
    found.remove(history)
    return found


def dies(*arguments, **options):
    raise KeyboardInterrupt  # what no step of a switch catches


def stop_after(store, n):
    """The next renaming but n does not take place, as if the process had died."""
    rename, left = store._copies._rename, iter(range(n))

    def cut_off(*arguments):
        if next(left, None) is None:
            dies()
        rename(*arguments)

    store._copies._rename = cut_off


def test_a_switch_has_to_be_asked_for_with_its_gap(client, tmp_path):
    store = waiting(client, tmp_path)
    before = names(client)
    with pytest.raises(ValueError, match=r"cannot swap two versions in one step.*accept_gap=True"):
        nudge_rag.switch(store, tmp_path)
    assert names(client) == before
    assert store.read(IDS).tobytes() == ORIGINALS.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"configuration": {"hnsw": {"space": "cosine", "ef_search": 321, "max_neighbors": 20}}, "metadata": {"a": 1}},
        {"metadata": {"hnsw:space": "ip", "by": "langchain"}, "embedding_function": None},
        {"embedding_function": None},
    ],
)
def test_a_copy_is_the_same_but_for_its_vectors(options, client):
    collection = filled(client, **options)
    collection.update(ids=IDS[:1], uris=["file:///a"])
    store = ChromaStore(collection)
    copy = store.create_copy("a").collection
    before, after = (one.get(include=["documents", "metadatas", "uris"]) for one in (collection, copy))
    for part in ("documents", "metadatas", "uris"):
        assert dict(zip(after["ids"], after[part], strict=True)) == dict(zip(before["ids"], before[part], strict=True))
    assert {**everything(store.open_copy("a"))}.keys() == set(IDS)
    assert store.open_copy("a").read(IDS).tobytes() == store.read(IDS).tobytes()
    assert copy.configuration_json["hnsw"] == collection.configuration_json["hnsw"]
    assert copy.metadata == {**(collection.metadata or {}), "nudge_rag:origin": str(collection.id)}


def test_a_schema_goes_along(client):
    schema = chromadb.Schema()
    schema.delete_index(config=chromadb.StringInvertedIndexConfig(), key="place")
    collection = filled(client, schema=schema, embedding_function=None)
    copy = ChromaStore(collection).create_copy("a").collection
    assert copy.get_model().serialized_schema == collection.get_model().serialized_schema


def test_frameworks_follow_a_switch_in_their_process(client, tmp_path):
    store = waiting(client, tmp_path, embedding_function=None)
    held = Chroma(NAME, LangChainEmbeddings(), client=client)
    other = ChromaVectorStore(chroma_collection=store.collection)
    query = ORIGINALS[3].tolist()

    def nearest():
        found = held.similarity_search_by_vector_with_relevance_scores(query, k=1)
        return found[0][0].id, other.query(VectorStoreQuery(query_embedding=query, similarity_top_k=1)).ids[0]

    assert nearest() == ("n3", "n3")
    elsewhere = client.get_collection(NAME, embedding_function=None)
    switch(ChromaStore(held._collection), tmp_path)
    assert nearest()[0] != "n3"
    assert nearest()[1] == "n3", "who holds a handle of his own goes on with what he opened"
    assert ChromaStore(elsewhere).read(["n3"]).tobytes() == ORIGINALS[3].tobytes()
    assert rollback(store, tmp_path).exact
    assert held._collection.id != elsewhere.id == store.collection.id
    assert rollback(ChromaStore(held._collection), tmp_path).version is None, "it is done"
    assert held._collection.id == elsewhere.id
    assert nearest() == ("n3", "n3")


def test_a_handle_from_before_the_switch_rolls_back_what_is_live(client, tmp_path):
    store = waiting(client, tmp_path)
    old = ChromaStore(client.get_collection(NAME, embedding_function=None))
    switch(store, tmp_path)
    assert old.read(IDS).tobytes() == ORIGINALS.tobytes()
    assert rollback(old, tmp_path).exact
    assert ChromaStore(client.get_collection(NAME)).read(IDS).tobytes() == ORIGINALS.tobytes()
    assert [version.state for version in versions(old, tmp_path)] == ["committed"]


def test_the_journal_is_found_after_a_switch(client, tmp_path):
    store = waiting(client, tmp_path / "v")
    key = store.key
    switch(store, tmp_path / "v")
    assert drop_copies(store, tmp_path / "v") == ("0001",)
    assert names_of_nodes(client) == [NAME]
    again = open_store(f"chroma://{tmp_path / 'chroma'}?collection={NAME}")
    assert again.key == key
    assert again.read(IDS).tobytes() == (-ORIGINALS).tobytes()
    assert rollback(again, tmp_path / "v").exact
    assert again.read(IDS).tobytes() == ORIGINALS.tobytes()
    client.delete_collection(NAME)
    assert ChromaStore(filled(client)).key != key


@pytest.mark.parametrize("edit", [{"documents": ["new"]}, {"metadatas": [{"place": 100}]}, {"uris": ["file:///a"]}])
def test_texts_edited_since_the_push_are_caught_up_with(edit, client, tmp_path):
    store = waiting(client, tmp_path)
    store.collection.update(ids=["n1"], embeddings=ORIGINALS[1:2], **edit)
    include = ["documents", "metadatas", "uris"]
    (label,) = store.copy_labels()
    with pytest.raises(StoreError, match=r"1 node\(s\).*another document or metadata.*n1"):
        store.switch(label)
    edited = store.collection.get(ids=["n1"], include=include)
    assert switch(store, tmp_path).caught_up == 1
    assert store.read(IDS).tobytes() == (-ORIGINALS).tobytes()
    assert store.collection.get(ids=["n1"], include=include) == edited


def test_what_a_service_writes_to_the_version_that_it_opened_is_brought_over(client, tmp_path):
    """It holds a handle from before the switch: adds, changes and deletions, before a drop and before a rollback."""
    store = waiting(client, tmp_path)
    service = client.get_collection(NAME, embedding_function=None)
    switch(store, tmp_path)
    fresh = np.ones((10, 4), dtype=np.float32)
    service.add(ids=[f"new{i}" for i in range(10)], embeddings=fresh, documents=["new"] * 10)
    service.delete(ids=IDS[:5])
    service.update(ids=["n6", "n7"], embeddings=fresh[:2])
    store.collection.update(ids=["n7"], embeddings=3 * fresh[:1])
    store.collection.delete(ids=["n8"])
    with pytest.warns(UserWarning, match=r"16 node\(s\) had been written to the copy of version 0001"):
        assert drop_copies(store, tmp_path) == ("0001",)
    expected = {f"new{i}": [1.0] * 4 for i in range(10)} | {"n6": [1.0] * 4, "n7": [3.0] * 4}
    expected |= {node: (-ORIGINALS[at]).tolist() for at, node in enumerate(IDS) if node in ("n5", "n9", "n10", "n11")}
    assert {node: vector.tolist() for node, vector in everything(store).items()} == expected
    assert store.collection.get(ids=["new3"])["documents"] == ["new"]
    rollback(store, tmp_path)
    expected |= {node: ORIGINALS[at].tolist() for at, node in enumerate(IDS) if node in ("n5", "n9", "n10", "n11")}
    assert {node: vector.tolist() for node, vector in everything(store).items()} == expected


def test_a_copy_that_somebody_goes_on_writing_to_is_not_dropped(client, tmp_path, monkeypatch):
    store = waiting(client, tmp_path)
    service = client.get_collection(NAME, embedding_function=None)
    switch(store, tmp_path)
    service.update(ids=["n6"], embeddings=[[1.0] * 4])
    monkeypatch.setattr(
        "nudge_rag.journal.late_copies.time.sleep", lambda _: service.update(ids=["n7"], embeddings=[[2.0] * 4])
    )
    with pytest.raises(PushError, match="somebody writes to the copy of version 0001, who opened it while it was live"):
        drop_copies(store, tmp_path)
    assert len(store.copy_labels()) == 1
    assert store.read(["n6", "n7"]).tolist() == [[1.0] * 4, [2.0] * 4]
    monkeypatch.undo()
    assert drop_copies(store, tmp_path) == ("0001",)


def test_a_copy_of_which_nothing_is_noted_is_compared_before_it_is_dropped(client, tmp_path):
    """A journal of before copies were noted: whose are newer cannot be told."""
    store = waiting(client, tmp_path)
    service = client.get_collection(NAME, embedding_function=None)
    switch(store, tmp_path)
    (folder,) = tmp_path.glob("*/copies")
    shutil.rmtree(folder)
    service.add(ids=["new"], embeddings=[[1.0] * 4])
    with pytest.raises(PushError, match=r"holds what the live version does not .1 node\(s\) only in the copy.*'new'"):
        drop_copies(store, tmp_path)
    assert len(store.copy_labels()) == 1
    assert drop_copies(store, tmp_path, force=True) == ("0001",)
    assert store.copy_labels() == []


@pytest.mark.parametrize("n", [1, 2])
def test_opening_puts_a_switch_right_that_died(n, client, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.stores.chroma.copies.SECONDS_TO_SWITCH", 0.2)
    store = waiting(client, tmp_path / "v")
    stop_after(store, n)
    with pytest.raises(KeyboardInterrupt):
        switch(store, tmp_path / "v")
    assert (NAME in names(client)) == (n == 2)
    again = ChromaStore.open(tmp_path / "chroma", NAME)
    assert again.read(IDS).tobytes() == (ORIGINALS if n == 1 else -ORIGINALS).tobytes()
    with pytest.warns(UserWarning, match="it died while it was switched"):
        (switch if n == 1 else rollback)(again, tmp_path / "v")
    assert len(names_of_nodes(client)) == 2
    assert again.read(IDS).tobytes() == (-ORIGINALS if n == 1 else ORIGINALS).tobytes()


def test_an_empty_collection_made_in_the_gap_makes_room(client, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.stores.chroma.copies.SECONDS_TO_SWITCH", 0.2)
    store = waiting(client, tmp_path)
    stop_after(store, 1)
    with pytest.raises(KeyboardInterrupt):
        switch(store, tmp_path)
    held = Chroma(NAME, LangChainEmbeddings(), client=client)
    assert held._collection.count() == 0
    again = ChromaStore(held._collection)
    assert again.key == store.key
    assert again.read(IDS).tobytes() == ORIGINALS.tobytes()
    assert {document.id for document in held.get_by_ids(["n1"])} == {"n1"}
    with pytest.warns(UserWarning, match="died while it was switched"):
        switch(again, tmp_path)
    assert again.read(IDS).tobytes() == (-ORIGINALS).tobytes()
    assert len(names_of_nodes(client)) == 2


def test_a_collection_filled_in_the_gap_is_not_lost(client, tmp_path):
    store = waiting(client, tmp_path)
    stop_after(store, 1)
    with pytest.raises(KeyboardInterrupt):
        switch(store, tmp_path)
    intruder = client.create_collection(NAME)
    intruder.add(ids=["new"], embeddings=np.ones((1, 4)))
    kept = names(client)
    with pytest.raises(StoreError, match=r"was made anew, and nodes put into it.*switching' and .*beside' are safe"):
        store.copy_labels()
    with pytest.raises(StoreError, match="was made anew"):
        rollback(store, tmp_path)
    assert names(client) == kept
    assert intruder.count() == 1
    client.delete_collection(NAME)
    with pytest.warns(UserWarning, match="died while it was switched"):
        switch(ChromaStore(recovered(client, NAME)), tmp_path)
    assert ChromaStore(recovered(client, NAME)).read(IDS).tobytes() == (-ORIGINALS).tobytes()


@pytest.mark.slow
def test_whoever_opens_the_collection_meanwhile_sees_one_version_or_none(client, tmp_path):
    """By chromadb's own call there may be none between two renames; the adapter waits."""
    store = waiting(client, tmp_path / "v")
    query, known = ORIGINALS[:1].tolist(), set()

    def by_client():
        collection = client.get_collection(NAME, embedding_function=None)
        return str(collection.query(query_embeddings=query, n_results=12, include=["distances"])["ids"])

    def by_adapter():
        return ChromaStore(recovered(client, NAME)).read(IDS).tobytes().hex()

    looks = (by_client, by_adapter)
    for _ in range(2):
        known |= {look() for look in looks}
        (switch if len(known) == 2 else rollback)(store, tmp_path / "v")
    assert len(known) == 4
    answers, errors, done = Counter(), Counter(), threading.Event()

    def read(look):
        while not done.is_set():
            try:
                answers[look()] += 1
            except Exception as error:
                errors[look.__name__, type(error)] += 1

    threads = [threading.Thread(target=read, args=[look]) for look in looks]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(12):
            switch(store, tmp_path / "v")
            assert rollback(store, tmp_path / "v").exact
            if round_ >= ROUNDS and set(answers) == known:
                break
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert set(answers) == known
    assert set(errors) <= {("by_client", NotFoundError)}
