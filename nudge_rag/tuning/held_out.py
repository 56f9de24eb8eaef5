"""Held-out queries as a report shows them: ranked with the original, the live and the new vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.journal.text_hashes import TextsOf

__all__ = ["HeldOutQueries", "known_texts"]

# Values that differ by less are the same, summed in another order.
SAME_VALUE = 1e-12


@dataclass(frozen=True)
class HeldOutQueries:
    """Rankings of the held-out queries by each state of the store; the first one is what others are compared with.

    Attributes:
        pairs: the held-out pairs.
        evaluations: name of a state ("untuned", "live", "nudged") to the evaluation of its rankings.
        metric: name of what is compared.
        depth: how many nodes are ranked.
    """

    pairs: LabeledPairs
    evaluations: Mapping[str, Evaluation]
    metric: str
    depth: int

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self.evaluations)

    @property
    def baseline(self) -> str:
        """The state that others are compared with."""
        return self.systems[0]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The one metric that is compared."""
        return (self.metric,)

    @property
    def rankings(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """State to query id to node ids, best first."""
        return {system: found.rankings for system, found in self.evaluations.items()}

    def changes(self, system: str, metric: object | None = None) -> list[tuple[str, float]]:
        """Return query ids with their difference from the baseline, the worst losses first, without ties."""
        name = self.metric if metric is None else str(metric)
        queries = self.evaluations[system].query_ids
        new, old = (self.evaluations[state].of(name, queries) for state in (system, self.baseline))
        differences = zip(queries, (new - old).tolist(), strict=True)
        return sorted((pair for pair in differences if abs(pair[1]) > SAME_VALUE), key=lambda pair: (pair[1], pair[0]))


def known_texts(held_out: HeldOutQueries, texts_of: TextsOf | None) -> dict[str, str]:
    """Return the texts of the nodes that answer a held-out query, by their ids; those without a text are left out."""
    if texts_of is None:
        return {}
    ids = sorted({node for grades in held_out.pairs.qrels.values() for node, grade in grades.items() if grade > 0})
    return {node: text for node, text in zip(ids, texts_of(ids), strict=True) if isinstance(text, str)}
