"""Pinecone's filters on metadata, applied here: the database itself has no search by id and filter at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["passes"]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda value, given: value > given,
    "$gte": lambda value, given: value >= given,
    "$lt": lambda value, given: value < given,
    "$lte": lambda value, given: value <= given,
}


def passes(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a record with ``metadata`` passes ``where``. A list has each of its values.

    Raises:
        ValueError: an operator that Pinecone's documentation does not list.

    Example:
        >>> passes({"year": 2021, "tags": ["a", "b"]}, {"$and": [{"year": {"$gte": 2020}}, {"tags": "a"}]})
        True
    """
    for key, given in where.items():
        if key == "$and" or key == "$or":
            found = [passes(metadata, part) for part in given]
            if not (all(found) if key == "$and" else any(found)):
                return False
            continue
        conditions = given if isinstance(given, Mapping) else {"$eq": given}
        if not all(_holds(metadata.get(key), operator, value) for operator, value in conditions.items()):
            return False
    return True


def _holds(found: Any, operator: str, given: Any) -> bool:
    values = [] if found is None else found if isinstance(found, list) else [found]
    if operator in ("$eq", "$in"):
        return any(_same(value, one) for value in values for one in (given if operator == "$in" else [given]))
    if operator in ("$ne", "$nin"):
        return not _holds(found, "$eq" if operator == "$ne" else "$in", given)
    if operator == "$exists":
        return bool(values) == bool(given)
    if operator in COMPARISONS:
        return any(_number(value) and COMPARISONS[operator](value, given) for value in values)
    raise ValueError(f"{operator!r} is no operator of Pinecone's filters")


def _same(value: Any, given: Any) -> bool:
    """Whether two values are equal; a boolean equals no number."""
    return isinstance(value, bool) == isinstance(given, bool) and bool(value == given)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
