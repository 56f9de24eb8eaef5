"""DuckDB."""

from nudge_rag.stores.duckdb.store import DuckDBStore

__all__ = ["DuckDBStore"]
