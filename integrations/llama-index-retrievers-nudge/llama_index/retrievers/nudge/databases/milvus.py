"""MilvusVectorStore: its adapter, its filters, and its nodes by id."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, TextNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import FilterOperator
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.retrievers.nudge.databases.base import MMR_OPTIONS, Database, Options, Request
from llama_index.retrievers.nudge.filters.milvus import milvus_among, milvus_expression
from llama_index.retrievers.nudge.filters.safety import is_plain

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.stores import EmbeddingStore, MilvusStore
from nudge_rag.stores.milvus.schema import among, schema_of

__all__ = ["DATABASE"]

ITS_OPERATORS = frozenset(
    {
        FilterOperator.EQ,
        FilterOperator.NE,
        FilterOperator.GT,
        FilterOperator.GTE,
        FilterOperator.LT,
        FilterOperator.LTE,
        FilterOperator.IN,
        FilterOperator.NIN,
    }
)


class Milvus(Database):
    """A collection, with texts, and metadata in dynamic fields."""

    options = (
        frozenset({"string_expr", "milvus_search_config", "milvus_partition_names", "milvus_scalar_filters"})
        | MMR_OPTIONS
    )
    carried_options = frozenset({"string_expr"})
    own_restrictions = frozenset({"node_ids", "doc_ids"})
    mmr_prefetch = "factor"

    def make_adapter(self, vector_store: Any) -> EmbeddingStore:
        """Make the adapter of its dense vector."""
        return MilvusStore(
            vector_store.client,
            vector_store.collection_name,
            vector_field=vector_store.embedding_field,
            search_params=vector_store.search_config or None,
        )

    def make_filter(self, request: Request) -> str | None:
        """Translate filters, ids and ``string_expr`` to an expression."""
        query, vector_store = request.query, request.vector_store
        own = request.options.get("string_expr")
        parts = [f"({own})"] if own else []
        if query.filters is not None:
            parts.append(_translate(query.filters, request.trusting))
        if query.node_ids:
            parts.append(milvus_among("id", query.node_ids))
        if query.doc_ids:
            parts.append(milvus_among(vector_store.doc_id_field, query.doc_ids))
        return " and ".join(parts) or None

    def honours(self, vector_store: Any, query: VectorStoreQuery, options: Options) -> bool:
        """Its search quotes no id, and drops ``string_expr`` if there is another filter."""
        ids = [*(query.node_ids or ()), *(query.doc_ids or ())]
        restricted = bool(ids or query.filters is not None)
        return (
            not any('"' in node_id or "\\" in node_id for node_id in ids)
            and not (restricted and options.get("string_expr"))
            and is_plain(query.filters, ITS_OPERATORS)
        )

    def fetch_nodes(self, vector_store: Any, ids: list[str]) -> list[BaseNode]:
        """Fetch nodes by the id of their row."""
        return list(self.nodes_by_id(vector_store, ids).values())

    def nodes_by_id(self, vector_store: Any, ids: list[str]) -> dict[str, BaseNode]:
        """Fetch nodes by the id of their row, maybe a number: the integration leaves ids unquoted (version 1.2)."""
        schema = schema_of(
            vector_store.client.describe_collection(vector_store.collection_name), vector_store.embedding_field
        )
        rows = vector_store.client.query(
            vector_store.collection_name,
            filter=among(schema.id_field, schema.keys(ids).values()),
            output_fields=["*"],  # the texts too, whatever the integration was told to give as metadata
            consistency_level="Strong",
        )
        nodes = {}
        for row in rows:
            # A node that another tool has written has no id of its own.
            nodes[str(row[schema.id_field])] = _make_node(vector_store, row, str(row[schema.id_field]))
        return nodes

    def complete(self, result: VectorStoreQueryResult) -> VectorStoreQueryResult:
        """Give nodes of other tools the id of their row: the integration makes one up at every search."""
        for node, row_id in zip(result.nodes or (), result.ids or (), strict=False):
            if node.node_id != str(row_id):
                node.id_ = str(row_id)
        return result

    def framework_scores(self, scores: FloatArray, similarity: Similarity) -> FloatArray:
        """Milvus gives the squared distance itself if it ranks by it: the smaller, the nearer."""
        return -scores if similarity == "l2" else scores


def _translate(filters: MetadataFilters, trusting: bool) -> str:
    if not trusting or not is_plain(filters, ITS_OPERATORS):
        return milvus_expression(filters)
    from llama_index.vector_stores.milvus.base import _to_milvus_filter

    return str(_to_milvus_filter(filters))


def _make_node(vector_store: Any, row: dict[str, Any], node_id: str) -> BaseNode:
    text = row.get(vector_store.text_key)
    if "_node_content" in row:
        return metadata_dict_to_node(row, text=text)
    metadata = {key: row.get(key) for key in vector_store.output_fields}
    return TextNode(id_=node_id, text=text or "", metadata=metadata)


DATABASE = Milvus()
