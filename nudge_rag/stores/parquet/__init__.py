"""Parquet files."""

from nudge_rag.stores.parquet.store import ParquetStore

__all__ = ["ParquetStore"]
