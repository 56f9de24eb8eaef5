"""Stores in memory that have a file: it is forgotten, mistyped, linked, relative, or written by others."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import embedding_store as langchain_store
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.nudge import embedding_store as llama_index_store
from llama_index.vector_stores.faiss import FaissMapVectorStore

from nudge_rag import JournalError, PushError, StoreError, rollback, status
from nudge_rag.journal.push import push_vectors
from tests.support.builders.common import DIMENSION, LangChainEmbeddings, LlamaIndexEmbedding, vectors_of

IDS = [f"n{at}" for at in range(6)]
MODEL = LlamaIndexEmbedding()


def documents(metadata=None):
    return [Document(f"text of {node}", id=node, metadata=metadata or {}) for node in IDS]


def vector(text):
    return np.array(vectors_of([text])[0], dtype=np.float32)


ORIGINALS = {node: vector(f"text of {node}") for node in IDS}


class Simple:
    """LlamaIndex's SimpleVectorStore, in an index."""

    file, adapter = "default__vector_store.json", staticmethod(llama_index_store)

    def make(self):
        nodes = [TextNode(id_=node, text=f"text of {node}") for node in IDS]
        return VectorStoreIndex(nodes, embed_model=MODEL, storage_context=self.context())

    def context(self):
        return StorageContext.from_defaults(vector_store=SimpleVectorStore())

    def save(self, made, folder):
        made.storage_context.persist(str(folder))

    def load(self, folder):
        return load_index_from_storage(StorageContext.from_defaults(persist_dir=str(folder)), embed_model=MODEL)

    def put(self, made, node, text):
        made.delete_nodes([node], delete_from_docstore=True)
        made.insert_nodes([TextNode(id_=node, text=text)])

    def take(self, made, node):
        made.delete_nodes([node], delete_from_docstore=True)


class FaissMap(Simple):
    """LlamaIndex's FaissMapVectorStore."""

    def context(self):
        index = faiss.IndexIDMap2(faiss.IndexFlatL2(DIMENSION))
        return StorageContext.from_defaults(vector_store=FaissMapVectorStore(index))

    def load(self, folder):
        vector_store = FaissMapVectorStore.from_persist_dir(str(folder))
        context = StorageContext.from_defaults(vector_store=vector_store, persist_dir=str(folder))
        return load_index_from_storage(context, embed_model=MODEL)


class InMemory:
    """LangChain's InMemoryVectorStore."""

    file, adapter = "dump.json", staticmethod(langchain_store)

    def make(self):
        made = InMemoryVectorStore(LangChainEmbeddings())
        made.add_documents(documents())
        return made

    def save(self, made, folder):
        made.dump(str(folder / self.file))

    def load(self, folder):
        return InMemoryVectorStore.load(str(folder / self.file), LangChainEmbeddings())

    def put(self, made, node, text):
        made.delete([node])
        made.add_documents([Document(text, id=node)])

    def take(self, made, node):
        made.delete([node])


class LangChainFaiss(InMemory):
    """LangChain's FAISS, which numbers the nodes that follow a deleted one anew."""

    file = "index.faiss"

    def make(self):
        made = FAISS(LangChainEmbeddings(), faiss.IndexFlatL2(DIMENSION), InMemoryDocstore(), {})
        made.add_documents(documents())
        return made

    def save(self, made, folder):
        made.save_local(str(folder))

    def load(self, folder):
        return FAISS.load_local(str(folder), LangChainEmbeddings(), allow_dangerous_deserialization=True)


@pytest.fixture(params=[Simple, FaissMap, InMemory, LangChainFaiss], ids=lambda kind: kind.__name__)
def kind(request, tmp_path):
    made = request.param()
    made.save(made.make(), tmp_path)
    return made


def push(store, ids=tuple(IDS[:3]), by=1):
    rows = store.read(list(ids))
    return push_vectors(store, list(ids), rows, rows + np.asarray(by, dtype=rows.dtype))


def held(kind, folder):
    """What a new process finds in the file."""
    store = kind.adapter(kind.load(folder))
    return {node: row.astype(np.float32) for names, rows in store.scan() for node, row in zip(names, rows, strict=True)}


def differing(kind, folder, truth=ORIGINALS):
    found = held(kind, folder)
    return sorted(node for node in {**found, **truth} if not np.array_equal(found.get(node), truth.get(node)))


def test_a_push_that_forgets_the_file_is_told_and_does_not_become_its_original(kind, tmp_path):
    made, path = kind.load(tmp_path), tmp_path / kind.file
    with pytest.warns(UserWarning, match="has no file: what was pushed, and the originals, end with this process"):
        receipt = push(kind.adapter(made))
    assert receipt.reason == "pushed as version 0001, in the memory of this process alone"
    for call in (status, rollback, push):
        with pytest.raises(
            JournalError, match=r"version 0001 was pushed to this .* store in memory, without persist_path"
        ):
            call(kind.adapter(made, persist_path=path))
    assert differing(kind, tmp_path) == []
    assert rollback(kind.adapter(made)).restored == 3
    assert push(kind.adapter(made, persist_path=path), by=2).pushed
    assert differing(kind, tmp_path) == IDS[:3]
    assert rollback(kind.adapter(kind.load(tmp_path), persist_path=path)).restored == 3
    assert differing(kind, tmp_path) == []


def test_a_file_that_was_saved_in_between_is_known_to_be_nudged(kind, tmp_path):
    """The framework saved what was pushed in memory; in the same process its originals are known."""
    made, path = kind.load(tmp_path), tmp_path / kind.file
    with pytest.warns(UserWarning, match="has no file"):
        push(kind.adapter(made))
    kind.save(made, tmp_path)
    rollback(kind.adapter(made))
    with pytest.raises(PushError, match=r"load the|save it"):
        push(kind.adapter(made, persist_path=path), IDS[4:])
    again = kind.adapter(kind.load(tmp_path), persist_path=path)
    assert sorted(status(again).returned) == IDS[:3]
    assert rollback(again).restored == 3
    assert differing(kind, tmp_path) == []


def test_a_path_that_is_forgotten_after_it_was_given_is_remembered(kind, tmp_path):
    made = kind.load(tmp_path)
    push(kind.adapter(made, persist_path=tmp_path / kind.file))
    assert status(kind.adapter(made)).version == "0001"
    assert rollback(kind.adapter(made)).restored == 3
    assert differing(kind, tmp_path) == []


def test_a_mistyped_path_is_refused_and_nothing_is_made(kind, tmp_path):
    made, before = kind.load(tmp_path), sorted(tmp_path.rglob("*"))
    for wrong in (tmp_path / "typo.json", tmp_path / "no" / kind.file, f"{tmp_path / kind.file} "):
        with pytest.raises(ValueError, match="there is no such file: save the store there by its framework first"):
            kind.adapter(made, persist_path=wrong)
    with pytest.raises(ValueError, match=r"must name a file, .* is a folder"):
        kind.adapter(made, persist_path=tmp_path)
    with pytest.raises(TypeError, match="must be a string or a path, got int"):
        kind.adapter(made, persist_path=7)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_and_a_relative_path_lead_to_the_file_from_wherever_one_stands(kind, tmp_path, monkeypatch):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (link := elsewhere / "link").symlink_to(tmp_path / kind.file)
    assert push(kind.adapter(kind.load(tmp_path), persist_path=link)).pushed
    assert link.is_symlink()
    assert differing(kind, tmp_path) == IDS[:3]
    monkeypatch.chdir(tmp_path)
    store = kind.adapter(kind.load(tmp_path), persist_path=Path(kind.file))
    monkeypatch.chdir(elsewhere)
    assert rollback(store).restored == 3
    assert differing(kind, tmp_path) == []
    assert list(elsewhere.iterdir()) == [link]


@pytest.mark.parametrize("known", [False, True], ids=["before our first look", "after our first push"])
@pytest.mark.parametrize("change", ["embedded again", "deleted"])
def test_what_others_did_to_the_file_is_neither_undone_nor_given_to_other_nodes(kind, tmp_path, known, change):
    made, path = kind.load(tmp_path), tmp_path / kind.file
    store = kind.adapter(made, persist_path=path)
    rows = store.read(IDS[:3])
    if known:
        push(store, IDS[4:])
    other, truth = kind.load(tmp_path), dict(ORIGINALS)
    if change == "deleted":
        kind.take(other, "n5")
        del truth["n5"]
    else:
        kind.put(other, "n5", "another text")
        truth["n5"] = vector("another text")
    kind.save(other, tmp_path)
    before = held(kind, tmp_path)
    try:
        push_vectors(store, IDS[:3], rows, rows + np.asarray(1, dtype=rows.dtype))
    except PushError as error:
        assert isinstance(error.__cause__, StoreError)
        assert "load the" in str(error)
        assert {n: v.tobytes() for n, v in held(kind, tmp_path).items()} == {n: v.tobytes() for n, v in before.items()}
    rollback(kind.adapter(kind.load(tmp_path), persist_path=path))
    assert differing(kind, tmp_path, truth) == []


def test_metadata_that_json_changes_are_no_change_of_somebody_else(tmp_path):
    made, path = InMemoryVectorStore(LangChainEmbeddings()), tmp_path / "dump.json"
    made.add_documents(documents({"size": (1, 2), "score": float("nan")}))
    made.dump(str(path))
    assert push(langchain_store(made, persist_path=path)).pushed
    loaded = InMemoryVectorStore.load(str(path), LangChainEmbeddings())
    assert rollback(langchain_store(loaded, persist_path=path)).restored == 3
    assert differing(InMemory(), tmp_path) == []
