"""Through both frameworks: three columns, models known by fingerprint, labels and nudges that survive new ids."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import load_nudge as load_langchain
from langchain_nudge import reapply as reapply_langchain
from langchain_nudge import tune as tune_langchain
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge import load_nudge as load_llama_index
from llama_index.retrievers.nudge import reapply as reapply_llama_index
from llama_index.retrievers.nudge import tune as tune_llama_index

from nudge_rag import LabeledPairs, PushError, rollback

N, D = 10, 8
PAIRS = LabeledPairs.from_pairs((f"topic {at}, asked as {word}", f"old-{at}") for at in range(N) for word in "abcdefgh")
BY_DOCUMENT = LabeledPairs(PAIRS.queries, {q: {f"{n}.pdf": g for n, g in gs.items()} for q, gs in PAIRS.qrels.items()})


def vector_of(text, seed):
    """Queries point where a mix of their topic's node and something else is."""
    topic, rng = text.split(",")[0], np.random.default_rng([seed, *map(ord, text)])
    place = np.random.default_rng([seed, *map(ord, topic)]).normal(size=D)
    if text == topic:
        return place.tolist()
    aside = np.random.default_rng([seed, 7, *map(ord, topic)]).normal(size=D)
    return (0.6 * place + aside + 0.2 * rng.normal(size=D)).tolist()


class LangChainModel(Embeddings):
    def __init__(self, seed=1):
        self.seed, self.asked = seed, []

    def embed_documents(self, texts):
        return [vector_of(text, self.seed) for text in texts]

    def embed_query(self, text):
        self.asked.append(text)
        return vector_of(text, self.seed)


class LlamaIndexModel(BaseEmbedding):
    seed: int = 1
    asked: Any = None

    def _get_text_embedding(self, text):
        return vector_of(text, self.seed)

    def _get_query_embedding(self, text):
        self.asked.append(text)
        return vector_of(text, self.seed)

    async def _aget_query_embedding(self, text):
        return self._get_query_embedding(text)


class LangChain:
    """The vector store, and what to do with it."""

    tune, reapply = staticmethod(tune_langchain), staticmethod(reapply_langchain)

    def __init__(self):
        self.model = LangChainModel()
        self.store = InMemoryVectorStore(self.model)
        self.fill("old")

    def fill(self, name):
        self.store.delete(list(self.store.store))
        metadata = [{"source": f"old-{at}.pdf"} for at in range(N)]
        documents = [Document(f"topic {at}", id=f"{name}-{at}", metadata=metadata[at]) for at in range(N)]
        self.store.add_documents(documents)

    def other_model(self):
        return {"embeddings": LangChainModel(2)}

    def retriever(self, model=None, **options):
        model = None if model is None else LangChainModel(2)
        return LangChainRetriever(vectorstore=self.store, query_embeddings=model, **options).invoke

    def wrapper(self, source):
        return NudgeEmbeddings(LangChainModel(2), source).embed_query


class LlamaIndex:
    """The index, and what to do with it."""

    tune, reapply = staticmethod(tune_llama_index), staticmethod(reapply_llama_index)

    def __init__(self):
        self.model = LlamaIndexModel(asked=[])
        self.store = VectorStoreIndex([], embed_model=self.model)
        self.fill("old")

    def fill(self, name):
        self.store.delete_nodes(list(self.store.vector_store.data.embedding_dict), delete_from_docstore=True)
        nodes = [TextNode(text=f"topic {at}", id_=f"{name}-{at}") for at in range(N)]
        for at, node in enumerate(nodes):
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"old-{at}.pdf")
        self.store.insert_nodes(nodes)

    def other_model(self):
        return {"embed_model": LlamaIndexModel(seed=2, asked=[])}

    def retriever(self, model=None, **options):
        model = None if model is None else LlamaIndexModel(seed=2, asked=[])
        return LlamaIndexRetriever(self.store, embed_model=model, **options).retrieve

    def wrapper(self, source):
        return NudgeEmbedding(LlamaIndexModel(seed=2, asked=[]), source).get_query_embedding


@pytest.fixture(params=[LangChain, LlamaIndex])
def world(request):
    return request.param()


def tuned(world, pairs=PAIRS, **options):
    return world.tune(world.store, pairs, solver="nudge-n", **options)


def test_the_live_version_is_found_by_itself(world):
    assert not tuned(world).comparison.has_live
    assert tuned(world, PAIRS.subset(list(PAIRS.queries)[:40])).push().pushed
    nudge = tuned(world)
    assert nudge.against_live.version == "0001"
    row = nudge.comparison.rows[0]
    assert row.before != row.live
    assert "originals" in str(nudge)
    tested = set(nudge.split.test.queries.values())
    assert nudge.comparison.seen == 0, "no held-out query was learned before"
    assert len(tested) > 0


def test_another_model_is_noticed_at_tune_push_and_at_the_start_of_retrievers(world):
    nudge = tuned(world)
    assert nudge.model is None, "a model without a name has none"
    assert nudge.push().pushed
    with pytest.warns(UserWarning, match="version 0001, which is live, was made for another embedding model"):
        other = tuned(world, **world.other_model())
    with pytest.raises(PushError, match="another embedding model"):
        other.push(force=True)
    with pytest.warns(UserWarning, match="version 0001, which is live, was made for another embedding model"):
        ask = world.retriever(model="other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask("topic 2, asked")
        world.retriever()("topic 3, asked")
    with pytest.warns(UserWarning, match="the overlay was made for another embedding model"):
        world.retriever(model="other", overlay=nudge)("topic 1, asked")
    with pytest.warns(UserWarning, match="this nudge was made for another embedding model"):
        world.wrapper(nudge)
    with pytest.warns(UserWarning, match="which is live, was made for another embedding model"):
        world.wrapper(world.store)


def test_a_model_is_probed_at_most_once(world):
    assert tuned(world).push().pushed
    probed = world.model.asked.count("How do I reset my password?")
    assert probed == 2, "in one batch, that holds the first text twice"
    tuned(world)
    world.retriever()("topic 1, asked")
    assert world.model.asked.count("How do I reset my password?") == probed


def test_a_rebuilt_index_gets_its_nudge_again_and_learns_from_old_labels(world):
    nudge = tuned(world)
    assert nudge.push().pushed
    world.fill("new")
    with pytest.warns(UserWarning, match="found by text: 'old-0' is now 'new-0'"):
        again = tuned(world)
    assert {node.replace("old", "new") for node in nudge.ids} == set(again.ids)
    assert set(world.reapply(world.store)) == set(again.ids)
    asked = world.retriever()("topic 1, asked as a")
    assert len(asked) > 0
    assert rollback(nudge.store).restored == len(again.ids)


def test_labels_may_name_documents(world):
    with pytest.warns(UserWarning, match=r"10 label.s. name documents and not nodes, such as 'old-0.pdf'"):
        nudge = tuned(world, BY_DOCUMENT)
    assert set(nudge.ids) <= {f"old-{at}" for at in range(N)}
    assert nudge.improves


def test_what_was_saved_for_a_store_in_memory_is_not_taken_for_another(world, tmp_path):
    """Neither has a file or a push, by which it would be known."""
    nudge = tuned(world)
    nudge.save(tmp_path / "nudge")
    other = type(world)()
    assert load(world, tmp_path / "nudge", other.store).ids == nudge.ids, "it holds the same nodes"
    store = other.tune(other.store, PAIRS, solver="nudge-n").store
    store.replace(list(nudge.ids), store.read(list(nudge.ids)) * 2)
    with pytest.raises(ValueError, match="was made for another store in memory"):
        load(world, tmp_path / "nudge", other.store)


def load(world, folder, store):
    return (load_langchain if isinstance(world, LangChain) else load_llama_index)(folder, store)
