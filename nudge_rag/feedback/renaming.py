"""Labels under other ids of their nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nudge_rag.common.spelling import find_spellings
from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["rename_nodes", "spell_as"]


def rename_nodes(pairs: LabeledPairs, names: Mapping[str, str]) -> LabeledPairs:
    """Replace node ids; grades of nodes that become one add up.

    Example:
        >>> pairs = rename_nodes(LabeledPairs.from_pairs([("leave", "old"), ("leave", "new")]), {"old": "new"})
        >>> [dict(grades) for grades in pairs.qrels.values()]
        [{'new': 2.0}]
    """
    qrels: dict[str, dict[str, float]] = {}
    for query, grades in pairs.qrels.items():
        merged = qrels[query] = {}
        for node, grade in grades.items():
            name = names.get(node, node)
            merged[name] = merged.get(name, 0.0) + grade
    return LabeledPairs(pairs.queries, qrels, pairs.synthetic, pairs.report)


def spell_as(pairs: LabeledPairs, ids: Collection[str]) -> LabeledPairs:
    """Spell the node ids of ``pairs`` as those of ``ids`` that are the same UUID, integer or text.

    Example:
        >>> spell_as(LabeledPairs.from_pairs([("leave", "007")]), {"7", "exit"}).node_ids
        ('7',)
    """
    spelled = find_spellings(pairs.node_ids, ids)
    return rename_nodes(pairs, spelled) if spelled else pairs
