"""sqlite-vec in a file and in memory, through LangChain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlite_vec
from langchain_community.vectorstores import SQLiteVec
from pysqlite3 import dbapi2 as sqlite3

from nudge_rag.stores import SQLiteVecStore
from tests.support.builders.common import Built, LangChainEmbeddings, documents, expected_vectors


def connect(path: str | Path = ":memory:") -> Any:
    """As SQLiteVec.create_connection does, which needs a sqlite3 that was built with extensions."""
    connection = sqlite3.connect(str(path), check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.enable_load_extension(False)
    return connection


def built(folder: Path, n: int, servers: Any, *, on_disk: bool = True) -> Built:
    path = folder / "nodes.db"
    connection = connect(path if on_disk else ":memory:")
    vectorstore = SQLiteVec("nodes", connection, LangChainEmbeddings())
    # It numbers its rows and ignores the ids that it is given.
    added = vectorstore.add_documents(documents(n, str))
    numbers = {document.id: str(rowid) for document, rowid in zip(documents(n, str), added, strict=True)}

    def contents() -> Any:
        return [tuple(row) for row in connection.execute("SELECT rowid, text, metadata FROM nodes ORDER BY rowid")]

    def delete(ids: list[str]) -> None:
        # SQLiteVec has no way of its own. Its trigger takes new rows to the vectors, and none takes old ones.
        with connection:
            for table in ("nodes", "nodes_vec"):
                connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(int(rowid),) for rowid in ids])

    def naming(number: int) -> str:
        return numbers[str(number)]

    return Built(
        SQLiteVecStore(connection, "nodes"),
        expected_vectors(n, naming),
        contents,
        (lambda: SQLiteVecStore.open(path, "nodes")) if on_disk else None,
        "json_extract(metadata, '$.even')",
        delete,
        naming,
    )


BUILDERS = {
    "sqlite-vec-langchain": (built, {}),
    "sqlite-vec-langchain-in-memory": (built, {"on_disk": False}),
}
