"""LlamaIndex' Redis vector store: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition
from llama_index.retrievers.nudge.databases.base import Database, Options, Request

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, RedisStore

__all__ = ["DATABASE"]


# Synchronous clients that were made for asynchronous ones.
_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
EVERYTHING, NOTHING = "*", "@id:{nothing} -@id:{nothing}"


def _prefix(vector_store: Any) -> str:
    return f"{vector_store._index.prefix}{vector_store._index.key_separator}"


def _keys(filters: MetadataFilters) -> set[str]:
    parts = filters.filters
    return {key for part in parts for key in (_keys(part) if isinstance(part, MetadataFilters) else {part.key})}


def _negates(filters: MetadataFilters) -> bool:
    return filters.condition == FilterCondition.NOT or any(
        isinstance(part, MetadataFilters) and _negates(part) for part in filters.filters
    )


def _query_of(vector_store: Any, filters: MetadataFilters) -> str:
    """Each filter by the integration's own translation; it takes NOT, which is none of several, for OR."""
    fields = vector_store._index.schema.fields
    parts = [
        _query_of(vector_store, part)
        if isinstance(part, MetadataFilters)
        else str(vector_store._to_redis_filter(fields[part.key], part))
        for part in filters.filters
    ]
    if not parts:
        return EVERYTHING
    if filters.condition == FilterCondition.AND:
        return _all_of(parts)
    either = EVERYTHING if EVERYTHING in parts else " | ".join(f"({part})" for part in parts)
    return f"-({either})" if filters.condition == FilterCondition.NOT else f"({either})"


def _all_of(parts: list[str]) -> str:
    return " ".join(f"({part})" for part in parts if part != EVERYTHING) or EVERYTHING


def _client(vector_store: Any) -> Any:
    """Its synchronous client; a store with an asynchronous client alone gets one for it."""
    if vector_store._index.client is not None:
        return vector_store._index.client
    asynchronous = vector_store._redis_client_async
    if asynchronous not in _clients:
        _clients[asynchronous] = _blocking_client(asynchronous)
    return _clients[asynchronous]


def _blocking_client(client: Any) -> Any:
    """A synchronous client with the settings of an asynchronous one, as the integration makes the opposite."""
    import redis
    import redis.asyncio as asynchronous

    pool = client.connection_pool
    kind: type[redis.Connection | redis.UnixDomainSocketConnection] = redis.Connection
    if issubclass(pool.connection_class, asynchronous.SSLConnection):
        kind = redis.SSLConnection
    elif issubclass(pool.connection_class, asynchronous.UnixDomainSocketConnection):
        kind = redis.UnixDomainSocketConnection
    known = {name for base in kind.__mro__[:-1] for name in inspect.signature(base).parameters}
    # A retry policy of the asynchronous client cannot be waited for.
    settings = {name: value for name, value in pool.connection_kwargs.items() if name in known - {"retry"}}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=kind, **settings))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Redis(Database):
    """An index over hashes, with texts and the metadata fields of its schema."""

    options = carried_options = frozenset({"where"})

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Return the adapter of its index."""
        prefix = _prefix(vector_store)
        return RedisStore(_client(vector_store), vector_store.index_name, vector_field="vector", prefix=prefix)

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Not ``where``, nor NOT, which it takes for OR."""
        negated = query.filters is not None and _negates(query.filters)
        return super().honours(vector_store, query, options) and not options.get("where") and not negated

    def make_filter(self, request: Request) -> str | None:
        """Filters as a query of Redis', by the integration's own translation; ``where`` is one already.

        No node passes a filter by a key that is no field of the index: the integration's own search says so, too.

        Raises:
            ValueError: an operator that the key's type has not.
        """
        from redisvl.query.filter import Tag

        query, where, store = request.query, request.options.get("where"), request.vector_store
        parts = [where] if where else []
        if query.filters is not None and not _keys(query.filters) <= set(store._index.schema.fields):
            return NOTHING
        if query.filters is not None:
            parts.append(_query_of(store, query.filters))
        for field, values in (("id", query.node_ids), ("doc_id", query.doc_ids)):
            if values:
                parts.append(str(Tag(field) == list(values)))
        found = _all_of(parts)
        return None if found == EVERYTHING else found

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """By their keys: the integration's own get_nodes loses ids with a comma in them."""
        names = ("id", "doc_id", "text", "_node_content")
        with _client(vector_store).pipeline(transaction=False) as pipe:
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
