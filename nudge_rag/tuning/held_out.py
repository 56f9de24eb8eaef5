"""Held-out queries as a report shows them: ranked with the original, the live and the new vectors.

A saved nudge keeps their rankings, and of their texts hashes alone, unless its user wants the texts saved too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_rag.evaluation.hubs import measure_hubs
from nudge_rag.evaluation.runs import Evaluation, evaluate_run
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.journal.text_hashes import TextsOf, hash_text

__all__ = ["HELD_OUT", "HeldOutQueries", "known_texts", "name_queries"]

# Of an archive: the array of rankings, and what the manifest says of them.
HELD_OUT = "held_out"
NO_NODE = -1
# A query whose text was not saved.
UNNAMED = "query "
STATES = ("untuned", "live", "nudged")
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
        texts: node id to its text, of those that answer a query, if they were saved with a nudge.
    """

    pairs: LabeledPairs
    evaluations: Mapping[str, Evaluation]
    metric: str
    depth: int
    texts: Mapping[str, str] = field(default_factory=dict)

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

    def to_dict(self) -> dict[str, Any]:
        """Return what is told of single queries as plain values: hubs, and how many were won, tied and lost."""
        changes = {system: [change for _, change in self.changes(system)] for system in self.systems[1:]}
        n_queries = self.pairs.n_queries
        return {
            "metric": self.metric,
            "depth": self.depth,
            "n_queries": n_queries,
            "hubs": {name: measure_hubs(rankings.values(), self.depth) for name, rankings in self.rankings.items()},
            "against_untuned": {
                system: {
                    "wins": sum(change > 0 for change in found),
                    "ties": n_queries - len(found),
                    "losses": sum(change < 0 for change in found),
                }
                for system, found in changes.items()
            },
        }

    def pack(self, texts: Mapping[str, str] | None = None) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
        """Return what an archive holds of it: plain values, and (states, queries, depth) places in the list of nodes.

        Args:
            texts: of the nodes that answer a query; None leaves out these and the queries' texts.
        """
        # In the order of their ids, which are not saved, so that queries that tie are reported in the same order.
        qrels, rankings = {query: self.pairs.qrels[query] for query in sorted(self.pairs.qrels)}, self.rankings
        ranked = [node for by_query in rankings.values() for found in by_query.values() for node in found[: self.depth]]
        nodes = list(dict.fromkeys([*self.pairs.node_ids, *ranked]))
        place_of = {node: place for place, node in enumerate(nodes)}
        places = np.full((len(rankings), len(qrels), self.depth), NO_NODE, dtype=np.int32)
        for state, by_query in enumerate(rankings.values()):
            for row, query in enumerate(qrels):
                found = [place_of[node] for node in by_query.get(query, ())[: self.depth]]
                places[state, row, : len(found)] = found
        asked = [self.pairs.queries[query] for query in qrels]
        return {
            "metric": self.metric,
            "states": list(self.systems),
            "nodes": nodes,
            "grades": [[[place_of[node], grade] for node, grade in grades.items()] for grades in qrels.values()],
            "hashes": [hash_text(text) for text in asked],
            "queries": None if texts is None else asked,
            "texts": None if texts is None else dict(texts),
        }, places

    @classmethod
    def unpack(
        cls, plain: Mapping[str, Any], places: np.ndarray[Any, Any], known_states: Sequence[str] = STATES
    ) -> HeldOutQueries:
        """Return what `pack` made; queries whose texts were not saved are called by their hashes.

        Args:
            plain: the plain values.
            places: the places in the list of nodes.
            known_states: names that states may have.

        Raises:
            KeyError: something is missing.
            TypeError: a value of another type.
            ValueError: values that do not fit together.
        """
        nodes, hashes, states = (_strings(plain[name], name) for name in ("nodes", "hashes", "states"))
        asked = (
            [UNNAMED + found for found in hashes]
            if plain.get("queries") is None
            else _strings(plain["queries"], "queries")
        )
        if places.ndim != 3 or places.dtype.kind != "i" or places.shape[:2] != (len(states), len(hashes)):
            raise ValueError(f"rankings of shape {places.shape} for {len(states)} states and {len(hashes)} queries")
        if len(asked) != len(hashes) or len(plain["grades"]) != len(hashes) or len(set(nodes)) != len(nodes):
            raise ValueError("held-out queries, their grades and nodes do not fit together")
        if not states or len(set(states)) != len(states) or not set(states) <= set(known_states):
            raise ValueError(f"states must be among {', '.join(known_states)}, got {states!r:.100}")
        if places.size and not (places.min() >= NO_NODE and places.max() < len(nodes)):
            raise ValueError("a ranking names a node that is not there")
        texts = plain.get("texts") or {}
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("texts hold something else than strings")
        ids = [f"q{row:07}" for row in range(len(asked))]
        grades = ({nodes[_place(at, len(nodes))]: grade for at, grade in found} for found in plain["grades"])
        pairs = LabeledPairs(dict(zip(ids, asked, strict=True)), dict(zip(ids, grades, strict=True)))
        evaluations = {}
        for state, rows in zip(states, places.tolist(), strict=True):
            run = {query: [nodes[at] for at in row if at != NO_NODE] for query, row in zip(ids, rows, strict=True)}
            evaluations[state] = evaluate_run(pairs.qrels, run, [plain["metric"]])
        return cls(pairs, evaluations, plain["metric"], places.shape[2], texts)

    def with_texts(self, pairs: LabeledPairs) -> HeldOutQueries:
        """Call queries that are known by hashes by their texts, as far as they are among ``pairs``."""
        return replace(self, pairs=name_queries(self.pairs, pairs))


def _strings(values: Any, name: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is no list of strings")
    return values


def _place(value: Any, n_nodes: int) -> int:
    if not isinstance(value, int) or not 0 <= value < n_nodes:
        raise ValueError(f"a place among {n_nodes} nodes is {value!r:.50}")
    return value


def name_queries(pairs: LabeledPairs, known: LabeledPairs) -> LabeledPairs:
    """Return ``pairs`` with queries that are known by hashes called by their texts, as far as ``known`` has them."""
    text_of = {UNNAMED + hash_text(text): text for text in known.queries.values()}
    queries = {query: text_of.get(text, text) for query, text in pairs.queries.items()}
    return LabeledPairs(queries, pairs.qrels)


def known_texts(held_out: HeldOutQueries, texts_of: TextsOf | None) -> dict[str, str]:
    """Return the texts of the nodes that answer a held-out query, by their ids; those without a text are left out."""
    if texts_of is None:
        return dict(held_out.texts)
    ids = sorted({node for grades in held_out.pairs.qrels.values() for node, grade in grades.items() if grade > 0})
    return {node: text for node, text in zip(ids, texts_of(ids), strict=True) if isinstance(text, str)}
