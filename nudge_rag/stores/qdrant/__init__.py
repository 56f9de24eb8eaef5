"""Qdrant."""

from nudge_rag.stores.qdrant.store import QdrantStore

__all__ = ["QdrantStore"]
