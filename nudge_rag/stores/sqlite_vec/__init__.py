"""SQLite with sqlite-vec."""

from nudge_rag.stores.sqlite_vec.store import SQLiteVecStore, rowids

__all__ = ["SQLiteVecStore", "rowids"]
