"""PGVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database, get_nodes
from llama_index.retrievers.nudge.filters.sql import postgres_field, sql_filter

from nudge_rag.stores import EmbeddingStore, PgVectorStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    scheme, _, rest = vector_store.connection_string.partition("://")
    table = vector_store._table_class.__tablename__
    vector_store._initialize()  # makes the table where it is not there yet
    return PgVectorStore(
        f"{scheme.partition('+')[0]}://{rest}", table, schema=vector_store.schema_name, id_column="node_id"
    )


def make_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return sql_filter(query, where, postgres_field, "node_id", "metadata_->>'ref_doc_id'")


DATABASE = Database(make_adapter, make_filter, get_nodes)
