"""PGVectorStore, langchain-postgres' second: its adapter, its filters, and its documents by id."""

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

OPERATORS: dict[str, Similarity] = {"<=>": "cosine", "<#>": "dot", "<->": "l2"}


def _inner(vectorstore: Any) -> Any:
    """The asynchronous store inside, whose name is private to the class; an AsyncPGVectorStore is one itself."""
    return getattr(vectorstore, "_PGVectorStore__vs", vectorstore)


def _loop(vectorstore: Any) -> Any:
    """The event loop in another thread that its engine belongs to, if there is one."""
    return getattr(getattr(vectorstore, "_engine", None), "_loop", None)


def _connections(vectorstore: Any) -> Connections:
    return connections_of(_inner(vectorstore).engine, _loop(vectorstore))


class PgVectorStoreDatabase(Database):
    """PGVectorStore and AsyncPGVectorStore, the second of langchain-postgres."""

    sorts_diverse = True
    lists_vectors = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its table, on the connections of the application's own engine."""
        inner = _inner(vectorstore)
        return PgVectorStore(
            _connections(vectorstore),
            inner.table_name,
            schema=inner.schema_name,
            id_column=inner.id_column,
            vector_column=inner.embedding_column,
            similarity=OPERATORS[inner.distance_strategy.operator],
        )

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """Write the integration's own condition as SQL."""
        from sqlalchemy import text

        if not given:
            return None
        clause, values = _inner(vectorstore)._create_filter_clause(given)
        return written_out(text(clause), values)

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Its synchronous calls need an engine with a loop in the background."""
        return is_async or _loop(vectorstore) is not None

    def ranks_otherwise(self, vectorstore: Any, options: Mapping[str, Any]) -> str | None:
        """A hybrid search ranks by words, too."""
        config = options.get("hybrid_search_config", _inner(vectorstore).hybrid_search_config)
        return "hybrid_search_config" if config else None

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; the integration's own call needs an engine with a loop in the background."""
        from psycopg import sql

        inner = _inner(vectorstore)
        names = (inner.id_column, inner.content_column, *inner.metadata_columns)
        columns = [sql.Identifier(name) for name in names]
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

    def default_k(self, vectorstore: Any) -> int:
        """The number that it was made with."""
        return int(_inner(vectorstore).k)

    def mmr_options(self, vectorstore: Any, options: Mapping[str, Any]) -> tuple[int, float]:
        """As the integration does: without fetch_k among its own number of documents, and 0 is its own lambda."""
        inner = _inner(vectorstore)
        return options.get("fetch_k") or inner.k, options.get("lambda_mult") or inner.lambda_mult

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """The integration's distance, which for the inner product is the inner product itself."""
        return score if similarity == "dot" else super().framework_score(score, similarity)


DATABASE = PgVectorStoreDatabase()
