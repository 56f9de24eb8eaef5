"""LanceDB tables on disk, without and with an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
from lancedb.index import IvfFlat
from langchain_community.vectorstores import LanceDB
from llama_index.vector_stores.lancedb import LanceDBVectorStore

from nudge_rag.stores import LanceStore
from tests.support.builders.common import Built, LangChainEmbeddings, documents, expected_vectors, llama_index


def lance(folder: Path, n: int, servers: Any, *, by: str, metric: Any) -> Built:
    connection = lancedb.connect(str(folder / "lance"))
    if by == "llama-index":
        vector_store = LanceDBVectorStore(connection=connection, table_name="nodes")
        llama_index(vector_store, n)
        table = vector_store.table

        def delete(ids: list[str]) -> None:
            # Its own delete_nodes puts the ids in double quotes, which LanceDB takes for names of columns.
            table.delete(f"id IN ({', '.join(map(repr, ids))})")
    else:
        vectorstore = LanceDB(connection, LangChainEmbeddings(), table_name="nodes", mode="append")
        rows = documents(n)
        vectorstore.add_texts(
            [row.page_content for row in rows], [row.metadata for row in rows], [str(row.id) for row in rows]
        )
        table, delete = vectorstore.get_table(), vectorstore.delete
    options: dict[str, Any] = {}
    if metric:
        table.create_index("vector", config=IvfFlat(distance_type=metric, num_partitions=2))
        options = {"nprobes": 2}

    def contents() -> Any:
        table.checkout_latest()
        rows = [
            {name: row[name] for name in sorted(row) if not name.startswith("vector")}
            for row in table.to_arrow().to_pylist()
        ]
        return sorted(rows, key=lambda row: row["id"])

    return Built(
        LanceStore(table, **options),
        expected_vectors(n),
        contents,
        lambda: LanceStore.open(folder / "lance", "nodes", **options),
        "metadata.even = true",
        delete,
    )


BUILDERS = {
    "lancedb-llama-index": (lance, {"by": "llama-index", "metric": None}),
    "lancedb-langchain": (lance, {"by": "langchain", "metric": None}),
    "lancedb-llama-index-cosine": (lance, {"by": "llama-index", "metric": "cosine"}),
    "lancedb-langchain-dot": (lance, {"by": "langchain", "metric": "dot"}),
}
