"""LangChain's DuckDB vector store: its adapter, filters on its JSON metadata, and its documents by id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import DuckDBStore, EmbeddingStore
from nudge_rag.stores.sql import sql_name, sql_text

__all__ = ["DATABASE"]


def _equal(key: str, value: Any) -> str:
    place = sql_text("/" + str(key).replace("~", "~0").replace("/", "~1"))
    # Without the brackets, DuckDB would compare before it takes the key out of the JSON.
    field, kind = f"((metadata::JSON)->>{place})", f"json_type(metadata::JSON, {place})"
    if isinstance(value, bool):
        return f"({kind} = 'BOOLEAN' AND {field} = {sql_text(json.dumps(value))})"
    if isinstance(value, int | float):
        number = f"TRY_CAST({field} AS DOUBLE) = {float(value)!r}::DOUBLE"
        return f"({kind} IN ('UBIGINT', 'BIGINT', 'DOUBLE') AND {number})"
    if isinstance(value, str):
        return f"({kind} = 'VARCHAR' AND {field} = {sql_text(value)})"
    raise TypeError(f"filter values for DuckDB are strings, numbers or booleans, got {value!r} for {key!r}")


class DuckDBDatabase(Database):
    """DuckDB, by langchain-community."""

    own_options = frozenset()

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of its table; the integration itself leaves names unquoted, so a dot in one is a schema's."""
        schema, _, table = vectorstore._table_name.rpartition(".")
        columns = {"id_column": vectorstore._id_key, "vector_column": vectorstore._vector_key}
        return DuckDBStore(vectorstore._connection, table, schema=schema or None, **columns)

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """An SQL condition as it is, or a dictionary of metadata keys and their values as one.

        Example:
            >>> DATABASE.make_filter(None, {"who": "O'Neil"})
            "(json_type(metadata::JSON, '/who') = 'VARCHAR' AND ((metadata::JSON)->>'/who') = 'O''Neil')"
        """
        if given is None or isinstance(given, str):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"filter for DuckDB is an SQL condition or a dictionary, got {type(given).__name__}")
        return " AND ".join(_equal(key, value) for key, value in given.items()) or None

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Its documents, with their ids: the integration has no get_by_ids."""
        key, text = sql_name(vectorstore._id_key), sql_name(vectorstore._text_key)
        columns, table = f"{key}, {text}, metadata", vectorstore._table_name
        query = f"SELECT {columns} FROM {table} WHERE {key} IN (SELECT unnest(?::VARCHAR[]))"
        rows = vectorstore._connection.cursor().execute(query, [ids]).fetchall()
        return [
            Document(id=node, page_content=text, metadata=json.loads(metadata or "{}")) for node, text, metadata in rows
        ]

    def add_score(self, document: Document, score: float) -> Document:
        """Under the key that the integration gives it."""
        return document.model_copy(update={"metadata": {**document.metadata, "_similarity_score": score}})

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """It ignores filters, and gives documents without ids."""
        return False


DATABASE = DuckDBDatabase()
