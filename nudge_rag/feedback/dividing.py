"""Queries divided into a part to learn from, one to choose by, and one to measure on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np

from nudge_rag.feedback.rows import LabelSet, normalise

__all__ = ["divide_queries"]


def divide_queries(
    labels: LabelSet, fractions: tuple[float, float, float], seed: int, learned: Collection[str]
) -> list[list[str]]:
    """Divide the ids of queries by text, as `LabeledPairs.split` says.

    Raises:
        ValueError: fractions that do not sum to 1.

    Example:
        >>> from nudge_rag import LabeledPairs
        >>> pairs = LabeledPairs.from_pairs([("log in", "a"), ("pay", "b"), ("Log in?", "c"), ("move", "d")])
        >>> divide_queries(pairs, (0.5, 0.0, 0.5), seed=0, learned=[])
        [['q0', 'q2', 'q3'], [], ['q1']]
    """
    if not all(math.isfinite(part) and part >= 0 for part in fractions) or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"train, val and test must be fractions that sum to 1, got {fractions}")
    alike: dict[str, set[str]] = {}
    group_of = {query: normalise(text) for query, text in labels.queries.items()}
    for query, text in labels.queries.items():
        if query not in labels.synthetic:
            alike.setdefault(group_of[query], set()).add(text)
    texts = sorted(text for group in alike.values() for text in group)
    shuffled = np.random.default_rng(seed).permutation(len(texts))
    place_of = {texts[row]: place for place, row in enumerate(shuffled)}
    # In the order of one text of each: a few near-identical queries among many leave all others where they were.
    groups = sorted(alike, key=lambda group: place_of[min(alike[group])])
    part_of = _divide_groups(groups, fractions, {normalise(text) for text in learned})
    parts: list[list[str]] = [[], [], []]
    for query, group in group_of.items():
        if query not in labels.synthetic:
            parts[part_of[group]].append(query)
        elif part_of.get(group, 0) == 0:
            # A generated question that a user asked too would carry its answer from the test part into training.
            parts[0].append(query)
    return parts


def _divide_groups(groups: Sequence[str], fractions: Sequence[float], learned: Collection[str]) -> dict[str, int]:
    """Return the part of each group: the last ones that were not learned are the test part, the others as they come."""
    first, second = np.round(np.cumsum(fractions)[:2] * len(groups)).astype(int).tolist()
    fresh = [group for group in groups if group not in learned]
    n_test = len(groups) - second
    tested = set(fresh[max(0, len(fresh) - n_test) :]) if n_test else set()
    rest = [group for group in groups if group not in tested]
    n_train = len(rest) - (second - first)
    return dict.fromkeys(tested, 2) | {group: int(place >= n_train) for place, group in enumerate(rest)}
