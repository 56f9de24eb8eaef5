"""Two sets of labels made one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from nudge_rag.feedback.rows import Labels, LabelSet

__all__ = ["merge_labels"]


def merge_labels(first: LabelSet, second: LabelSet, *, add: bool) -> Labels:
    """Join two sets of labels by query text; ``add`` sums the grades of a pair, else the second one's count.

    Query ids of ``first`` stay; one of ``second`` that is taken becomes the first free ``q0``, ``q1``, ...
    A query is synthetic if it is so in both, or in the only one that has it.
    """
    id_of: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    real: set[str] = set()
    taken = {*first.queries, *second.queries}
    for labels in (first, second):
        merged: dict[str, dict[str, float]] = {}
        for query, text in labels.queries.items():
            if text not in id_of:
                id_of[text] = query if query not in queries else _free_id(taken)
                queries[id_of[text]] = text
            if query not in labels.synthetic:
                real.add(id_of[text])
            # Two queries of one text within one set are votes as well.
            _add_grades(merged.setdefault(id_of[text], {}), labels.qrels[query])
        for query, grades in merged.items():
            total = qrels.setdefault(query, {})
            _add_grades(total, grades) if add else total.update(grades)
    return Labels(queries, qrels, frozenset(queries.keys() - real))


def _add_grades(total: dict[str, float], grades: Mapping[str, float]) -> None:
    for node, grade in grades.items():
        total[node] = total.get(node, 0.0) + grade


def _free_id(taken: set[str]) -> str:
    number = next(number for number in itertools.count() if f"q{number}" not in taken)
    taken.add(f"q{number}")
    return f"q{number}"
