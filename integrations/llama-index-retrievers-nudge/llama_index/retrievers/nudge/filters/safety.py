"""Whether an integration that writes filter values into a query as they are can be trusted with them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator

__all__ = ["is_plain"]

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Letters of any alphabet, digits, and signs that mean nothing inside quotes.
PLAIN_TEXT = re.compile(r"[\w .,;/+*#@!?=<>()\[\]{}|~^&-]*")


def is_plain(
    filters: MetadataFilters | None,
    operators: Collection[FilterOperator],
    *,
    nested: bool = True,
    negated: bool = False,
) -> bool:
    """Tell whether filters have known operators alone, and keys and values that need no quoting.

    Args:
        filters: those of the query; None is plain.
        operators: those that the integration writes correctly.
        nested: whether it writes filters within filters.
        negated: whether it writes NOT.

    Example:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> def of(value):
        ...     return MetadataFilters(filters=[MetadataFilter(key="who", value=value)])
        >>> is_plain(of("Neil"), [FilterOperator.EQ]), is_plain(of("O'Neil"), [FilterOperator.EQ])
        (True, False)
    """
    if filters is None:
        return True
    if not filters.filters or (filters.condition == FilterCondition.NOT and not negated):
        return False
    return all(
        nested and is_plain(part, operators, negated=negated)
        if isinstance(part, MetadataFilters)
        else _is_plain_filter(part, operators)
        for part in filters.filters
    )


def _is_plain_filter(part: MetadataFilter, operators: Collection[FilterOperator]) -> bool:
    listed = part.operator in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
    if listed != isinstance(part.value, list) or (listed and not part.value):
        return False
    values = part.value if isinstance(part.value, list) else [part.value]
    return part.operator in operators and bool(PLAIN_KEY.fullmatch(part.key)) and all(map(_is_plain_value, values))


def _is_plain_value(value: Any) -> bool:
    if isinstance(value, str):
        return bool(PLAIN_TEXT.fullmatch(value))
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
