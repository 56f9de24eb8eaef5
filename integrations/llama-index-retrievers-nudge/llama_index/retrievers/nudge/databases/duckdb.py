"""DuckDBVectorStore: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import FilterOperator
from llama_index.retrievers.nudge.databases.base import Database, Options, Request
from llama_index.retrievers.nudge.filters.safety import is_plain
from llama_index.retrievers.nudge.filters.sql import DUCKDB, Columns, sql_filter

from nudge_rag.stores import DuckDBStore, EmbeddingStore

__all__ = ["DATABASE"]

ITS_OPERATORS = frozenset(set(FilterOperator) - {FilterOperator.CONTAINS, FilterOperator.IS_EMPTY})


class DuckDB(Database):
    """A table, with texts, and metadata in a JSON column."""

    options = frozenset({"where"})
    carried_options = frozenset({"where"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the adapter of its table; the integration leaves names unquoted, so a dot in one is a schema's."""
        schema, _, table = vector_store.table_name.rpartition(".")
        return DuckDBStore(vector_store.client, table, schema=schema or None, id_column="node_id")

    def make_filter(self, request: Request) -> str | None:
        """Translate filters and ids to an SQL condition."""
        filters = request.query.filters
        own = None
        if filters is not None and request.trusting and is_plain(filters, ITS_OPERATORS, negated=True):
            own = str(request.vector_store._build_metadata_filter_expressions(filters))
        columns = Columns("node_id", "(metadata_->>'ref_doc_id')")
        return sql_filter(request.query, DUCKDB, columns, where=request.options.get("where"), translated=own)

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search ignores ids and takes keys for paths."""
        return (
            "where" not in options
            and super().honours(vector_store, query, options)
            and is_plain(query.filters, ITS_OPERATORS, negated=True)
        )


DATABASE = DuckDB()
