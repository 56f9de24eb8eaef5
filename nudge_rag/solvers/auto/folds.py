"""Cut labels into folds of nodes, each of which is treated as if nobody had labelled it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray, IntArray
from nudge_rag.solvers.labels import LabeledQueries, PreparedLabels

__all__ = ["Fold", "FoldPlan", "divide_labels", "take_enough"]

# A fold's solution lacks the fold's labels: with three folds it loses far more than the final one, with ten hardly.
FOLDS = 10
# Of more queries in a fold a sample is judged, always the same.
MOST_JUDGED = 4_000


@dataclass(frozen=True)
class FoldPlan:
    """How labels are cut into folds.

    Attributes:
        count: number of folds; None: `FOLDS`.
        enough_nodes: folds are left out as soon as so many nodes are held out; None: none are.
        covered_too: whether a part of the other queries is held out of each fold as well.
        seed: of the draws.
    """

    count: int | None = None
    enough_nodes: int | None = None
    covered_too: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Fold:
    """One fold's labels.

    Attributes:
        train: what its solution learns from.
        held: queries of its nodes, with their answers among these alone.
        ignored: (queries, rows) arrays, their other answers, which do not compete.
        nodes: of each held query, the node that it was put into the fold by.
        rows: of the nodes that its training labels move.
        covered: queries that are held out although their nodes have labels.
    """

    train: LabeledQueries
    held: PreparedLabels
    ignored: tuple[IntArray, IntArray]
    nodes: IntArray
    rows: IntArray
    covered: PreparedLabels


def divide_labels(
    labels: PreparedLabels, n_nodes: int, seed: int, count: int | None = None, *, covered_too: bool = False
) -> Iterator[Fold]:
    """Divide the labelled nodes into ``count`` folds at random, and the queries by one of their answers each.

    Args:
        labels: all of them.
        n_nodes: of all nodes, labelled or not.
        seed: of the draws.
        count: None: `FOLDS`.
        covered_too: whether a part of the other queries is held out of each fold as well.
    """
    rng, count = np.random.default_rng(seed), count or FOLDS
    known = np.unique(labels.node_of_pair)
    fold_of_node = np.full(n_nodes, -1)
    fold_of_node[rng.permutation(known)] = np.arange(len(known)) % count
    order = np.lexsort((rng.random(len(labels.query_of_pair)), labels.query_of_pair))
    first = order[np.searchsorted(labels.query_of_pair, np.arange(labels.n_queries))]
    node_of_query = labels.node_of_pair[first]
    fold_of_query = fold_of_node[node_of_query]
    # Queries that are held out although their nodes are not: another fold than their node's.
    # Those that are asked again go together, or their fold's solution would have learned the answer.
    fold_of_covered = np.full(labels.n_queries, -1)
    if covered_too:
        fold_of_covered = rng.integers(count, size=labels.n_queries)[_first_of_same(labels.vectors)]
    for number in range(min(count, len(known))):
        here = fold_of_query[labels.query_of_pair] == number
        inside = fold_of_node[labels.node_of_pair] == number
        aside = ~here & (fold_of_covered == number)[labels.query_of_pair]
        train, held = ~here & ~inside & ~aside, here & inside
        if not train.any() or not held.any():
            continue
        queries = np.flatnonzero(fold_of_query == number)
        if len(queries) > MOST_JUDGED:
            queries = np.sort(rng.permutation(queries)[:MOST_JUDGED])
            here &= np.isin(labels.query_of_pair, queries)
            held = here & inside
        position = _positions(queries, labels.n_queries)
        others = here & ~inside
        rows = np.unique(labels.node_of_pair[train])
        yield Fold(
            _as_labels(labels, train, fold_of_node != number),
            _part(labels, queries, position, held),
            (position[labels.query_of_pair[others]], labels.node_of_pair[others]),
            node_of_query[queries],
            rows,
            _known(labels, aside & ~inside, rows),
        )


def _first_of_same(vectors: FloatArray) -> IntArray:
    """Of each row the first one that is the same.

    Example:
        >>> _first_of_same(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).tolist()
        [0, 1, 0]
    """
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(vector.tobytes(), row) for row, vector in enumerate(vectors)], dtype=np.int64)


def _positions(queries: IntArray, n_queries: int) -> IntArray:
    """Of every query its place among ``queries``, -1 if it is not there."""
    position = np.full(n_queries, -1)
    position[queries] = np.arange(len(queries))
    return position


def _known(labels: PreparedLabels, pairs: BoolArray, rows: IntArray) -> PreparedLabels:
    """The queries of ``pairs`` that have an answer among the labelled ``rows``, with all answers of theirs."""
    queries = np.unique(labels.query_of_pair[pairs & np.isin(labels.node_of_pair, rows)])
    return _part(labels, queries, _positions(queries, labels.n_queries), pairs & np.isin(labels.query_of_pair, queries))


def _as_labels(labels: PreparedLabels, pairs: BoolArray, known: BoolArray) -> LabeledQueries:
    """The queries of ``pairs``, with these answers and with their rejections of ``known`` nodes."""
    queries = np.unique(labels.query_of_pair[pairs])
    rejected = labels.rejected
    kept = np.isin(rejected.query_of_pair, queries) & known[rejected.node_of_pair]
    of_pair = np.concatenate([labels.query_of_pair[pairs], rejected.query_of_pair[kept]])
    nodes = np.concatenate([labels.node_of_pair[pairs], rejected.node_of_pair[kept]])
    grades = np.concatenate([labels.grades[pairs], -rejected.weights[kept]])
    order = np.argsort(of_pair, kind="stable")
    begins = np.searchsorted(of_pair[order], queries)
    return LabeledQueries(
        labels.vectors[queries],
        [part.tolist() for part in np.split(nodes[order], begins[1:])],
        [part.tolist() for part in np.split(grades[order], begins[1:])],
        None if labels.competitors is None else labels.competitors[queries],
    )


def _part(labels: PreparedLabels, queries: IntArray, position: IntArray, pairs: BoolArray) -> PreparedLabels:
    return PreparedLabels(
        labels.vectors[queries],
        position[labels.query_of_pair[pairs]],
        labels.node_of_pair[pairs],
        labels.grades[pairs],
        0,
        None if labels.competitors is None else labels.competitors[queries],
    )


def take_enough(folds: Iterable[Fold], nodes: int | None) -> Iterator[Fold]:
    """Yield the first folds, until so many nodes are held out; None: all."""
    held = 0
    for fold in folds:
        yield fold
        held += len(np.unique(fold.nodes))
        if nodes is not None and held >= nodes:
            return
