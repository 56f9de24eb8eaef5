"""Milvus: its adapter, its filters, and its documents by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document

from langchain_nudge.databases.base import Database
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, MilvusStore
from nudge_rag.stores.milvus.schema import among

__all__ = ["DATABASE"]


# Of the integration's default parameters for an HNSW index, which finds no more.
DEFAULT_EFFORT = 10


class MilvusDatabase(Database):
    """Milvus Lite, or a server."""

    filter_option = "expr"
    query_dtype = "float64"
    lists_vectors = True

    def make_adapter(self, vectorstore: Any, **options: Any) -> EmbeddingStore:
        """Make the adapter of its collection and vector field."""
        field = vectorstore._vector_field
        return MilvusStore(
            vectorstore.client,
            vectorstore.collection_name,
            vector_field=field if isinstance(field, str) else None,
            # Its own defaults find no more than 10 with HNSW: the server's fit k.
            search_params=None if _searches_by_default(vectorstore) else _search_params(vectorstore),
        )

    def is_made(self, vectorstore: Any) -> bool:
        """Tell whether documents were added."""
        return vectorstore.col is not None

    def make_filter(self, vectorstore: Any, given: Any, **options: Any) -> str | None:
        """Take an expression as it is."""
        self.check_filter(vectorstore, given)
        expression: str | None = given
        return expression

    def check_filter(self, vectorstore: Any, given: Any) -> None:
        """Refuse anything but an expression."""
        if given is not None and not isinstance(given, str):
            raise TypeError(f"filter for Milvus is an expression, such as 'year > 2020', got {type(given).__name__}")

    def ranks_otherwise(self, vectorstore: Any, options: Mapping[str, Any]) -> str | None:
        """Several vectors, or words, may rank together."""
        if vectorstore._is_multi_vector:
            return f"a search by {', '.join(map(repr, vectorstore.vector_fields))} together"
        return "a search by words alone" if vectorstore._is_sparse else None

    def honours(self, vectorstore: Any, options: Mapping[str, Any], is_async: bool) -> bool:
        """Not if it leaves the id out, or searches less far than it is asked to; nor by its asynchronous client."""
        if self.ranks_otherwise(vectorstore, options) is not None:
            return not is_async
        too_far = options.get("k", 4) > DEFAULT_EFFORT and _searches_by_default(vectorstore) and "param" not in options
        return not (is_async or vectorstore._metadata_field or (too_far and self.is_made(vectorstore)))

    def fetch_documents(self, vectorstore: Any, ids: list[str]) -> list[Document]:
        """Fetch documents by id; a collection with ``auto_id`` has integers."""
        key = vectorstore._primary_field
        keys: list[Any] = [int(node_id) for node_id in ids] if _has_integers(vectorstore) else ids
        fields = vectorstore._remove_forbidden_fields(vectorstore.fields[:])
        rows = vectorstore.client.query(
            vectorstore.collection_name,
            filter=among(key, keys),
            output_fields=["*"] if vectorstore.enable_dynamic_field else fields,
            consistency_level="Strong",
        )
        return [vectorstore._parse_document(dict(row)).model_copy(update={"id": str(row[key])}) for row in rows]

    def complete(self, vectorstore: Any, documents: list[Document]) -> list[Document]:
        """Take ids from the metadata, because the integration leaves them there."""
        key = vectorstore._primary_field
        return [document.model_copy(update={"id": str(document.metadata[key])}) for document in documents]

    def framework_score(self, score: float, similarity: Similarity) -> float:
        """Milvus' own: the cosine, the inner product, or the squared distance."""
        return -score if similarity == "l2" else score


def _searches_by_default(vectorstore: Any) -> bool:
    given = _search_params(vectorstore)
    return given in (None, *(entry["params"] for entry in vectorstore.default_search_params.values()))


def _search_params(vectorstore: Any) -> Any:
    """Those of the vector that nudges move; of several vectors, each has its own."""
    given = vectorstore.search_params or {}
    if isinstance(given, list):
        dense = [one for one in given if one.get("metric_type") in ("COSINE", "IP", "L2")]
        given = dense[0] if len(dense) == 1 else {}
    return given.get("params")


def _has_integers(vectorstore: Any) -> bool:
    from pymilvus import DataType

    fields = vectorstore.client.describe_collection(vectorstore.collection_name)["fields"]
    return any(field["name"] == vectorstore._primary_field and field["type"] == DataType.INT64 for field in fields)


DATABASE = MilvusDatabase()
