"""Redis."""

from nudge_rag.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
