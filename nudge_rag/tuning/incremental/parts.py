"""Training, validation or test: the part that each query of a `TuningState` falls into, and stays in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.feedback.rows import normalise
from nudge_rag.tuning.gate import find_seen
from nudge_rag.tuning.generated import refuse_generated
from nudge_rag.tuning.incremental.labels import PARTS, RunningLabels

__all__ = ["Judged", "assign_parts", "check_fractions", "check_seed", "keep_known_nodes"]

# Text to its part and to the grades of its nodes.
Judged = dict[str, tuple[str, dict[str, float]]]


def assign_parts(
    pairs: LabeledPairs | Split, labels: RunningLabels, split: Sequence[float], seed: int, learned: Collection[str] = ()
) -> Judged:
    """Map each text to its part and grades: the part that it is in, that a `Split` says, or that its hash gives.

    Args:
        pairs: what is folded in.
        labels: what is there.
        split: fractions of the queries for training, validation and test.
        seed: of the hash.
        learned: hashes of queries that the live version was made from: they never judge what is to follow it.

    Raises:
        TypeError: other than pairs.
        ValueError: a `Split` has a text in another part than the one that it is in; a generated question is held out.
    """
    if not isinstance(pairs, LabeledPairs | Split):
        raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
    refuse_generated(pairs)
    found: Judged = {}
    for wanted, given in [(None, pairs)] if isinstance(pairs, LabeledPairs) else zip(PARTS, pairs, strict=True):
        for query, text in given.queries.items():
            there = labels.part_of(text) or found.get(text, (None,))[0]
            generated = "train" if query in given.synthetic else None
            part = there or wanted or generated or _fresh_part(text, split, seed, learned)
            if wanted not in (None, part):
                raise ValueError(f"query {text!r} is in the {part} part already, not in {wanted}")
            grades = found.setdefault(text, (part, {}))[1]
            for node_id, grade in given.qrels[query].items():
                grades[node_id] = grades.get(node_id, 0.0) + grade
    return found


def keep_known_nodes(incoming: Judged, known: set[str]) -> Judged:
    """Keep the pairs of known nodes, and the queries that have any."""
    kept = {
        text: (part, {node_id: grade for node_id, grade in grades.items() if node_id in known})
        for text, (part, grades) in incoming.items()
    }
    return {text: judged for text, judged in kept.items() if judged[1]}


def check_fractions(given: Any) -> tuple[float, ...]:
    """Return the fractions of a split that were read.

    Raises:
        TypeError: other than three numbers.
        ValueError: they do not sum to 1.
    """
    if not isinstance(given, list) or len(given) != 3 or not all(isinstance(part, int | float) for part in given):
        raise TypeError(f"its split is {given!r}")
    LabeledPairs.from_pairs([("query", "node")]).split(*given)  # checks that they sum to 1
    return tuple(given)


def check_seed(given: Any) -> int:
    """Return the seed that was read.

    Raises:
        TypeError: other than an integer.
    """
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"its seed is {given!r}")
    return given


def _fresh_part(text: str, split: Sequence[float], seed: int, learned: Collection[str]) -> str:
    """Return the part of a text that is not there yet."""
    part = _hashed_part(text, split, seed)
    return "train" if part == "test" and find_seen({text: text}, learned) else part


def _hashed_part(text: str, split: Sequence[float], seed: int) -> str:
    """Return the part that a text falls into, whatever else there is; near-identical texts fall into one."""
    fraction = int.from_bytes(hashlib.sha256(f"{seed}:{normalise(text)}".encode()).digest()[:8]) / 2**64
    return PARTS[min(2, int(np.searchsorted(np.cumsum(split), fraction, side="right")))]
