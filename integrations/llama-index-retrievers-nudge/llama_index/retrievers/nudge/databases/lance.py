"""LanceDBVectorStore: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import Database
from llama_index.retrievers.nudge.filters.sql import among, lance_field, sql_filter

from nudge_rag.stores import LanceStore

__all__ = ["DATABASE"]


def make_adapter(vector_store: Any) -> LanceStore:
    return LanceStore(vector_store.table, vector_column=vector_store.vector_column_name)


def make_filter(store: Any, query: VectorStoreQuery, where: str | None = None) -> str | None:
    return sql_filter(query, where, lance_field, "id", f"`{store.doc_id_key}`")


def fetch_nodes(vector_store: Any, ids: list[str]) -> list[BaseNode]:
    # The integration's own get_nodes compares ids with column names (llama-index-vector-stores-lancedb 0.6).
    rows = vector_store.table.search().where(among("id", ids)).limit(None).to_list()
    return [metadata_dict_to_node(row["metadata"], text=row[vector_store.text_key]) for row in rows]


DATABASE = Database(make_adapter, make_filter, fetch_nodes)
