"""LlamaIndex' Redis vector store: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import MetadataFilters
from llama_index.core.vector_stores.types import FilterCondition
from llama_index.retrievers.nudge.databases.base import Database, Request

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, RedisStore

__all__ = ["DATABASE"]


def _prefix(vector_store: Any) -> str:
    return f"{vector_store._index.prefix}{vector_store._index.key_separator}"


def _check(vector_store: Any, filters: MetadataFilters) -> None:
    if filters.condition == FilterCondition.NOT:
        raise ValueError("filters of Redis cannot be negated with NOT: use the operators != and nin")
    fields = vector_store._index.schema.fields
    for part in filters.filters:
        if isinstance(part, MetadataFilters):
            _check(vector_store, part)
        elif part.key not in fields:
            raise ValueError(f"{part.key!r} is no field of the Redis index, which has {', '.join(fields)}")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Redis(Database):
    """An index over hashes, with texts and the metadata fields of its schema."""

    searches_itself = False
    options = carried_options = frozenset({"where"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Return the adapter of its index.

        Raises:
            ValueError: a store with an asynchronous client alone.
        """
        if vector_store._index.client is None:
            raise ValueError(
                "this RedisVectorStore has an asynchronous client alone: give it redis_client= or redis_url="
            )
        return RedisStore(
            vector_store._index.client, vector_store.index_name, vector_field="vector", prefix=_prefix(vector_store)
        )

    def make_filter(self, request: Request) -> str | None:
        """Filters as a query of Redis', by the integration's own translation; ``where`` is one already.

        Raises:
            ValueError: a metadata key that the index does not have, NOT (which the integration takes for OR), an
                operator that the key's type has not.
        """
        from redisvl.query.filter import Tag

        query, where = request.query, request.options.get("where")
        parts = [where] if where else []
        if query.filters is not None:
            _check(request.vector_store, query.filters)
            parts.append(str(request.vector_store._build_filter_expression(query.filters)))
        for field, values in (("id", query.node_ids), ("doc_id", query.doc_ids)):
            if values:
                parts.append(str(Tag(field) == list(values)))
        return " ".join(f"({part})" for part in parts if part != "*") or None

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """By their keys: the integration's own get_nodes loses ids with a comma in them."""
        names = ("id", "doc_id", "text", "_node_content")
        with vector_store._index.client.pipeline(transaction=False) as pipe:
            for node_id in ids:
                pipe.hmget(_prefix(vector_store) + node_id, names)
            rows = pipe.execute()
        found = [
            {name: _text(value) for name, value in zip(names, row, strict=True) if value is not None} for row in rows
        ]
        return [vector_store._extract_node_and_score(row, None)[0] for row in found if row]

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """The integration gives 1 - distance, and Redis' Euclidean distance is squared."""
        return 1 + scores if similarity == "l2" else scores


DATABASE = Redis()
