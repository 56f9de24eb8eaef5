"""PGVectorStore, langchain-postgres' second: its adapter, its filters, and its documents by id."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.sqlalchemy import written_out
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, PgVectorStore
from nudge_rag.stores.postgres.connection import Connections, connections_of

__all__ = ["DATABASE"]

OPERATORS: dict[str, Similarity] = {"<=>": "cosine", "<#>": "dot", "<->": "l2"}


def _inner(vectorstore: Any) -> Any:
    """The asynchronous store inside, whose name is private to the class; an AsyncPGVectorStore is one itself."""
    return getattr(vectorstore, "_PGVectorStore__vs", vectorstore)


def _connections(vectorstore: Any) -> Connections:
    loop = getattr(getattr(vectorstore, "_engine", None), "_loop", None)
    return connections_of(_inner(vectorstore).engine, loop)


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    """The adapter of its table, on the connections of the application's own engine."""
    inner = _inner(vectorstore)
    return PgVectorStore(
        _connections(vectorstore),
        inner.table_name,
        schema=inner.schema_name,
        id_column=inner.id_column,
        vector_column=inner.embedding_column,
        similarity=OPERATORS[inner.distance_strategy.operator],
    )


def make_filter(vectorstore: Any, given: Any) -> str | None:
    """The integration's own condition, as SQL."""
    from sqlalchemy import text

    if not given:
        return None
    clause, values = _inner(vectorstore)._create_filter_clause(given)
    return written_out(text(clause).bindparams(**values))


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    """Documents by id; the integration's own call needs an engine with a loop in the background."""
    from psycopg import sql

    inner = _inner(vectorstore)
    columns = [sql.Identifier(name) for name in (inner.id_column, inner.content_column, *inner.metadata_columns)]
    of_json = sql.Identifier(inner.metadata_json_column) if inner.metadata_json_column else sql.SQL("NULL")
    query = sql.SQL("SELECT {json}::text, {columns} FROM {table} WHERE {id}::text = ANY(%s)").format(
        json=of_json,
        columns=sql.SQL(", ").join(columns),
        table=sql.Identifier(inner.schema_name, inner.table_name),
        id=columns[0],
    )
    with _connections(vectorstore).cursor() as cursor:
        rows = cursor.execute(query, [ids]).fetchall()
    return [
        Document(
            id=str(row[1]),
            page_content=row[2],
            metadata=json.loads(row[0] or "{}") | dict(zip(inner.metadata_columns, row[3:], strict=True)),
        )
        for row in rows
    ]


DATABASE = Database(make_adapter, make_filter, get_documents)
