"""The framework's own search, as LangChain's `VectorStoreRetriever` asks for it, with the ids of its documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_nudge.databases.base import Database

__all__ = ["ask_framework", "ask_framework_async"]


def ask_framework(
    database: Database, vectorstore: VectorStore, search_type: str, query: str, options: Mapping[str, Any]
) -> list[Document]:
    """Search by the method that ``search_type`` names.

    Args:
        database: of the vector store.
        vectorstore: the framework's object.
        search_type: as `VectorStoreRetriever` takes it.
        query: the text.
        options: of the method.
    """
    if search_type == "similarity":
        documents = vectorstore.similarity_search(query, **options)
    elif search_type == "mmr":
        documents = vectorstore.max_marginal_relevance_search(query, **options)
    else:
        scored = vectorstore.similarity_search_with_relevance_scores(query, **options)
        documents = [document for document, _ in scored]
    return database.complete(vectorstore, documents)


async def ask_framework_async(
    database: Database, vectorstore: VectorStore, search_type: str, query: str, options: Mapping[str, Any]
) -> list[Document]:
    """Search as `ask_framework`, awaiting the method."""
    if search_type == "similarity":
        documents = await vectorstore.asimilarity_search(query, **options)
    elif search_type == "mmr":
        documents = await vectorstore.amax_marginal_relevance_search(query, **options)
    else:
        scored = await vectorstore.asimilarity_search_with_relevance_scores(query, **options)
        documents = [document for document, _ in scored]
    return database.complete(vectorstore, documents)
