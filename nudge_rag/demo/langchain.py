"""The demo's application in LangChain."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_nudge import NudgeRetriever, embedding_store, tune

from nudge_rag.demo.application import Application
from nudge_rag.demo.attack import Attack
from nudge_rag.demo.encoder import CachedEncoder
from nudge_rag.tuning.options import SolverName

__all__ = ["EncoderEmbeddings", "build"]


class EncoderEmbeddings(Embeddings):
    """A `CachedEncoder` as LangChain's embedding model."""

    def __init__(self, encoder: CachedEncoder) -> None:
        self._encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed nodes."""
        embeddings: list[list[float]] = self._encoder.encode(texts, "embedding nodes").tolist()
        return embeddings

    def embed_query(self, text: str) -> list[float]:
        """Embed a query."""
        return self.embed_documents([text])[0]


def build(store: str, attack: Attack, encoder: CachedEncoder, folder: Path) -> Application:
    """Add the techniques as documents to a vector store."""
    vectorstore = _vectorstore(store, EncoderEmbeddings(encoder), folder)
    vectorstore.add_documents(
        [
            Document(id=node, page_content=text, metadata={"name": attack.names[node]})
            for node, text in attack.nodes.items()
        ]
    )
    retriever = NudgeRetriever(vectorstore=vectorstore)

    def search(query: str, k: int) -> list[str]:
        return [str(found.id) for found in retriever.invoke(query, k=k)]

    return Application(
        store=embedding_store(vectorstore),
        tune=lambda split, solver: tune(
            vectorstore, split, solver=cast(SolverName, solver), versions=folder / "nudge-versions"
        ),
        search=search,
        contents=lambda: _contents(vectorstore, list(attack.nodes)),
    )


def _vectorstore(store: str, embeddings: Embeddings, folder: Path) -> VectorStore:
    if store == "in-memory":
        return InMemoryVectorStore(embeddings)
    from langchain_chroma import Chroma

    configuration: Any = {"hnsw": {"space": "cosine", "ef_search": 1000}}
    return Chroma(
        "attack",
        embedding_function=embeddings,
        persist_directory=str(folder / "chroma"),
        collection_configuration=configuration,
    )


def _contents(vectorstore: VectorStore, ids: list[str]) -> dict[str, str]:
    return {str(found.id): found.model_dump_json() for found in vectorstore.get_by_ids(ids)}
