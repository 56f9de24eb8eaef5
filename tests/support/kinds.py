"""The kinds of store that are tested by their address alone, as far as their packages are here."""

from __future__ import annotations

from tests.support.builders.registry import MISSING

__all__ = ["COPIES", "KINDS"]

# With the file of builders that shares their packages.
PACKAGES = {
    "chroma": "chroma",
    "chroma-server": "chroma",
    "duckdb": "duckdb",
    "faiss": "faiss",
    "in-memory": "in-memory",
    "lancedb": "lance",
    "milvus": "milvus",
    "milvus-server": "milvus",
    "parquet": "parquet",
    "postgres": "postgres",
    "qdrant": "qdrant",
    "redis": "redis-langchain",
    "simple": "simple",
    "sqlite-vec": "sqlite-vec",
}
KINDS = [kind for kind, builder in PACKAGES.items() if builder not in MISSING]
# Those that hold a copy beside the live version.
COPIES = [kind for kind in KINDS if kind not in ("duckdb", "sqlite-vec", "redis")]
