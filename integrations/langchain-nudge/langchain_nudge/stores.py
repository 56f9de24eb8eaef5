"""From a LangChain vector store to the adapter of its database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_nudge.databases.registry import DATABASES, database_of
from nudge_rag.journal.text_hashes import TextsOf
from nudge_rag.stores import EmbeddingStore

__all__ = ["documents_of", "embedding_store", "texts_of"]

# Metadata that loaders and parent-document retrievers name the document of a chunk by.
DOCUMENT_KEYS = ("doc_id", "document_id", "parent_id", "source")


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
    if isinstance(inner := getattr(vectorstore, "vectorstore", None), VectorStore):
        name = type(inner).__name__
        raise TypeError(f"{type(vectorstore).__name__} is a retriever: pass its vector store (.vectorstore, a {name})")
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
    fetch = _documents_by_id(vectorstore)
    if fetch is None:
        return None

    def texts(ids: list[str]) -> list[str | None]:
        found = fetch(ids)
        return [found[node_id].page_content if node_id in found else None for node_id in ids]

    return texts


def documents_of(vectorstore: Any) -> TextsOf | None:
    """Ids of chunks to those of their documents, as `nudge_rag.tune` takes it; None if nothing is known.

    The document is named by the metadata ``doc_id``, ``document_id``, ``parent_id`` or ``source``.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.embeddings import FakeEmbeddings
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> vectorstore = InMemoryVectorStore(FakeEmbeddings(size=2))
        >>> added = vectorstore.add_documents([Document(id="n1", page_content="text", metadata={"source": "a.pdf"})])
        >>> documents_of(vectorstore)(["n1", "gone"])
        ['a.pdf', None]
    """
    fetch = _documents_by_id(vectorstore)
    if fetch is None:
        return None

    def documents(ids: list[str]) -> list[str | None]:
        found = fetch(ids)
        return [_document_named_by(found[node_id].metadata) if node_id in found else None for node_id in ids]

    return documents


def _documents_by_id(vectorstore: Any) -> Callable[[list[str]], dict[str, Document]] | None:
    database = database_of(vectorstore)
    if database is None:
        return None
    return lambda ids: (
        {str(document.id): document for document in database.fetch_documents(vectorstore, ids)} if ids else {}
    )


def _document_named_by(metadata: Mapping[str, Any]) -> str | None:
    return next((str(metadata[key]) for key in DOCUMENT_KEYS if metadata.get(key) is not None), None)
