"""Hashes of the queries that a version was made from, as its record and that of the next one keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LIVE_QUERIES", "QUERY_CHANGE", "describe_change", "live_queries", "queries_before"]

# In the details of a version: hashes of the queries that it was made from; no text is recorded.
LIVE_QUERIES = "query_hashes"
# In a manifest: how these differ from those of the version before, of which only the manifest may be kept.
QUERY_CHANGE = "query_change"
LEARNED, FORGOTTEN = "learned", "forgotten"


def live_queries(details: Mapping[str, Any]) -> set[str]:
    """Return the hashes of the queries that the version with these ``details`` was made from."""
    return _texts(details.get(LIVE_QUERIES, ()))


def describe_change(before: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return how the queries of a version differ from those of the one before, both by their details.

    Example:
        >>> describe_change({"query_hashes": ["a", "b"]}, {"query_hashes": ["b", "c"]})
        {'learned': ['c'], 'forgotten': ['a']}
    """
    old, new = live_queries(before), live_queries(details)
    return {LEARNED: sorted(new - old), FORGOTTEN: sorted(old - new)}


def queries_before(manifest: Mapping[str, Any]) -> list[str] | None:
    """Return the queries of the version before the one of this manifest; None if it does not tell.

    Example:
        >>> details = {"query_hashes": ["b", "c"]}
        >>> queries_before({"details": details, "query_change": {"learned": ["c"], "forgotten": ["a"]}})
        ['a', 'b']
    """
    change = manifest.get(QUERY_CHANGE)
    if not isinstance(change, dict):
        return None
    return sorted((live_queries(manifest["details"]) - _texts(change.get(LEARNED))) | _texts(change.get(FORGOTTEN)))


def _texts(recorded: Any) -> set[str]:
    return {each for each in recorded if isinstance(each, str)} if isinstance(recorded, list | tuple) else set()
