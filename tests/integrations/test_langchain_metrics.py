"""LangChain's stores by each of their metrics: an overlay answers as the framework does after the push."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_nudge import NudgeRetriever, embedding_store, tune

from nudge_rag import LabeledPairs, Nudge
from nudge_rag.solvers import ValidationCurve
from tests.integrations.conftest import LangChainWorld, node_id, vector
from tests.support.builders.registry import here

N = 40
UNMOVED = "topic 13"
QUESTIONS = ("question 3 about 7", "topic 12", UNMOVED)


class Uneven(LangChainWorld):
    """Vectors of several lengths; queries are long."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        known = [
            text if text[-1].isdigit() else "topic 0" for text in texts
        ]  # QdrantVectorStore asks for the dimension
        return [(np.array(vector(text)) * (1 + int(text.split()[-1]) % 3)).tolist() for text in known]

    def embed_query(self, text: str) -> list[float]:
        return (np.array(vector(text)) * (3 if text.startswith("question") else 1)).tolist()


def faiss(metric: str, strategy: str, **options: Any) -> Any:
    import faiss
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS
    from langchain_community.vectorstores.utils import DistanceStrategy

    index = faiss.IndexFlatIP(16) if metric == "ip" else faiss.IndexFlatL2(16)
    return FAISS(Uneven(), index, InMemoryDocstore(), {}, distance_strategy=DistanceStrategy[strategy], **options)


def qdrant(distance: str) -> Any:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    chosen = models.Distance(distance)
    client.create_collection("metric", vectors_config=models.VectorParams(size=16, distance=chosen))
    options = {"distance": chosen, "validate_collection_config": False}
    return QdrantVectorStore(client, "metric", Uneven(), **options)


def chroma(space: str, folder: Any) -> Any:
    from langchain_chroma import Chroma

    configuration: Any = {"hnsw": {"space": space, "ef_search": 500}}
    return Chroma("metric", Uneven(), persist_directory=str(folder), collection_configuration=configuration)


MAKERS = {
    "faiss l2": ("faiss", lambda folder: faiss("l2", "EUCLIDEAN_DISTANCE")),
    "faiss ip": ("faiss", lambda folder: faiss("ip", "MAX_INNER_PRODUCT")),
    "faiss ip, told l2": ("faiss", lambda folder: faiss("ip", "EUCLIDEAN_DISTANCE")),
    "faiss l2, normalized": ("faiss", lambda folder: faiss("l2", "EUCLIDEAN_DISTANCE", normalize_L2=True)),
    "faiss ip, normalized": ("faiss", lambda folder: faiss("ip", "MAX_INNER_PRODUCT", normalize_L2=True)),
    "qdrant Cosine": ("qdrant", lambda folder: qdrant("Cosine")),
    "qdrant Dot": ("qdrant", lambda folder: qdrant("Dot")),
    "qdrant Euclid": ("qdrant", lambda folder: qdrant("Euclid")),
    "chroma l2": ("chroma", lambda folder: chroma("l2", folder)),
    "chroma ip": ("chroma", lambda folder: chroma("ip", folder)),
}
SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("similarity", {"k": 5}),
    ("mmr", {"k": 4, "fetch_k": 12}),
    ("mmr", {"k": 6, "fetch_k": 30, "lambda_mult": 0.8}),
    *[("similarity_score_threshold", {"k": 8, "score_threshold": at}) for at in (0.0, 0.2, 0.5, 0.9, 1.0)],
]
OWN_THRESHOLDS = [("similarity", {"k": 8, "score_threshold": at}) for at in (0.1, 0.6, 1.1, 4.2)]


def moved(store: Any) -> Nudge:
    """Every second node, turned by half of its length and as long as before."""
    adapter = embedding_store(store)
    ids = [node_id(number) for number in range(0, N, 2)]
    held = adapter.read(ids).astype(np.float64)
    lengths = np.linalg.norm(held, axis=1, keepdims=True)
    turned = held + 0.5 * lengths * np.random.default_rng(4).normal(size=held.shape) / 4
    vectors = adapter.as_stored(turned / np.linalg.norm(turned, axis=1, keepdims=True) * lengths)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    return Nudge(adapter, tuple(ids), vectors, adapter.read(ids), 0.1, curve, True, "moved by hand", "none")


def told(store: Any, search: tuple[str, dict[str, Any]], question: str, overlay: Nudge | None, *, ours: bool) -> Any:
    given = {"search_type": search[0], "search_kwargs": search[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of relevance below 0 or above 1
        retriever = NudgeRetriever(vectorstore=store, overlay=overlay, **given) if ours else store.as_retriever(**given)
        return [document.page_content for document in retriever.invoke(question)]


@pytest.mark.parametrize("kind", here({kind: builder for kind, (builder, _) in MAKERS.items()}))
def test_an_overlay_answers_as_the_framework_does_after_the_push(kind, tmp_path, request):
    request.node.user_properties.append(("store", MAKERS[kind][0]))
    store = MAKERS[kind][1](tmp_path)
    store.add_documents([Document(id=node_id(number), page_content=f"topic {number}") for number in range(N)])
    # MMR among nodes of which each is as near to the query as to a node that is the query: rounding would choose.
    asked = [one for one in itertools.product(SEARCHES, QUESTIONS) if one[0][0] != "mmr" or one[1] != UNMOVED]
    if MAKERS[kind][0] in ("faiss", "qdrant"):
        asked += itertools.product(OWN_THRESHOLDS, QUESTIONS)
    own = [told(store, *one, None, ours=False) for one in asked]
    assert [told(store, *one, None, ours=True) for one in asked] == own
    nudge = moved(store)
    served = [told(store, *one, nudge, ours=True) for one in asked]
    assert nudge.push(force=True).pushed
    pushed = [told(store, *one, None, ours=False) for one in asked]
    assert pushed != own
    assert dict(zip(map(str, asked), served, strict=True)) == dict(zip(map(str, asked), pushed, strict=True))
    assert nudge.rollback().exact


@pytest.mark.skipif("faiss l2" not in here({"faiss l2": "faiss"}), reason="faiss is not installed")
def test_queries_are_tuned_as_they_are_searched():
    pairs = LabeledPairs.from_pairs((f"question {turn} about {i}", node_id(i)) for i in range(30) for turn in range(8))
    nudges = []
    for embeddings in (LangChainWorld(), Uneven()):
        store = faiss("ip", "MAX_INNER_PRODUCT", normalize_L2=True)
        store.embedding_function = LangChainWorld()
        store.add_documents([Document(id=node_id(number), page_content=f"topic {number}") for number in range(N)])
        nudges.append(tune(store, pairs, embeddings=embeddings, solver="nudge-m"))
    # Queries three times as long are the same queries.
    assert nudges[0].ids == nudges[1].ids
    np.testing.assert_allclose(nudges[0].vectors, nudges[1].vectors, atol=1e-6)
