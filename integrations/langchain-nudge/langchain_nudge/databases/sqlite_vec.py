"""LangChain's SQLiteVec vector store: its adapter, filters on its JSON metadata, and its documents by id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, SQLiteVecStore
from nudge_rag.stores.sql import sql_name, sql_text
from nudge_rag.stores.sqlite_vec import rowids

__all__ = ["DATABASE"]


def _equal(key: Any, value: Any) -> str:
    if isinstance(value, bool):
        return f"type = '{'true' if value else 'false'}'"
    if isinstance(value, int | float):
        return f"type IN ('integer', 'real') AND atom = {value!r}"
    if isinstance(value, str):
        return f"type = 'text' AND atom = {sql_text(value)}"
    raise TypeError(f"filter values for SQLiteVec are strings, numbers or booleans, got {value!r} for {key!r}")


class SQLiteVecDatabase(Database):
    """SQLite with sqlite-vec, by langchain-community."""

    own_options = frozenset()
    embeddings = "_embedding"

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of its two tables; the integration keeps no ids but the rows' numbers."""
        return SQLiteVecStore(vectorstore._connection, vectorstore._table)

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """An SQL condition as it is, or a dictionary of metadata keys and their values as one.

        Example:
            >>> DATABASE.make_filter(None, {"who": "O'Neil"})
            "EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = 'who' AND type = 'text' AND atom = 'O''Neil')"
        """
        if given is None or isinstance(given, str):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"filter for SQLiteVec is an SQL condition or a dictionary, got {type(given).__name__}")
        parts = [
            f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = {sql_text(str(key))} AND {_equal(key, value)})"
            for key, value in given.items()
        ]
        return " AND ".join(parts) or None

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Its documents, with their ids: the integration has no get_by_ids."""
        table = sql_name(vectorstore._table)
        query = f"SELECT rowid, text, metadata FROM {table} WHERE rowid IN (SELECT value FROM json_each(?))"
        rows = vectorstore._connection.execute(query, [rowids(ids)]).fetchall()
        return [
            Document(id=str(rowid), page_content=text, metadata=json.loads(metadata or "{}"))
            for rowid, text, metadata in rows
        ]

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """It ignores filters, and gives documents without ids."""
        return False


DATABASE = SQLiteVecDatabase()
