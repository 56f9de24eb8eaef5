"""LlamaIndex metadata filters as a function of a node id, for stores in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

__all__ = ["passes_filters"]

Passes = Callable[[str], bool]


def passes_filters(
    query: VectorStoreQuery,
    metadata_of: Callable[[str], Mapping[str, Any]],
    document_of: Callable[[str], str | None],
) -> Passes | None:
    """Make the function that tells whether a node passes the filters, node ids and document ids of a query.

    The framework's own function judges each filter; nested filters, which it refuses, are judged part by part.

    Args:
        query: the query.
        metadata_of: a node id to the node's metadata.
        document_of: a node id to the id of its source document.

    Returns:
        The function, or None if the query restricts nothing.
    """
    if query.filters is None and query.node_ids is None and not query.doc_ids:
        return None
    nodes = None if query.node_ids is None else set(query.node_ids)
    documents = set(query.doc_ids) if query.doc_ids else None
    passes = _judge(query.filters, metadata_of)

    def where(node_id: str) -> bool:
        return (
            (nodes is None or node_id in nodes)
            and (documents is None or document_of(node_id) in documents)
            and passes(node_id)
        )

    return where


def _judge(filters: MetadataFilters | None, metadata_of: Callable[[str], Mapping[str, Any]]) -> Passes:
    if filters is None or not any(isinstance(part, MetadataFilters) for part in filters.filters):
        return build_metadata_filter_fn(metadata_of, filters)
    parts = [
        _judge(part if isinstance(part, MetadataFilters) else MetadataFilters(filters=[part]), metadata_of)
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.OR:
        return lambda node_id: any(passes(node_id) for passes in parts)
    if filters.condition == FilterCondition.NOT:
        return lambda node_id: not any(passes(node_id) for passes in parts)
    return lambda node_id: all(passes(node_id) for passes in parts)
