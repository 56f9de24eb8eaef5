"""PostgreSQL with pgvector."""

from nudge_rag.stores.postgres.store import PgVectorStore

__all__ = ["PgVectorStore"]
