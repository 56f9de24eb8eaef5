"""LanceDB: its adapter, its filters, and its documents by id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.stores import EmbeddingStore, LanceStore
from nudge_rag.stores.checks import sql_text

__all__ = ["DATABASE"]


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    columns = {"vector_column": vectorstore._vector_key, "id_column": vectorstore._id_key}
    return LanceStore(vectorstore.get_table(), **columns)


def make_filter(vectorstore: Any, given: Any) -> str | None:
    """A dictionary of columns and their values, or an SQL condition."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"filter for LanceDB is an SQL condition or a dictionary, got {type(given).__name__}")
    for column in given:
        if not re.fullmatch(r"\w+(\.\w+)*", column):
            raise ValueError(f"{column!r} is not the name of a column, such as 'metadata.year'")
    return " AND ".join(f"{column} = {sql_text(str(value))}" for column, value in given.items()) or None


def get_documents(vectorstore: Any, ids: list[str]) -> list[Document]:
    among = ", ".join(map(sql_text, ids))
    rows = vectorstore.get_table().search().where(f"`{vectorstore._id_key}` IN ({among})").limit(None).to_list()
    return [
        Document(
            id=row[vectorstore._id_key], page_content=row[vectorstore._text_key], metadata=row.get("metadata") or {}
        )
        for row in rows
    ]


DATABASE = Database(make_adapter, make_filter, get_documents)
