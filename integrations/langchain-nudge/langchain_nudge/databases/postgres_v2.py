"""PGVectorStore, langchain-postgres' second: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from langchain_nudge.databases.base import Database, get_documents
from langchain_nudge.databases.sqlalchemy import conninfo, written_out
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, PgVectorStore

__all__ = ["DATABASE"]

OPERATORS: dict[str, Similarity] = {"<=>": "cosine", "<#>": "dot", "<->": "l2"}


def _inner(vectorstore: Any) -> Any:
    """The asynchronous store inside langchain-postgres' PGVectorStore; its name is private to the class."""
    return vectorstore._PGVectorStore__vs


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    inner = _inner(vectorstore)
    return PgVectorStore(
        conninfo(inner.engine),
        inner.table_name,
        schema=inner.schema_name,
        id_column=inner.id_column,
        vector_column=inner.embedding_column,
        similarity=OPERATORS[inner.distance_strategy.operator],
    )


def make_filter(vectorstore: Any, given: Any) -> str | None:
    from sqlalchemy import text

    if not given:
        return None
    clause, values = _inner(vectorstore)._create_filter_clause(given)
    return written_out(text(clause).bindparams(**values))


DATABASE = Database(make_adapter, make_filter, get_documents)
