"""LlamaIndex metadata filters as SQL conditions, every value and key quoted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator

from nudge_rag.stores.checks import sql_text

__all__ = ["among", "duckdb_field", "lance_field", "literal", "postgres_field", "sql_condition", "sql_filter"]

COMPARISONS = {
    FilterOperator.EQ: "=",
    FilterOperator.NE: "<>",
    FilterOperator.GT: ">",
    FilterOperator.LT: "<",
    FilterOperator.GTE: ">=",
    FilterOperator.LTE: "<=",
}
MEMBERSHIP = {FilterOperator.IN: "IN", FilterOperator.NIN: "NOT IN"}

# A metadata key and an example of its values to an SQL expression of that type.
Field = Callable[[str, Any], str]


def sql_filter(query: VectorStoreQuery, where: str | None, field: Field, node_id: str, document_id: str) -> str | None:
    """Join the metadata filters, node ids and document ids of a query, and a condition of the user's own."""
    parts = [f"({where})"] if where else []
    if query.filters is not None:
        parts.append(sql_condition(query.filters, field))
    if query.node_ids is not None:
        parts.append(among(node_id, query.node_ids))
    if query.doc_ids is not None:
        parts.append(among(document_id, query.doc_ids))
    return " AND ".join(parts) or None


def sql_condition(filters: MetadataFilters, field: Field) -> str:
    """The condition that ``filters`` stand for.

    Raises:
        ValueError: an operator that has no SQL form here, by name.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> sql_condition(MetadataFilters(filters=[MetadataFilter(key="who", value="O'Neil")]), lance_field)
        "(metadata.`who` = 'O''Neil')"
    """
    parts = [
        sql_condition(part, field) if isinstance(part, MetadataFilters) else _one(part, field)
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        return f"(NOT ({' OR '.join(parts) or 'FALSE'}))"
    joined = (" OR " if filters.condition == FilterCondition.OR else " AND ").join(parts)
    return f"({joined or 'TRUE'})"


def _one(filter_: MetadataFilter, field: Field) -> str:
    key, value, operator = filter_.key, filter_.value, filter_.operator
    if operator in COMPARISONS:
        return f"{field(key, value)} {COMPARISONS[operator]} {literal(value)}"
    if operator in MEMBERSHIP:
        values: Sequence[Any] = value if isinstance(value, list) else str(value).split(",")
        if not values:
            return "FALSE" if operator == FilterOperator.IN else "TRUE"
        return f"{field(key, values[0])} {MEMBERSHIP[operator]} ({', '.join(map(literal, values))})"
    if operator == FilterOperator.TEXT_MATCH:
        return f"{field(key, '')} LIKE {literal(f'%{value}%')}"
    if operator == FilterOperator.TEXT_MATCH_INSENSITIVE:
        return f"lower({field(key, '')}) LIKE {literal(f'%{value}%'.lower())}"
    if operator == FilterOperator.IS_EMPTY:
        return f"{field(key, '')} IS NULL"
    raise ValueError(f"filter operator {operator.value!r} is not supported for this store")


def literal(value: Any) -> str:
    """A value as SQL; quotes are doubled."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return repr(value)
    return sql_text(str(value))


def among(expression: str, values: Sequence[str]) -> str:
    """``expression`` is one of ``values``; none are in an empty list."""
    return f"{expression} IN ({', '.join(map(literal, values))})" if values else "FALSE"


def lance_field(key: str, value: Any) -> str:
    """A field of LanceDB's metadata struct."""
    quoted = key.replace("`", "``")
    return f"metadata.`{quoted}`"


def postgres_field(key: str, value: Any) -> str:
    """A field of the integration's JSON column, as the type of ``value``."""
    text = f"metadata_->>{literal(key)}"
    if isinstance(value, bool):
        return f"({text})::boolean"
    return f"({text})::float" if isinstance(value, int | float) else f"({text})"


def duckdb_field(key: str, value: Any) -> str:
    """A field of the integration's JSON column, as the type of ``value``; NULL where it is of another."""
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    text = f"metadata_->>{literal(pointer)}"
    if isinstance(value, bool):
        return f"TRY_CAST({text} AS BOOLEAN)"
    return f"TRY_CAST({text} AS DOUBLE)" if isinstance(value, int | float) else f"({text})"
