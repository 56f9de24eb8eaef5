"""LlamaIndex metadata filters as query clauses of Elasticsearch."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator

__all__ = ["clause_of", "query_clauses"]

Clause = dict[str, Any]
RANGES = {
    FilterOperator.GT: "gt",
    FilterOperator.LT: "lt",
    FilterOperator.GTE: "gte",
    FilterOperator.LTE: "lte",
}
# The integration maps these as keywords themselves; dynamic mapping puts the whole string into a field below.
KEYWORDS = ("document_id", "doc_id", "ref_doc_id")


def query_clauses(query: VectorStoreQuery, given: list[Any], document_field: str) -> list[Any] | None:
    """Add the node and document ids of a query to the clauses ``given``."""
    clauses = list(given)
    if query.node_ids:
        clauses.append({"ids": {"values": list(query.node_ids)}})
    if query.doc_ids:
        clauses.append({"terms": {document_field: list(query.doc_ids)}})
    return clauses or None


def clause_of(filters: MetadataFilters, suffix: str = ".keyword") -> Clause:
    """The query clause that ``filters`` stand for; ``suffix`` names the field of a string as a whole.

    Raises:
        ValueError: an operator that has no clause here, by name.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> clause_of(MetadataFilters(filters=[MetadataFilter(key="year", value=2020)]))
        {'bool': {'filter': [{'term': {'metadata.year': 2020}}]}}
    """
    parts = [
        clause_of(part, suffix) if isinstance(part, MetadataFilters) else _one(part, suffix) for part in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        return {"bool": {"must_not": parts}}
    return {"bool": {"should" if filters.condition == FilterCondition.OR else "filter": parts}}


def _one(filter_: MetadataFilter, suffix: str) -> Clause:
    key, value, operator = filter_.key, filter_.value, filter_.operator
    values = value if isinstance(value, list) else [value]
    whole = suffix if key not in KEYWORDS and any(isinstance(one, str) for one in values) else ""
    name = f"metadata.{key}{whole}"
    if operator == FilterOperator.EQ:
        return {"term": {name: value}}
    if operator == FilterOperator.NE:
        return {"bool": {"must_not": [{"term": {name: value}}]}}
    if operator in RANGES:
        return {"range": {name: {RANGES[operator]: value}}}
    if operator in (FilterOperator.IN, FilterOperator.ANY):
        return {"terms": {name: values}}
    if operator == FilterOperator.NIN:
        return {"bool": {"must_not": [{"terms": {name: values}}]}}
    if operator == FilterOperator.IS_EMPTY:
        return {"bool": {"must_not": [{"exists": {"field": f"metadata.{key}"}}]}}
    raise ValueError(f"filter operator {operator.value!r} is not supported for this store")
