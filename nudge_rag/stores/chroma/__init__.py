"""Chroma."""

from nudge_rag.stores.chroma.store import ChromaFilter, ChromaStore

__all__ = ["ChromaFilter", "ChromaStore"]
