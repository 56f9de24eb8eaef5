"""New documents get the live map of all nodes as they are embedded, in both frameworks, and lose it by a rollback."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import embedding_store as langchain_store
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import embedding_store as llama_index_store

from nudge_rag import reapply, repair, rollback, status
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.packed_map import NODE_MAP, pack_adapter
from nudge_rag.journal.push import push_vectors
from nudge_rag.solvers import QueryAdapter
from nudge_rag.stores import MappingStore
from nudge_rag.stores.base import Capabilities
from nudge_rag.tuning.ingestion import DocumentMap

CHANGE = (np.random.default_rng(3).normal(size=(8, 8)) * 0.3).astype(np.float32)
MODEL = DeterministicFakeEmbedding(size=8)
LATE = ["a late text", "one more"]


def mapped(vectors):
    """(I + B^T) v at the length of v, by the equation."""
    wide = np.asarray(vectors, dtype=np.float64)
    turned = wide + wide @ CHANGE.astype(np.float64)
    return turned * np.linalg.norm(wide, axis=1, keepdims=True) / np.linalg.norm(turned, axis=1, keepdims=True)


class Model(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return MODEL.embed_query(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return MODEL.embed_query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return MODEL.embed_query(query)


class LangChain:
    """An application that adds documents to an InMemoryVectorStore."""

    def __init__(self, folder):
        self.versions = folder
        self.vectorstore = InMemoryVectorStore.from_texts(["a", "b"], MODEL, ids=["a", "b"])
        self.store = langchain_store(self.vectorstore)

    def add(self, ids, texts, later=False):
        self.vectorstore.embedding = NudgeEmbeddings(
            MODEL, self.vectorstore, versions=self.versions, map_documents=True
        )
        if later:
            asyncio.run(self.vectorstore.aadd_texts(texts, ids=ids))
        else:
            self.vectorstore.add_texts(texts, ids=ids)


class LlamaIndex:
    """An application that inserts nodes into an index."""

    def __init__(self, folder):
        self.versions = folder
        nodes = [TextNode(text=text, id_=text) for text in "ab"]
        self.index = VectorStoreIndex(nodes, embed_model=Model())
        self.store = llama_index_store(self.index)

    def add(self, ids, texts, later=False):
        model = NudgeEmbedding(Model(), self.index, versions=self.versions, map_documents=True)
        self.index._embed_model = model
        nodes = [TextNode(text=text, id_=node_id) for node_id, text in zip(ids, texts, strict=True)]
        if later:
            asyncio.run(self.index.ainsert_nodes(nodes))
        else:
            self.index.insert_nodes(nodes)


def push_map(application):
    ids = ["a", "b"]
    vectors = application.store.read(ids)
    details = {NODE_MAP: pack_adapter(QueryAdapter(CHANGE))}
    push_vectors(application.store, ids[:0], vectors[:0], vectors[:0], versions=application.versions, details=details)
    return vectors


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", [LangChain, LlamaIndex])
def test_documents_are_mapped_while_a_map_is_live_and_known_from_then_on(kind, later, tmp_path):
    application = kind(tmp_path)
    store = application.store
    application.add(["early"], ["an early text"])
    raw = np.array([MODEL.embed_query("an early text")])
    np.testing.assert_array_equal(store.read(["early"]), raw.astype(store.capabilities.dtype))
    before = push_map(application)
    application.add(["late", "more"], LATE, later)
    own = np.array(MODEL.embed_documents(LATE))
    np.testing.assert_allclose(store.read(["late", "more"]), mapped(own), atol=1e-6)
    assert status(store, tmp_path).unmapped == ()
    held = store.read(["a", "b", "late", "more"]).tobytes()
    assert reapply(store, tmp_path) == ()
    assert store.read(["a", "b", "late", "more"]).tobytes() == held
    assert rollback(store, tmp_path).restored == 5
    np.testing.assert_array_equal(store.read(["late", "more"]), own.astype(store.capabilities.dtype))
    assert store.read(["a", "b"]).tobytes() == before.tobytes()
    assert rollback(store, tmp_path).restored == 0


@pytest.mark.parametrize("kind", [LangChain, LlamaIndex])
def test_a_push_over_it_starts_from_the_vectors_that_the_model_gave(kind, tmp_path):
    application = kind(tmp_path)
    store = application.store
    before = push_map(application)
    application.add(["late", "more"], LATE)
    own = np.array(MODEL.embed_documents(LATE)).astype(store.capabilities.dtype)
    push_vectors(store, ["late"], own[:1], -own[:1], versions=tmp_path)
    np.testing.assert_array_equal(store.read(["late", "more"]), np.stack([-own[0], own[1]]))
    np.testing.assert_array_equal(store.read(["a", "b"]), before)
    rollback(store, tmp_path)
    np.testing.assert_array_equal(store.read(["late", "more"]), own)


def test_documents_stay_as_they_are_unless_it_is_asked_for(tmp_path):
    application = LangChain(tmp_path)
    push_map(application)
    plain = NudgeEmbeddings(MODEL, application.vectorstore, versions=tmp_path)
    assert plain.embed_documents(LATE) == MODEL.embed_documents(LATE)
    assert plain.embed_query(LATE[0]) == MODEL.embed_query(LATE[0])


def test_a_map_of_documents_needs_the_store():
    adapter = QueryAdapter(CHANGE)
    with pytest.raises(TypeError, match=r"needs the vector store as the source, .* got QueryAdapter"):
        NudgeEmbeddings(MODEL, adapter, map_documents=True)
    with pytest.raises(TypeError, match=r"needs the index or vector store as the source, .* got QueryAdapter"):
        NudgeEmbedding(Model(), adapter, map_documents=True)


def test_a_store_that_rounds_is_refused(tmp_path):
    class Rounding(MappingStore):
        @property
        def capabilities(self):
            return Capabilities("cosine", "float64", rounding=1e-3)

    vectors = np.eye(8)[:2]
    store = Rounding(dict(zip("ab", vectors.tolist(), strict=True)), key="rounding")
    details = {NODE_MAP: pack_adapter(QueryAdapter(CHANGE))}
    push_vectors(store, [], vectors[:0], vectors[:0], versions=tmp_path, details=details)
    with pytest.raises(ValueError, match=r"does not keep vectors bit for bit.*nudge_rag.reapply\(\)"):
        DocumentMap(lambda: store, tmp_path)(vectors.tolist())


def test_a_damaged_record_is_told_and_set_aside(tmp_path):
    application = LangChain(tmp_path)
    push_map(application)
    application.add(["late"], LATE[:1])
    (path,) = tmp_path.rglob("ingested/*")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptArchiveError, match=r"ingested/.* does not match the checksum"):
        rollback(application.store, tmp_path)
    assert repair(application.store, tmp_path).set_aside == ("ingested",)
    rollback(application.store, tmp_path)
