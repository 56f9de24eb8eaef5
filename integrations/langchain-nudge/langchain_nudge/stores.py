"""From a LangChain vector store to the adapter of its database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_nudge.databases.registry import DATABASES, database_of
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.stores import EmbeddingStore

__all__ = ["embedding_store", "texts_of"]


def embedding_store(vectorstore: Any, *, persist_path: str | Path | None = None) -> EmbeddingStore:
    """The `nudge_rag.stores.EmbeddingStore` of a LangChain vector store.

    Args:
        vectorstore: a vector store, or an `EmbeddingStore`, which is returned as it is.
        persist_path: for InMemoryVectorStore, the file of its ``dump``, and for FAISS the ``index.faiss`` of its
            ``save_local``, that changes are written through to.

    Raises:
        TypeError: a store that is not supported, with the list of those that are; an old class, with
            the one that took its place.
        ValueError: ``persist_path`` for a store that keeps itself.
    """
    database = database_of(vectorstore)
    if database is not None and database.keeps_file:
        return database.make_adapter(vectorstore, persist_path=persist_path)
    if persist_path is not None:
        raise ValueError(
            f"persist_path is for InMemoryVectorStore and FAISS; {type(vectorstore).__name__} keeps its own data"
        )
    if isinstance(vectorstore, EmbeddingStore):
        return vectorstore
    if database is not None:
        return database.make_adapter(vectorstore)
    raise TypeError(
        f"{type(vectorstore).__name__} is not supported; supported are {', '.join(DATABASES)}. For another store,"
        " implement the nudge_rag.stores.EmbeddingStore protocol and pass that"
    )


def texts_of(vectorstore: Any) -> TextsOf | None:
    """Document ids to their texts, as `nudge_rag.tune` and `nudge_rag.status` take it; None if nothing is known.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.embeddings import FakeEmbeddings
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> vectorstore = InMemoryVectorStore(FakeEmbeddings(size=2))
        >>> added = vectorstore.add_documents([Document(id="n1", page_content="some text")])
        >>> texts_of(vectorstore)(["n1", "gone"])
        ['some text', None]
    """
    database = database_of(vectorstore)
    if database is None:
        return None

    def texts(ids: list[str]) -> list[str | None]:
        found = (
            {document.id: document.page_content for document in database.fetch_documents(vectorstore, ids)}
            if ids
            else {}
        )
        return [found.get(node_id) for node_id in ids]

    return texts
