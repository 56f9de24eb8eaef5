"""Milvus."""

from nudge_rag.stores.milvus.store import MilvusStore

__all__ = ["MilvusStore"]
