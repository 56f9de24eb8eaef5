"""LanceDB: its adapter, its filters, and its documents by id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, LanceStore
from nudge_rag.stores.sql import sql_text

__all__ = ["DATABASE"]


# With one of these, the question is another than for the nearest vectors that pass a filter.
OWN_OPTIONS = frozenset({"name", "query_type", "metrics", "fts"})


class LanceDatabase(Database):
    """LanceDB, by langchain-community."""

    carried_options = frozenset({"prefilter"})
    own_options = OWN_OPTIONS
    sorts_diverse = True
    lists_vectors = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its table."""
        columns = {"vector_column": vectorstore._vector_key, "id_column": vectorstore._id_key}
        return LanceStore(vectorstore.get_table(), **columns)

    def is_made(self, vectorstore: Any) -> bool:
        """Tell whether documents were added."""
        return vectorstore.get_table() is not None

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """Write a dictionary of columns and their values as an SQL condition."""
        if given is None or isinstance(given, str):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"filter for LanceDB is an SQL condition or a dictionary, got {type(given).__name__}")
        for column in given:
            if not re.fullmatch(r"\w+(\.\w+)*", column):
                raise ValueError(f"{column!r} is not the name of a column, such as 'metadata.year'")
        return " AND ".join(f"{column} = {sql_text(str(value))}" for column, value in given.items()) or None

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Only for questions of its own: it gives no ids, and filters after it searched unless told otherwise."""
        return bool(OWN_OPTIONS & set(options)) or options.get("prefilter") is False

    def find_documents(
        self, vectorstore: Any, vector: list[float], options: Mapping[str, Any]
    ) -> list[Document] | None:
        """The integration's own search with the ids that it leaves out."""
        if set(options) - {"k", "filter", "prefilter"}:
            return None
        search = vectorstore.get_table().search(vector, vector_column_name=vectorstore._vector_key)
        condition = self.make_filter(vectorstore, options.get("filter"))
        if condition is not None:
            search = search.where(condition, prefilter=True)
        rows = search.limit(options.get("k", self.default_k(vectorstore))).to_arrow()
        parts = [rows[vectorstore._id_key], rows[vectorstore._text_key]]
        parts.append(rows["metadata"] if "metadata" in rows.column_names else [None] * len(rows))
        return [
            Document(id=node, page_content=text, metadata=metadata or {})
            for node, text, metadata in zip(*(_values(part) for part in parts), strict=True)
        ]

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id."""
        among = ", ".join(map(sql_text, ids))
        rows = vectorstore.get_table().search().where(f"`{vectorstore._id_key}` IN ({among})").limit(None).to_list()
        key, text = vectorstore._id_key, vectorstore._text_key
        return [Document(id=row[key], page_content=row[text], metadata=row.get("metadata") or {}) for row in rows]

    def default_k(self, vectorstore: Any) -> int:
        """The limit that it was made with."""
        return int(vectorstore.limit)

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """LanceDB's distance: squared for l2."""
        return -score if similarity == "l2" else 1 - score


def _values(column: Any) -> list[Any]:
    return column if isinstance(column, list) else list(column.to_pylist())


DATABASE = LanceDatabase()
