"""DuckDB in a file and in memory, through both frameworks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_fts
import duckdb_extension_json
import pandas
import pytest
from langchain_community.vectorstores import DuckDB
from llama_index.vector_stores.duckdb import DuckDBVectorStore

from nudge_rag.stores import DuckDBStore
from tests.support.builders.common import (
    DIMENSION,
    Built,
    LangChainEmbeddings,
    documents,
    expected_vectors,
    llama_index,
)


def llama_index_store(folder: Path, **options: Any) -> DuckDBVectorStore:
    """A store whose constructor finds the extensions at home that it would download otherwise."""
    extensions = folder / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / platform()
    extensions.mkdir(parents=True, exist_ok=True)
    for package in (duckdb_extension_json, duckdb_extension_fts):
        (file,) = Path(package.__path__[0]).rglob("*.duckdb_extension")
        if not (extensions / file.name).exists():
            (extensions / file.name).symlink_to(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        return DuckDBVectorStore(**options)


def platform() -> str:
    return str(duckdb.execute("PRAGMA platform").fetchall()[0][0])


def add_documents(vectorstore: DuckDB, rows: Any) -> None:
    # Its add_documents passes no ids on (langchain-community 0.4), and DuckDB 1.3 does not know pandas' strings.
    texts, metadatas, ids = zip(*((row.page_content, row.metadata, row.id) for row in rows), strict=True)
    with pandas.option_context("future.infer_string", False):
        vectorstore.add_texts(list(texts), list(metadatas), ids=list(ids))


def built(folder: Path, n: int, servers: Any, *, by: str, on_disk: bool = True, fixed: bool = True) -> Built:
    path = folder / "nodes.duckdb"
    options = {"id_column": "node_id"} if by == "llama-index" else {}
    if by == "llama-index":
        place = {"database_name": path.name, "persist_dir": str(folder)} if on_disk else {}
        vector_store = llama_index_store(folder, table_name="nodes", embed_dim=DIMENSION if fixed else None, **place)
        llama_index(vector_store, n)
        connection = vector_store.client
    else:
        connection = duckdb.connect(str(path))
        add_documents(DuckDB(connection=connection, embedding=LangChainEmbeddings(), table_name="nodes"), documents(n))

    def delete_rows(ids: list[str]) -> None:
        # LangChain's DuckDB has no way of its own.
        connection.cursor().execute("DELETE FROM nodes WHERE list_contains(?, id)", [ids])

    def contents() -> Any:
        return sorted(connection.cursor().execute("SELECT * EXCLUDE embedding FROM nodes").fetchall())

    return Built(
        DuckDBStore(connection, "nodes", **options),
        expected_vectors(n),
        contents,
        (lambda: DuckDBStore.open(path, "nodes", **options)) if on_disk else None,
        f"({'metadata_' if by == 'llama-index' else 'metadata'}::JSON->>'$.even')::BOOLEAN",
        vector_store.delete_nodes if by == "llama-index" else delete_rows,
    )


BUILDERS = {
    "duckdb-llama-index": (built, {"by": "llama-index"}),
    "duckdb-llama-index-any-length": (built, {"by": "llama-index", "on_disk": False, "fixed": False}),
    "duckdb-langchain": (built, {"by": "langchain"}),
}
