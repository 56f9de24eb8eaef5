"""What a store's own search answers to held-out queries, with the vectors that it holds or as it would with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float64Array, FloatArray
from nudge_rag.common.similarity import score_matrix
from nudge_rag.errors import StoreError
from nudge_rag.stores.access import reading
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["Ranking", "StoreAnswers"]

# How many nodes a query is asked for to learn which parts of an index it reaches.
REACH = 100
# How many nodes near the place that a node moves to tell whether the index would find it there.
NEIGHBOURS = 5
# Stores add up in another order than numpy: scores this close, relative to 1 + |score|, count as equal.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Ranking:
    """Nodes of one query, best first.

    Attributes:
        ids: the nodes.
        scores: their scores, by the store's similarity.
    """

    ids: Sequence[str]
    scores: Float64Array

    def misses(self, node_id: str, score: float, wanted: int) -> bool | None:
        """Whether a node with that score belongs here and is not there; None if it does not belong.

        Args:
            node_id: the node.
            score: its exact score.
            wanted: how many nodes the store was asked for; a shorter list has room for every node.
        """
        if node_id in self.ids:
            return False
        last = self.scores[-1] if len(self.ids) >= wanted else -np.inf
        return True if score > last + ROUNDING * (1 + abs(last)) or len(self.ids) < wanted else None


@dataclass
class _Surroundings:
    """The stored nodes nearest to where each node moves, and their vectors."""

    neighbours: dict[str, list[str]]
    vectors: dict[str, FloatArray]


@dataclass
class StoreAnswers:
    """A store with an approximate index, and the vectors that it holds for the nodes that may move.

    Attributes:
        store: the vector store.
        ids: (n,) nodes that may move.
        stored: (n, d) what the store holds for them.
        vectors_read: how many vectors were read to answer.
        has_estimated: whether an answer could not be asked of the store.
    """

    store: EmbeddingStore
    ids: Sequence[str]
    stored: FloatArray
    vectors_read: int = field(default=0, init=False)
    has_estimated: bool = field(default=False, init=False)
    # What the store answered so far: by how many nodes were wanted, the queries and the answers.
    _answered: dict[int, tuple[FloatArray, list[Ranking]]] = field(default_factory=dict, init=False, repr=False)

    def rank(
        self, queries: FloatArray, vectors: FloatArray, exact: Sequence[Ranking], depth: int
    ) -> list[list[str]] | None:
        """Return the nodes that the store's search finds, or would find if the nodes had ``vectors``.

        Nodes as they are stored: the store is asked. Others: a store that can rehearse a write is asked as well. Any
        other index is taken to find a moved node for a query unless it misses, for that query, most of the nodes that
        are nearest to where it moves.

        Args:
            queries: (m, d), as they are searched.
            vectors: (n, d) of ``ids``.
            exact: for each query, the best nodes by exact scores, more than ``depth`` of them.
            depth: how many nodes are wanted.

        Returns:
            Per query at most ``depth`` ids, best first; None if the index finds all that ``exact`` does.

        Raises:
            StoreError: the store failed.
        """
        if not len(queries):
            return None
        moved = (np.asarray(vectors) != np.asarray(self.stored)).any(axis=1)
        if not moved.any():
            found = self._ask(queries, depth)
            return _ids_of(found) if _any_missed(found, exact, depth) else None
        names = [self.ids[row] for row in np.flatnonzero(moved).tolist()]
        rehearsed = self.store.rehearse(names, vectors[moved]) if isinstance(self.store, StoreAdapter) else None
        if rehearsed is not None:
            found = self._search(rehearsed, queries, depth)
            return _ids_of(found) if _any_missed(found, exact, depth) else None
        return self._estimate(queries, vectors, moved, exact, depth)

    def _estimate(
        self, queries: FloatArray, vectors: FloatArray, moved: BoolArray, exact: Sequence[Ranking], depth: int
    ) -> list[list[str]] | None:
        """Leave out of the exact rankings what the index is seen to miss."""
        # Of what an index leaves out since it gives so many nodes and no more, nothing is known.
        width = self.store.default_width() if isinstance(self.store, StoreAdapter) else None
        lists = [(k, self._ask(queries, k)) for k in (depth, min(REACH, width or REACH))]
        row_of = {node_id: row for row, node_id in enumerate(self.ids)}
        around = _Surroundings({}, {})
        answers: list[list[str]] = [[] for _ in exact]
        looked_at = [0] * len(exact)
        # Nodes further down only take the places of missed ones: their neighbours are looked for if they are wanted.
        while unfinished := [
            row for row, ranking in enumerate(exact) if len(answers[row]) < depth and looked_at[row] < len(ranking.ids)
        ]:
            parts = {row: slice(looked_at[row], looked_at[row] + depth - len(answers[row])) for row in unfinished}
            candidates = {node_id for row, part in parts.items() for node_id in exact[row].ids[part]}
            places = {node_id: row_of[node_id] for node_id in sorted(candidates) if node_id in row_of}
            self._look_around(around, {name: vectors[row] for name, row in places.items() if moved[row]}, row_of)
            for row, part in parts.items():
                shown = [(k, found[row]) for k, found in lists]
                ranking = Ranking(exact[row].ids[part], exact[row].scores[part])
                answers[row] += self._keep_found(queries[row], ranking, around, shown)
                looked_at[row] = part.stop
        same = all(kept == list(ranking.ids[:depth]) for kept, ranking in zip(answers, exact, strict=True))
        self.has_estimated = self.has_estimated or not same
        return None if same else answers

    def _keep_found(
        self, query: FloatArray, ranking: Ranking, around: _Surroundings, shown: Sequence[tuple[int, Ranking]]
    ) -> list[str]:
        """Of the nodes of a ranking those that the index finds, as far as what it has shown for the query tells."""
        witnesses = [around.neighbours.get(node_id, [node_id]) for node_id in ranking.ids]
        scores = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
        names = dict.fromkeys(name for near in witnesses for name in near if name in around.vectors)
        scores |= self._score(query, {name: around.vectors[name] for name in names})
        return [
            node_id
            for node_id, near in zip(ranking.ids, witnesses, strict=True)
            if not _mostly_missed(shown, [(name, scores[name]) for name in near])
        ]

    def _look_around(self, around: _Surroundings, places: Mapping[str, FloatArray], row_of: Mapping[str, int]) -> None:
        """Add the neighbours of where nodes move, and their vectors: only of nodes that cannot move these are read."""
        new = self._neighbours({name: place for name, place in places.items() if name not in around.neighbours})
        around.neighbours.update(new)
        names = sorted({name for near in new.values() for name in near}.difference(around.vectors))
        around.vectors.update({name: self.stored[row_of[name]] for name in names if name in row_of})
        others = [name for name in names if name not in row_of]
        around.vectors.update(zip(others, self._read(others), strict=True))

    def _neighbours(self, places: Mapping[str, FloatArray]) -> dict[str, list[str]]:
        """The stored nodes that the index finds nearest to where each node moves, itself left out."""
        if not places:
            return {}
        found = self._search(self.store, np.stack(list(places.values())), NEIGHBOURS + 1)
        return {
            node_id: [name for name in ranking.ids if name != node_id][:NEIGHBOURS]
            for node_id, ranking in zip(places, found, strict=True)
        }

    def _score(self, query: FloatArray, rows: Mapping[str, FloatArray]) -> dict[str, float]:
        if not rows:
            return {}
        scores = score_matrix(query[None, :], np.stack(list(rows.values())), self.store.capabilities.similarity)[0]
        return dict(zip(rows, scores.tolist(), strict=True))

    def _read(self, ids: list[str]) -> FloatArray:
        if not ids:
            return self.stored[:0]
        self.vectors_read += len(ids)
        with reading(self.store, "neighbours of moved nodes were read"):
            return self.store.read(ids)

    def _ask(self, queries: FloatArray, k: int) -> list[Ranking]:
        """Ask the store as it is, unless it has answered these queries before."""
        asked, found = self._answered.get(k, (None, []))
        if asked is None or not np.array_equal(asked, queries):
            found = self._search(self.store, queries, k)
            self._answered[k] = queries, found
        return found

    def _search(self, store: EmbeddingStore, queries: FloatArray, k: int) -> list[Ranking]:
        with reading(store, f"searching the nearest nodes of {len(queries)} queries"):
            found = (
                store.search_with_defaults(queries, k) if isinstance(store, StoreAdapter) else store.search(queries, k)
            )
        if len(found.ids) != len(queries) or len(found.scores) != len(queries):
            raise StoreError(f"{store.name} returned {len(found.ids)} lists of neighbours for {len(queries)} queries")
        return [
            Ranking(ids, np.asarray(scores, dtype=np.float64))
            for ids, scores in zip(found.ids, found.scores, strict=True)
        ]


def _any_missed(found: Sequence[Ranking], exact: Sequence[Ranking], depth: int) -> bool:
    """Whether an exact list holds a node among its best that belongs in the store's list and is not there."""
    return any(
        answer.misses(node_id, score, min(depth, len(best.ids)))
        for answer, best in zip(found, exact, strict=True)
        for node_id, score in zip(best.ids[:depth], best.scores[:depth].tolist(), strict=True)
    )


def _mostly_missed(lists: Sequence[tuple[int, Ranking]], witnesses: Sequence[tuple[str, float]]) -> bool:
    """Whether more of the witnesses are missed than found; one that belongs to no list says nothing."""
    votes = 0
    for name, score in witnesses:
        verdicts = (ranking.misses(name, score, wanted) for wanted, ranking in lists)
        verdict = next((missed for missed in verdicts if missed is not None), None)
        votes += 0 if verdict is None else 1 if verdict else -1
    return votes > 0


def _ids_of(rankings: Sequence[Ranking]) -> list[list[str]]:
    return [list(ranking.ids) for ranking in rankings]
