"""FAISS."""

from nudge_rag.stores.faiss.store import FaissStore

__all__ = ["FaissStore"]
