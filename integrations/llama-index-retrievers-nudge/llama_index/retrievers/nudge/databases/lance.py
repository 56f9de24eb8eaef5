"""LanceDBVectorStore: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.types import FilterOperator, VectorStoreQueryMode
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import Database, Options, Request
from llama_index.retrievers.nudge.filters.safety import is_plain
from llama_index.retrievers.nudge.filters.sql import Columns, Dialect, among, lance_dialect, sql_filter

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import LanceStore

__all__ = ["DATABASE"]

# The integration writes != as NOT LIKE '%...%', which leaves out longer texts too.
ITS_OPERATORS = frozenset(
    {
        FilterOperator.EQ,
        FilterOperator.GT,
        FilterOperator.GTE,
        FilterOperator.LT,
        FilterOperator.LTE,
        FilterOperator.TEXT_MATCH,
        FilterOperator.IN,
    }
)


class Lance(Database):
    """A table, with texts, and metadata in a struct."""

    options = frozenset({"where", "query_type"})
    carried_options = frozenset({"where", "query_type"})

    def make_adapter(self, vector_store: Any) -> LanceStore:
        """Make the adapter of its table, which searches as widely as the integration does."""
        return LanceStore(
            vector_store.table,
            vector_column=vector_store.vector_column_name,
            nprobes=vector_store.nprobes,
            refine_factor=vector_store.refine_factor or 1,
        )

    def make_filter(self, request: Request) -> str | None:
        """Translate filters and ids to an SQL condition."""
        filters = request.query.filters
        own = None
        if filters is not None and request.trusting and is_plain(filters, ITS_OPERATORS, nested=False):
            from llama_index.vector_stores.lancedb.base import _to_lance_filter

            own = _to_lance_filter(filters, request.vector_store._metadata_keys)
        columns = Columns("id", f"`{request.vector_store.doc_id_key}`")
        return sql_filter(
            request.query,
            _dialect_of(request.vector_store),
            columns,
            where=request.options.get("where"),
            translated=own,
        )

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search ignores ids, quotes no value, knows no nested filters, and takes NOT for AND."""
        return super().honours(vector_store, query, options) and is_plain(query.filters, ITS_OPERATORS, nested=False)

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Fetch nodes by id: the integration compares ids with column names (version 0.6)."""
        rows = vector_store.table.search().where(among("id", ids)).limit(None).to_list()
        return [metadata_dict_to_node(row["metadata"], text=row[vector_store.text_key]) for row in rows]

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """The integration gives exp(-distance)."""
        return np.exp(scores) if similarity == "l2" else np.exp(scores - 1)

    def overlay_problem(self, vector_store: Any, mode: VectorStoreQueryMode, options: Options) -> str | None:
        """Full-text and hybrid searches rank by more than vectors."""
        kind = options.get("query_type", vector_store.query_type)
        if kind != "vector":
            return f"query_type {kind!r}"
        return super().overlay_problem(vector_store, mode, options)


def _dialect_of(vector_store: Any) -> Dialect:
    from pyarrow import types

    tests = {
        "integer": types.is_integer,
        "number": types.is_floating,
        "text": lambda kind: types.is_string(kind) or types.is_large_string(kind),
    }
    fields = vector_store.table.schema.field("metadata").type
    kinds = {}
    for position in range(fields.num_fields):
        kind = fields.field(position).type
        kinds[fields.field(position).name] = next((name for name, fits in tests.items() if fits(kind)), str(kind))
    return lance_dialect(kinds)


DATABASE = Lance()
