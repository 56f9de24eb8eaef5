"""PGVector: its adapter, its filters, and its documents by id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from langchain_nudge.databases.sqlalchemy import written_out
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, PgVectorStore
from nudge_rag.stores.postgres.connection import Connections, connections_of

__all__ = ["DATABASE"]

DISTANCES: dict[str, Similarity] = {"cosine": "cosine", "inner": "dot", "l2": "l2"}


def _connections(vectorstore: Any) -> Connections:
    return connections_of(vectorstore._engine or vectorstore._async_engine)


def _collection(vectorstore: Any) -> str:
    """The id of its collection, by the same connections: the integration has no call for both kinds of engines."""
    query = f"SELECT uuid::text FROM {_name(vectorstore.CollectionStore)} WHERE name = %s LIMIT 1"
    with _connections(vectorstore).cursor() as cursor:
        found = cursor.execute(query, [vectorstore.collection_name]).fetchone()
    if found is None:
        raise ValueError(f"there is no collection {vectorstore.collection_name!r}")
    return str(found[0])


def _name(model: Any) -> str:
    """A table's quoted name, with its schema if it was given one."""
    from psycopg import sql

    table = model.__table__
    return sql.Identifier(*[name for name in (table.schema, table.name) if name]).as_string()


class PgVectorDatabase(Database):
    """PGVector, the first of langchain-postgres."""

    sorts_diverse = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of the collection's rows, on the connections of the application's own engine."""
        distance = vectorstore._distance_strategy
        table = vectorstore.EmbeddingStore.__table__
        return PgVectorStore(
            _connections(vectorstore),
            table.name,
            schema=table.schema,  # None: as for the integration itself, the search path tells
            similarity=DISTANCES[str(getattr(distance, "value", distance))],
            only=f"collection_id = '{_collection(vectorstore)}'",
        )

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """Write the integration's own condition as SQL."""
        if not given:
            return None
        if vectorstore.use_jsonb:
            return written_out(vectorstore._create_filter_clause(given))
        clauses = vectorstore._create_filter_clause_json_deprecated(given)
        return " AND ".join(f"({written_out(clause)})" for clause in clauses)

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """As its engine is: synchronous calls fail on an asynchronous one, and the other way around."""
        return bool(vectorstore.async_mode) == is_async

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; the integration's own call needs a synchronous engine."""
        query = (
            f"SELECT id::text, document, cmetadata::text FROM {_name(vectorstore.EmbeddingStore)}"
            " WHERE collection_id::text = %s AND id::text = ANY(%s)"
        )
        with _connections(vectorstore).cursor() as cursor:
            rows = cursor.execute(query, [_collection(vectorstore), ids]).fetchall()
        return [
            Document(id=node, page_content=text, metadata=json.loads(metadata or "{}")) for node, text, metadata in rows
        ]


DATABASE = PgVectorDatabase()
