"""Stores of LangChain that rank by words too: the framework answers, before and after a push; an overlay refuses."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_nudge import NudgeRetriever, embedding_store, rollback
from pydantic import ValidationError

from nudge_rag import Nudge
from nudge_rag.solvers import ValidationCurve
from tests.integrations.conftest import LangChainWorld, node_id, vector
from tests.support.builders.registry import here

N = 24
QUERY = "question 3 about 7"
WORDS, VECTORS = "by words too", "by vectors alone"
# How each kind ranks, with the file of builders that shares its packages.
KINDS = {
    "qdrant hybrid": ("qdrant", WORDS),
    "qdrant hybrid, no name": ("qdrant", WORDS),
    "qdrant dense": ("qdrant", VECTORS),
    "qdrant dense, no name": ("qdrant", VECTORS),
    "milvus": ("milvus", WORDS),
    "postgres": ("postgres", WORDS),
}
HERE = here({kind: builder for kind, (builder, _) in KINDS.items()})


class World(LangChainWorld):
    """Embeds the text that QdrantVectorStore asks for the dimension, too."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector(text if text[-1].isdigit() else "topic 0") for text in texts]


def documents() -> list[Document]:
    return [Document(id=node_id(i), page_content=f"topic {i}", metadata={"number": i}) for i in range(N)]


def qdrant(kind: str) -> Any:
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector

    class Words(SparseEmbeddings):
        """Each word is a dimension."""

        def embed_documents(self, texts: list[str]) -> list[SparseVector]:
            return [self.embed_query(text) for text in texts]

        def embed_query(self, text: str) -> SparseVector:
            found = sorted({zlib.crc32(word.encode()) % 1_000 for word in text.split()})
            return SparseVector(indices=found, values=[1.0] * len(found))

    mode = RetrievalMode.HYBRID if "hybrid" in kind else RetrievalMode.DENSE
    name = "" if "no name" in kind else "words"
    options = {"retrieval_mode": mode, "sparse_embedding": Words(), "vector_name": name}
    return QdrantVectorStore.from_documents(documents(), World(), location=":memory:", **options)


def milvus(folder: Any) -> Any:
    from langchain_milvus import BM25BuiltInFunction, Milvus

    indexes = [
        {"index_type": "FLAT", "metric_type": "COSINE"},
        {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25"},
    ]
    store = Milvus(
        World(),
        builtin_function=BM25BuiltInFunction(),
        vector_field=["dense", "sparse"],
        index_params=indexes,
        search_params=[{"metric_type": index["metric_type"], "params": {}} for index in indexes],
        connection_args={"uri": str(folder / "milvus.db")},
    )
    store.add_documents(documents(), ids=[document.id for document in documents()])
    return store


def postgres(servers: Any) -> Any:
    from langchain_postgres import PGEngine, PGVectorStore
    from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig

    from tests.support.builders.postgres import new_database, with_driver

    engine = PGEngine.from_connection_string(with_driver(new_database(servers), "psycopg"))
    engine.init_vectorstore_table("nodes", 16)
    store = PGVectorStore.create_sync(engine, World(), "nodes", hybrid_search_config=HybridSearchConfig())
    store.add_documents(documents())
    return store


@pytest.fixture(params=HERE)
def store(request: pytest.FixtureRequest, tmp_path: Any, servers: Any) -> Any:
    request.node.user_properties.append(("store", KINDS[request.param][0]))
    if request.param == "milvus":
        return milvus(tmp_path)
    return postgres(servers) if request.param == "postgres" else qdrant(request.param)


def moved(adapter: Any) -> Nudge:
    """Three nodes that the query does not name, moved to its side."""
    ids = [node_id(number) for number in (1, 11, 20)]
    held = adapter.read(ids)
    vectors = held + 3 * np.array(vector(QUERY), dtype=held.dtype)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    return Nudge(adapter, tuple(ids), adapter.as_stored(vectors), held, 0.1, curve, True, "moved by hand", "none")


def told(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


def test_answers_are_the_frameworks_before_and_after_a_push(store, request):
    ranks = KINDS[request.node.callspec.params["store"]][1]
    retriever = NudgeRetriever(vectorstore=store, k=12)
    own = store.as_retriever(search_kwargs={"k": 12})
    before = told(own.invoke(QUERY))
    assert told(retriever.invoke(QUERY)) == before
    nudge = moved(embedding_store(store))
    if ranks == VECTORS:
        overlay = told(NudgeRetriever(vectorstore=store, k=12, overlay=nudge).invoke(QUERY))
    assert nudge.push(force=True).pushed
    after = told(own.invoke(QUERY))
    assert after != before and {"topic 1", "topic 11", "topic 20"} <= set(after)
    assert told(retriever.invoke(QUERY)) == after
    if ranks == VECTORS:
        assert overlay == after
    receipt = rollback(store)
    assert (receipt.restored, receipt.exact) == (3, True)
    assert told(retriever.invoke(QUERY)) == before


def test_what_ranks_by_words_too_cannot_be_laid_over(store, request):
    nudge = moved(embedding_store(store))
    given = [{"overlay": nudge}, {"score_key": "score"}, {"query_embeddings": World()}]
    if KINDS[request.node.callspec.params["store"]][1] == VECTORS:
        for options in given:
            assert len(NudgeRetriever(vectorstore=store, k=5, **options).invoke(QUERY)) == 5
        return
    for options in given:
        with pytest.raises(ValidationError, match="cannot be honoured with an overlay, score_key, query_embeddings"):
            NudgeRetriever(vectorstore=store, **options)


@pytest.mark.skipif("qdrant dense" not in HERE, reason="qdrant-client is not installed")
def test_a_collection_of_sparse_vectors_has_nothing_to_move():
    from qdrant_client import QdrantClient, models

    from nudge_rag.stores import QdrantStore

    client = QdrantClient(":memory:")
    client.create_collection("words", sparse_vectors_config={"sparse": models.SparseVectorParams()})
    with pytest.raises(ValueError, match="collection 'words' has no dense vectors, which nudges move"):
        QdrantStore(client, "words")
