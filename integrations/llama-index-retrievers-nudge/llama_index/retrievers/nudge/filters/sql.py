"""LlamaIndex metadata filters as SQL conditions, every value and key quoted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator

from nudge_rag.stores.sql import sql_text

__all__ = [
    "DUCKDB",
    "POSTGRES",
    "Columns",
    "Dialect",
    "among",
    "lance_dialect",
    "literal",
    "sql_condition",
    "sql_filter",
]

COMPARISONS = {
    FilterOperator.EQ: "=",
    FilterOperator.NE: "<>",
    FilterOperator.GT: ">",
    FilterOperator.LT: "<",
    FilterOperator.GTE: ">=",
    FilterOperator.LTE: "<=",
}
LISTS = (FilterOperator.CONTAINS, FilterOperator.ANY, FilterOperator.ALL)
NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"


@dataclass(frozen=True)
class Columns:
    """SQL expressions of a table's node id and source document id."""

    node_id: str
    document_id: str


@dataclass(frozen=True)
class Dialect:
    """How a database writes conditions on metadata.

    Attributes:
        text: a metadata key to an SQL expression of its value as text.
        compare: a key, an SQL operator and a value to a condition; it must hold for no row without the key.
        holds: a key and a value to the condition that the key's list holds the value.
    """

    text: Callable[[str], str]
    compare: Callable[[str, str, Any], str]
    holds: Callable[[str, Any], str]


def sql_filter(
    query: VectorStoreQuery,
    dialect: Dialect,
    columns: Columns,
    *,
    where: str | None = None,
    translated: str | None = None,
) -> str | None:
    """Join the metadata filters, node ids and document ids of a query, and a condition of the user's own.

    Args:
        query: the query; empty lists of ids restrict nothing, as in the framework's own retriever.
        dialect: how the database writes conditions.
        columns: those that hold ids.
        where: the user's condition.
        translated: the filters, if the integration has translated them already.

    Returns:
        The condition, or None if there is none.
    """
    parts = [f"({where})"] if where else []
    if query.filters is not None:
        parts.append(f"({translated})" if translated else sql_condition(query.filters, dialect))
    if query.node_ids:
        parts.append(among(columns.node_id, query.node_ids))
    if query.doc_ids:
        parts.append(among(columns.document_id, query.doc_ids))
    return " AND ".join(parts) or None


def sql_condition(filters: MetadataFilters, dialect: Dialect) -> str:
    """Write the condition that ``filters`` stand for.

    Args:
        filters: combined by AND, OR or NOT (none of them holds), nested as deep as need be.
        dialect: how the database writes conditions.

    Raises:
        ValueError: an operator that has no SQL form here, by name; a value that does not fit its operator.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> sql_condition(MetadataFilters(filters=[MetadataFilter(key="who", value="O'Neil")]), DUCKDB)
        "((metadata_->>'/who') = 'O''Neil')"
    """
    parts = [
        sql_condition(part, dialect) if isinstance(part, MetadataFilters) else _condition(part, dialect)
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        # A condition on a missing key is NULL, and so would be its negation.
        return f"(NOT coalesce({' OR '.join(f'coalesce({part}, FALSE)' for part in parts) or 'FALSE'}, FALSE))"
    joined = (" OR " if filters.condition == FilterCondition.OR else " AND ").join(parts)
    return f"({joined or 'TRUE'})"


def _condition(part: MetadataFilter, dialect: Dialect) -> str:
    key, value, operator = part.key, part.value, part.operator
    if operator in COMPARISONS:
        return dialect.compare(key, COMPARISONS[operator], value)
    if operator in (FilterOperator.IN, FilterOperator.NIN):
        values: Sequence[Any] = value if isinstance(value, list) else str(value).split(",")
        if not values:
            return "FALSE" if operator == FilterOperator.IN else "TRUE"
        symbol, joint = ("=", " OR ") if operator == FilterOperator.IN else ("<>", " AND ")
        return f"({joint.join(dialect.compare(key, symbol, value) for value in values)})"
    if operator in LISTS:
        values = value if isinstance(value, list) and operator != FilterOperator.CONTAINS else [value]
        joint = " AND " if operator == FilterOperator.ALL else " OR "
        return f"({joint.join(dialect.holds(key, value) for value in values) or 'FALSE'})"
    if operator == FilterOperator.TEXT_MATCH:
        return f"{dialect.text(key)} LIKE {literal(f'%{value}%')}"
    if operator == FilterOperator.TEXT_MATCH_INSENSITIVE:
        return f"lower({dialect.text(key)}) LIKE {literal(f'%{value}%'.lower())}"
    if operator == FilterOperator.IS_EMPTY:
        return f"{dialect.text(key)} IS NULL"
    raise ValueError(f"filter operator {operator.value!r} is not supported for this store")


def literal(value: Any) -> str:
    """Write a value as SQL; quotes are doubled.

    Raises:
        ValueError: a number that is not finite, or a value that is no text, number or boolean.
    """
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"filter values must be finite numbers, got {value!r}")
        return repr(value)
    if not isinstance(value, str):
        raise ValueError(f"filter values must be text, numbers or booleans here, got {value!r}")
    return sql_text(value)


def among(expression: str, values: Sequence[str]) -> str:
    """Write that ``expression`` is one of ``values``; none is in an empty list."""
    return f"{expression} IN ({', '.join(map(literal, values))})" if values else "FALSE"


def lance_dialect(kinds: Mapping[str, str]) -> Dialect:
    """Write conditions on a struct of metadata, whose fields have types.

    Args:
        kinds: the type of each field, ``"text"``, ``"integer"``, ``"number"`` or another; no node has any other field.

    Example:
        >>> lance_dialect({"year": "integer"}).compare("year", ">", "1999")
        'metadata.`year` > 1999'
    """

    def field(key: str) -> str:
        quoted = key.replace("`", "``")
        return f"metadata.`{quoted}`" if key in kinds else "CAST(NULL AS STRING)"

    def compare(key: str, operator: str, value: Any) -> str:
        kind, column, written = kinds.get(key), field(key), literal(value)
        number = None if isinstance(value, bool) else _as_number(value)
        if kind is None:
            return "FALSE"
        if kind in ("integer", "number") and number is None:
            return f"CAST({column} AS STRING) {operator} {written}"
        if kind in ("integer", "number") and number is not None:
            whole = kind == "integer" and number.is_integer()
            return f"{column} {operator} {int(number)}" if whole else f"CAST({column} AS DOUBLE) {operator} {number!r}"
        if kind == "text" and not isinstance(value, str):
            return f"TRY_CAST({column} AS DOUBLE) {operator} {written}"
        return f"{column} {operator} {written}"

    def holds(key: str, value: Any) -> str:
        return f"array_has({field(key)}, {literal(value)})" if key in kinds else "FALSE"

    return Dialect(field, compare, holds)


def _postgres_text(key: str) -> str:
    return f"(metadata_->>{literal(key)})"


def _postgres_compare(key: str, operator: str, value: Any) -> str:
    """Compare as numbers if both sides read as numbers, as the integration does; else as texts."""
    text = _postgres_text(key)
    if isinstance(value, bool):
        return f"{text} {operator} {literal(str(value).lower())}"
    number = _as_number(value)
    as_text = f"{text} {operator} {literal(str(value))}"
    if number is None:
        return as_text
    # Beside a number, other texts are different from it, and neither larger nor smaller.
    otherwise = as_text if operator in ("=", "<>") else f"{text} IS NULL AND NULL"
    return f"CASE WHEN {text} ~ {literal(NUMBER)} THEN {text}::float {operator} {number!r} ELSE {otherwise} END"


def _as_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        literal(value)
        return None
    return number if math.isfinite(number) else None


def _postgres_holds(key: str, value: Any) -> str:
    literal(value)
    field = f"(metadata_::jsonb->{literal(key)})"
    texts = {json.dumps([value], ensure_ascii=False), json.dumps([str(value)], ensure_ascii=False)}
    return f"({' OR '.join(f'{field} @> {sql_text(text)}::jsonb' for text in sorted(texts))})"


def _duckdb_pointer(key: str) -> str:
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))


def _duckdb_text(key: str) -> str:
    return f"(metadata_->>{_duckdb_pointer(key)})"


def _duckdb_compare(key: str, operator: str, value: Any) -> str:
    """Compare as the type of ``value``; a value of another type is NULL."""
    text = _duckdb_text(key)
    if isinstance(value, bool):
        text = f"TRY_CAST({text} AS BOOLEAN)"
    elif isinstance(value, int | float):
        text = f"TRY_CAST({text} AS DOUBLE)"
    return f"{text} {operator} {literal(value)}"


def _duckdb_holds(key: str, value: Any) -> str:
    literal(value)
    return f"json_contains(json_extract(metadata_, {_duckdb_pointer(key)}), {sql_text(json.dumps(value))})"


POSTGRES = Dialect(_postgres_text, _postgres_compare, _postgres_holds)
DUCKDB = Dialect(_duckdb_text, _duckdb_compare, _duckdb_holds)
