"""LlamaIndex metadata filters as expressions of Milvus, every value and key quoted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator

from nudge_rag.stores.milvus.schema import literal

__all__ = ["milvus_among", "milvus_expression"]

COMPARISONS = {
    FilterOperator.EQ: "==",
    FilterOperator.NE: "!=",
    FilterOperator.GT: ">",
    FilterOperator.LT: "<",
    FilterOperator.GTE: ">=",
    FilterOperator.LTE: "<=",
}
ARRAYS: dict[FilterOperator, Callable[[str, Any], str]] = {
    FilterOperator.CONTAINS: lambda field, value: f"json_contains({field}, {_value(value)})",
    FilterOperator.ANY: lambda field, value: f"json_contains_any({field}, {_list(value)})",
    FilterOperator.ALL: lambda field, value: f"json_contains_all({field}, {_list(value)})",
}
# Metadata keys that the grammar would take for something else than a field.
WORDS = {"and", "or", "not", "in", "like", "is", "null", "exists", "true", "false"}


def milvus_expression(filters: MetadataFilters) -> str:
    r"""Return the expression that ``filters`` stand for.

    Raises:
        ValueError: an operator that has no form here, by name; a list operator on a key that is no identifier.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> milvus_expression(MetadataFilters(filters=[MetadataFilter(key="who", value="O'Neil")]))
        '(who == "O\'Neil")'
    """
    parts = [milvus_expression(part) if isinstance(part, MetadataFilters) else _one(part) for part in filters.filters]
    if filters.condition == FilterCondition.NOT:
        return f"(not ({' or '.join(parts) or '1 == 0'}))"
    joined = (" or " if filters.condition == FilterCondition.OR else " and ").join(parts)
    return f"({joined or '1 == 1'})"


def _one(filter_: MetadataFilter) -> str:
    field, value, operator = _field(filter_.key), filter_.value, filter_.operator
    if operator in COMPARISONS:
        return f"{field} {COMPARISONS[operator]} {_value(value)}"
    if operator in (FilterOperator.IN, FilterOperator.NIN):
        among = milvus_among(field, value if isinstance(value, list) else str(value).split(","))
        return among if operator == FilterOperator.IN else f"not ({among})"
    if operator == FilterOperator.TEXT_MATCH:
        pattern = re.sub(r"([\\%_])", r"\\\1", str(value))
        return f"{field} like {literal(f'%{pattern}%')}"
    if operator == FilterOperator.IS_EMPTY:
        return f"{field} is null"
    if operator in ARRAYS and field == filter_.key:
        return ARRAYS[operator](field, value)
    raise ValueError(f"filter operator {operator.value!r} is not supported for Milvus on key {filter_.key!r}")


def milvus_among(field: str, values: Sequence[Any]) -> str:
    """``field`` is one of ``values``; none are in an empty list."""
    if not field.startswith("$meta"):
        return f"{field} in {_list(values)}"
    return f"({' or '.join(f'{field} == {_value(value)}' for value in values) or '1 == 0'})"


def _field(key: str) -> str:
    """A metadata key: a field of the collection, or one in its dynamic field."""
    bare = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) and key.lower() not in WORDS
    return key if bare else f"$meta[{literal(key)}]"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else literal(str(value))


def _list(values: Any) -> str:
    return f"[{', '.join(map(_value, values))}]"
