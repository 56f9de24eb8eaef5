"""DuckDBVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.retrievers.nudge.databases.base import Database, get_nodes
from llama_index.retrievers.nudge.filters.sql import duckdb_field, sql_filter

from nudge_rag.stores import DuckDBStore, EmbeddingStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> EmbeddingStore:
    # The integration itself leaves the name unquoted: a dot in it is a schema's.
    schema, _, table = vector_store.table_name.rpartition(".")
    return DuckDBStore(vector_store.client, table, schema=schema or None, id_column="node_id")


def make_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return sql_filter(query, where, duckdb_field, "node_id", "(metadata_->>'ref_doc_id')")


DATABASE = Database(make_adapter, make_filter, get_nodes)
