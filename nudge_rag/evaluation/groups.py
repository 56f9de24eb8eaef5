"""Divide judged queries into groups: covered, uncovered, of new nodes, and by a metadata field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["group_queries", "slice_by_node"]

# A report of more would not be read.
MOST_VALUES = 20


def group_queries(
    pairs: LabeledPairs,
    trained_on: LabeledPairs | Collection[str] | None,
    new_nodes: Collection[str],
    slices: Mapping[str, Mapping[str, object]],
) -> dict[str, list[str]]:
    """Return the groups of queries that are shown apart, "all" first.

    A query is covered if one of its answers has a training label; else it is new if one of its answers is among
    ``new_nodes``; else it is uncovered.

    Raises:
        TypeError: ``trained_on`` or ``new_nodes`` is a string; ``slices`` is no mapping of mappings.
        ValueError: a slice that is called as another group, has more than 20 values, or fits no query.
    """
    if isinstance(trained_on, str) or isinstance(new_nodes, str):
        raise TypeError("trained_on and new_nodes must be collections of node ids, got a string")
    if not isinstance(slices, Mapping) or not all(isinstance(values, Mapping) for values in slices.values()):
        raise TypeError(f"slices must map a field's name to {{query id: value}}, got {slices!r:.100}")
    groups: dict[str, list[str]] = {"all": list(pairs.queries)}
    if trained_on is not None:
        groups |= {"covered": [], "uncovered": []}
    if new_nodes:
        groups |= {"uncovered": [], "new": []} if trained_on is not None else {"new": [], "not new": []}
    trained, new = _answers_of(trained_on), set(new_nodes)
    for query in pairs.queries:
        group = _group_of(_answers(pairs, query), trained, new)
        if trained is None and new:
            group = "new" if group == "new" else "not new"
        if group is not None:
            groups[group].append(query)
    for field, value_of in slices.items():
        groups |= _slice_groups(pairs, field, value_of)
    return groups


def _answers(pairs: LabeledPairs, query: str) -> set[str]:
    return {node for node, grade in pairs.qrels[query].items() if grade > 0}


def _answers_of(trained_on: LabeledPairs | Collection[str] | None) -> set[str] | None:
    if isinstance(trained_on, LabeledPairs):
        return {node for query in trained_on.queries for node in _answers(trained_on, query)}
    return None if trained_on is None else set(trained_on)


def _group_of(answers: set[str], trained: set[str] | None, new: set[str]) -> str | None:
    if trained is not None and answers & trained:
        return "covered"
    if answers & new:
        return "new"
    return None if trained is None else "uncovered"


def _slice_groups(pairs: LabeledPairs, field: str, value_of: Mapping[str, object]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for query in pairs.queries:
        if query in value_of:
            groups.setdefault(f"{field}={value_of[query]}", []).append(query)
    if not groups:
        raise ValueError(f"the slices by {field!r} name none of the {pairs.n_queries} queries by its id")
    if len(groups) > MOST_VALUES:
        raise ValueError(f"{field!r} has {len(groups)} values; slices are for at most {MOST_VALUES}: group them first")
    return dict(sorted(groups.items()))


def slice_by_node(
    pairs: LabeledPairs, metadata: Mapping[str, Mapping[str, Any]], field: str
) -> dict[str, dict[str, str]]:
    """Return slices of the queries of ``pairs`` by a metadata field of their best answer.

    Args:
        pairs: labelled pairs.
        metadata: node id to its metadata.
        field: the field; a query whose best answer lacks it is in no slice.

    Example:
        >>> pairs = LabeledPairs.from_pairs([("leave", "exit"), ("pay", "bill")])
        >>> slice_by_node(pairs, {"exit": {"language": "en"}, "bill": {"language": "de"}}, "language")
        {'language': {'q0': 'en', 'q1': 'de'}}
    """
    values = {}
    for query, grades in pairs.qrels.items():
        best = max(grades, key=lambda node: grades[node])
        if field in metadata.get(best, {}):
            values[query] = str(metadata[best][field])
    return {field: values}
