"""Pinecone."""

from nudge_rag.stores.pinecone.store import PineconeStore

__all__ = ["PineconeStore"]
