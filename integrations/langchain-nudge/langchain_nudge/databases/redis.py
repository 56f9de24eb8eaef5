"""LangChain's Redis vector store: its adapter and its filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_nudge.databases.base import SEARCH_OPTIONS, Database
from nudge_rag.stores import EmbeddingStore, RedisStore

__all__ = ["DATABASE"]


class RedisDatabase(Database):
    """Redis, by langchain-redis."""

    query_dtype = "float64"
    lists_vectors = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """The adapter of its index; as the integration itself, it looks at nodes that name this index only."""
        from redisvl.query.filter import Text

        config, index = vectorstore.config, vectorstore.index
        named = any(field.name == "_index_name" for field in index.schema.fields.values())
        return RedisStore(
            index.client,
            index.name,
            vector_field=config.embedding_field,
            prefix=f"{config.key_prefix}:" if config.key_prefix else "",
            only=str(Text("_index_name") == config.index_name) if named else None,
        )

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """A query of Redis' as it is, or a filter of redisvl as one."""
        from redisvl.query.filter import FilterExpression

        if given is None or isinstance(given, str):
            return given
        if not isinstance(given, FilterExpression):
            raise TypeError(f"filter for Redis is a query or a redisvl filter, got {type(given).__name__}")
        return None if str(given) == "*" else str(given)

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """For questions with options of its own alone: it leaves the ids out."""
        return bool(set(options) - SEARCH_OPTIONS - {self.filter_option})


DATABASE = RedisDatabase()
