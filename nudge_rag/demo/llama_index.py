"""The demo's application in LlamaIndex."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.retrievers.nudge import NudgeRetriever, embedding_store, tune

from nudge_rag.demo.application import Application
from nudge_rag.demo.attack import Attack
from nudge_rag.demo.encoder import CachedEncoder
from nudge_rag.tuning.options import SolverName

__all__ = ["EncoderEmbedding", "build"]


class EncoderEmbedding(BaseEmbedding):
    """A `CachedEncoder` as LlamaIndex's embedding model."""

    _encoder: CachedEncoder = PrivateAttr()

    def __init__(self, encoder: CachedEncoder, **kwargs: Any) -> None:
        super().__init__(model_name="all-MiniLM-L6-v2", embed_batch_size=1000, **kwargs)
        self._encoder = encoder

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings: list[list[float]] = self._encoder.encode(texts, "embedding nodes").tolist()
        return embeddings

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def build(store: str, attack: Attack, encoder: CachedEncoder, folder: Path) -> Application:
    """Add the techniques as nodes to a `VectorStoreIndex`."""
    nodes = [
        TextNode(id_=node, text=text, metadata={"name": attack.names[node]}) for node, text in attack.nodes.items()
    ]
    for node in nodes:
        node.excluded_embed_metadata_keys = ["name"]  # the text says it already
    context = StorageContext.from_defaults(vector_store=_vector_store(store, folder))
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=EncoderEmbedding(encoder))
    adapter = embedding_store(index)

    def search(query: str, k: int) -> list[str]:
        return [found.node_id for found in NudgeRetriever(index, similarity_top_k=k).retrieve(query)]

    return Application(
        store=adapter,
        tune=lambda split, solver: tune(
            index, split, solver=cast(SolverName, solver), versions=folder / "nudge-versions"
        ),
        search=search,
        contents=lambda: _contents(index, list(attack.nodes)),
    )


def _vector_store(store: str, folder: Path) -> Any:
    if store == "simple":
        return SimpleVectorStore()
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(path=str(folder / "chroma"))
    collection = client.create_collection("attack", configuration={"hnsw": {"space": "cosine", "ef_search": 1000}})
    return ChromaVectorStore(chroma_collection=collection)


def _contents(index: VectorStoreIndex, ids: list[str]) -> dict[str, str]:
    source: Any = index.vector_store if index.vector_store.stores_text else index.docstore
    return {node.node_id: node.to_json() for node in source.get_nodes(ids)}
