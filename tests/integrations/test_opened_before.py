"""A service that opened its store before another one switched serves what is live, with the map of that."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_nudge import NudgeEmbeddings
from langchain_nudge import NudgeRetriever as LangChainRetriever
from langchain_nudge import embedding_store as langchain_store
from langchain_nudge import tune as tune_langchain
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.retrievers.nudge import NudgeEmbedding
from llama_index.retrievers.nudge import NudgeRetriever as LlamaIndexRetriever
from llama_index.retrievers.nudge import embedding_store as llama_index_store
from llama_index.retrievers.nudge import tune as tune_llama_index

from nudge_rag import rollback, switch
from nudge_rag.solvers import QueryAdapter
from tests.integrations.test_query_map import NODES, OPTIONS, PAIRS, TEXTS, D, EmbedModel, Model, N, moved, nearest

ASKED = TEXTS[::60]
STILL = QueryAdapter(np.zeros((D, D)))
HNSW = {"hnsw": {"space": "cosine", "ef_search": 500}}


class LangChainChroma:
    """An application that opens a Chroma folder."""

    def open(self, folder):
        from langchain_chroma import Chroma

        return Chroma("nodes", Model(), persist_directory=str(folder), collection_configuration=HNSW)

    def fill(self, folder):
        self.open(folder).add_documents([Document(id=f"n{row}", page_content=f"node {row}") for row in range(N)])

    tune, store = staticmethod(tune_langchain), staticmethod(langchain_store)

    def retriever(self, opened):
        retriever = LangChainRetriever(vectorstore=opened, k=3)
        return lambda text: [document.id for document in retriever.invoke(text)]

    def wrapped(self, opened):
        model = NudgeEmbeddings(Model(), opened)
        own = opened.similarity_search_by_vector
        return lambda text: [document.id for document in own(model.embed_query(text), k=3)]


class LlamaIndexChroma:
    """An application that opens a Chroma folder."""

    tune, store = staticmethod(tune_llama_index), staticmethod(llama_index_store)

    def vector_store(self, folder):
        import chromadb
        from llama_index.vector_stores.chroma import ChromaVectorStore

        client = chromadb.PersistentClient(str(folder))
        return ChromaVectorStore(chroma_collection=client.get_or_create_collection("nodes", configuration=HNSW))

    def open(self, folder):
        return VectorStoreIndex.from_vector_store(self.vector_store(folder), embed_model=EmbedModel())

    def fill(self, folder):
        nodes = [TextNode(id_=f"n{row}", text=f"node {row}") for row in range(N)]
        storage = StorageContext.from_defaults(vector_store=self.vector_store(folder))
        VectorStoreIndex(nodes, storage_context=storage, embed_model=EmbedModel())

    def retriever(self, opened):
        retriever = LlamaIndexRetriever(opened, similarity_top_k=3)
        return lambda text: [found.node_id for found in retriever.retrieve(text)]

    def wrapped(self, opened):
        retriever = opened.as_retriever(similarity_top_k=3, embed_model=NudgeEmbedding(EmbedModel(), opened))
        return lambda text: [found.node_id for found in retriever.retrieve(text)]


class LlamaIndexLance(LlamaIndexChroma):
    """An application that opens a LanceDB folder, whose tables stay at the version that they were opened at."""

    def vector_store(self, folder):
        from llama_index.vector_stores.lancedb import LanceDBVectorStore

        return LanceDBVectorStore(uri=str(folder), table_name="nodes")


@pytest.mark.parametrize("kind", [LangChainChroma, LlamaIndexChroma, LlamaIndexLance], ids=lambda kind: kind.__name__)
def test_what_is_live_is_served_with_its_own_map(kind, tmp_path):
    application = kind()
    application.fill(tmp_path)
    first, job = application.open(tmp_path), application.open(tmp_path)
    served = [application.retriever(first), application.wrapped(first)]
    nudge = application.tune(job, PAIRS, **OPTIONS)
    before = [nearest(STILL, NODES, text) for text in ASKED]
    after = [nearest(nudge.adapter, moved(nudge), text) for text in ASKED]
    assert [[answer(text) for text in ASKED] for answer in served] == [before] * 2
    with pytest.warns(UserWarning, match="queries must pass nudge.adapter"):
        nudge.push(mode="side-by-side")
    switch(application.store(job), accept_gap=True)
    assert [[answer(text) for text in ASKED] for answer in served] == [after] * 2
    second = application.open(tmp_path)
    served += [application.retriever(second), application.wrapped(second)]
    assert [[answer(text) for text in ASKED] for answer in served] == [after] * 4
    rollback(application.store(job))
    assert [[answer(text) for text in ASKED] for answer in served] == [before] * 4
