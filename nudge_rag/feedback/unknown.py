"""Labels of nodes that a store does not hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nudge_rag.feedback.rows import Qrels

__all__ = ["UnknownNodes", "drop_unknown_nodes"]


@dataclass(frozen=True)
class UnknownNodes:
    """Node ids that labels name and a store does not hold.

    Attributes:
        pairs: number of labels lost per unknown node id.
        queries_left_empty: ids of the queries that have no known node left, and were dropped.
    """

    pairs: Mapping[str, int]
    queries_left_empty: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __str__(self) -> str:
        shown = ", ".join(f"{node!r} ({count})" for node, count in list(self.pairs.items())[:5])
        more = f" and {len(self.pairs) - 5} more" if len(self.pairs) > 5 else ""
        return (
            f"{len(self.pairs)} labelled node id(s) are not in the store, in {sum(self.pairs.values())} pair(s): "
            f"{shown}{more}; {len(self.queries_left_empty)} of the queries have no other answer and are left out"
        )


def drop_unknown_nodes(qrels: Qrels, known_ids: Collection[str]) -> tuple[dict[str, dict[str, float]], UnknownNodes]:
    """Keep the grades of known nodes and the queries that have any; report the others.

    Example:
        >>> left, unknown = drop_unknown_nodes({"q0": {"a": 1.0, "b": 1.0}, "q1": {"b": 1.0}}, ["a"])
        >>> left, unknown.pairs, unknown.queries_left_empty
        ({'q0': {'a': 1.0}}, {'b': 2}, ('q1',))
    """
    known = set(known_ids)
    lost: dict[str, int] = {}
    kept: dict[str, dict[str, float]] = {}
    for query, grades in qrels.items():
        kept[query] = {node: grade for node, grade in grades.items() if node in known}
        for node in grades.keys() - known:
            lost[node] = lost.get(node, 0) + 1
    empty = tuple(query for query, grades in kept.items() if not grades)
    left = {query: grades for query, grades in kept.items() if grades}
    return left, UnknownNodes(dict(sorted(lost.items())), empty)
