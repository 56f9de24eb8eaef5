"""LanceDB."""

from nudge_rag.stores.lance.store import LanceStore

__all__ = ["LanceStore"]
