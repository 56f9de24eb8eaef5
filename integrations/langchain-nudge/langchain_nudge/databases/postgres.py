"""PGVector: its adapter and its filters."""

from __future__ import annotations

from typing import Any

from langchain_nudge.databases.base import Database, get_documents
from langchain_nudge.databases.sqlalchemy import conninfo, written_out
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, PgVectorStore

__all__ = ["DATABASE"]

DISTANCES: dict[str, Similarity] = {"cosine": "cosine", "inner": "dot", "l2": "l2"}


def make_adapter(vectorstore: Any) -> EmbeddingStore:
    engine = vectorstore._engine or getattr(vectorstore, "_async_engine", None)
    with vectorstore.session_maker() as session:
        collection = vectorstore.get_collection(session)
        if collection is None:
            raise ValueError(f"there is no collection {vectorstore.collection_name!r}")
        only = f"collection_id = '{collection.uuid}'"
    distance = vectorstore._distance_strategy
    similarity = DISTANCES[str(getattr(distance, "value", distance))]
    return PgVectorStore(conninfo(engine), vectorstore.EmbeddingStore.__tablename__, similarity=similarity, only=only)


def make_filter(vectorstore: Any, given: Any) -> str | None:
    return written_out(vectorstore._create_filter_clause(given)) if given else None


DATABASE = Database(make_adapter, make_filter, get_documents)
