"""Labelled queries as arrays: what a solver learns from and validates on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, as_matrix, row_norms
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.deprecation import renamed_argument, warn_renamed
from nudge_rag.solvers.devices import is_foreign, to_numpy

__all__ = [
    "LabeledQueries",
    "LabelsLike",
    "PreparedLabels",
    "QuerySums",
    "RejectedPairs",
    "join_labels",
    "prepare_labels",
    "sample_labels",
]


@dataclass(frozen=True)
class LabeledQueries:
    """Query embeddings and, for each, the rows of the node embeddings that answer it.

    Attributes:
        vectors: (m, d) query embeddings of any length; a solver counts each query once, however long.
        answers: m sequences of row indices; a row named twice counts once, an empty sequence is left out and counted.
        grades: relevance of each answer, same nesting as ``answers``; 1 if absent, 0 or less is no answer. Below 0
            it is a rejection (a thumbs-down), which `NudgeContrastive` learns from and the other solvers leave aside.
        competitors: (m, r) scores of the best nodes that are not among the node embeddings that a solver is given, such
            as those that a store's search finds; -inf if there are fewer than r. cosine and dot: of the query at unit
            length; l2: minus the squared distance. They compete in validation, at least as deep as its metric looks.

    Example:
        >>> import numpy as np
        >>> LabeledQueries(np.eye(2), [[0], [1, 2]]).answers
        [[0], [1, 2]]
    """

    vectors: ArrayLike
    answers: Sequence[Sequence[int]]
    grades: Sequence[Sequence[float]] | None = None
    competitors: ArrayLike | None = None

    @property
    def rivals(self) -> ArrayLike | None:
        """Deprecated name of ``competitors``."""
        warn_renamed("LabeledQueries.rivals", "competitors")
        return self.competitors


LabeledQueries.__init__ = renamed_argument("rivals", "competitors")(  # type: ignore[method-assign]
    LabeledQueries.__init__
)


@dataclass(frozen=True)
class QuerySums:
    """Training labels summed up: all that NUDGE-N and NUDGE-M need of them, and what can be kept up to date.

    Attributes:
        rows: (c,) increasing rows of the node embeddings that have a training query.
        sums: (c, d) float64, for each the sum of its unit training queries (`targets.summable_queries`).
        counts: (c,) how many queries that are.
    """

    rows: IntArray
    sums: Float64Array
    counts: IntArray


LabelsLike: TypeAlias = LabeledQueries | tuple[ArrayLike, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class RejectedPairs:
    """Nodes that a query was judged not to be answered by: (p,) each, ``weights`` are their grades without the sign."""

    query_of_pair: IntArray
    node_of_pair: IntArray
    weights: Float64Array


def _none_rejected() -> RejectedPairs:
    return RejectedPairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class PreparedLabels:
    """Checked labels: only queries with answers, pairs sorted by query then node, each pair once."""

    vectors: FloatArray
    query_of_pair: IntArray
    node_of_pair: IntArray
    grades: Float64Array
    without_answers: int
    competitors: Float64Array | None = None
    rejected: RejectedPairs = field(default_factory=_none_rejected)

    @property
    def n_queries(self) -> int:
        """Number of queries that have answers."""
        return int(self.vectors.shape[0])


def prepare_labels(
    labels: LabelsLike, name: str, *, n_nodes: int, dimension: int, dtype: np.dtype[Any]
) -> PreparedLabels:
    """Check ``labels`` and flatten them into (query, node, grade) pairs.

    Queries without answers are dropped, counted and warned about.

    Raises:
        TypeError: answers that are not integers.
        ValueError: shapes that do not agree, non-finite or zero query vectors (with the row), row indices that are
            negative or not below ``n_nodes``; competitors that are not one row of numbers per query.
    """
    if not isinstance(labels, LabeledQueries):
        labels = LabeledQueries(*labels)
    vectors = (
        as_matrix(_on_host(labels.vectors), f"{name} query embeddings")
        if len(labels.answers)
        else _no_vectors(labels, name)
    )
    if len(vectors) != len(labels.answers):
        raise ValueError(f"{name} has {len(vectors)} query embeddings but {len(labels.answers)} answer lists")
    if len(vectors) and vectors.shape[1] != dimension:
        raise ValueError(f"{name} query embeddings have dimension {vectors.shape[1]}, the nodes have {dimension}")
    row_norms(vectors, f"{name} query embeddings")
    competitors = _checked_competitors(labels, name)
    queries, nodes, grades = _flatten(labels, name, n_nodes)
    answers = grades > 0
    kept, query_of_pair = np.unique(queries[answers], return_inverse=True)
    without = len(vectors) - len(kept)
    if without:
        warn_caller(f"{without} of {len(vectors)} {name} queries have no answers: left out")
    return PreparedLabels(
        # A copy only if there are queries to leave out.
        np.ascontiguousarray(vectors[kept] if without else vectors, dtype=dtype),
        query_of_pair.astype(np.int64),
        nodes[answers],
        grades[answers],
        without,
        None if competitors is None else competitors[kept],
        _rejected(queries, nodes, grades, kept),
    )


def join_labels(first: LabelsLike, second: LabelsLike) -> LabeledQueries:
    """The queries of both, with what either brings along; competitors as deep as the shallower of the two.

    Example:
        >>> both = join_labels(([[1.0, 0.0]], [[0]]), LabeledQueries([[0.0, 1.0]], [[1, 2]], [[1.0, 0.5]]))
        >>> both.answers, both.grades
        ([[0], [1, 2]], [[1.0], [1.0, 0.5]])
    """
    parts = [part if isinstance(part, LabeledQueries) else LabeledQueries(*part) for part in (first, second)]
    parts = [part for part in parts if len(part.answers)] or parts[:1]
    grades = [part.grades or [[1.0] * len(rows) for rows in part.answers] for part in parts]
    competitors = [
        None if part.competitors is None else np.asarray(part.competitors, dtype=np.float64) for part in parts
    ]
    depth = min((table.shape[1] for table in competitors if table is not None), default=0)
    tables = [
        np.full((len(part.answers), depth), -np.inf) if table is None else -np.sort(-table, axis=1)[:, :depth]
        for part, table in zip(parts, competitors, strict=True)
    ]
    return LabeledQueries(
        np.concatenate([np.asarray(_on_host(part.vectors)) for part in parts]),
        [list(rows) for part in parts for rows in part.answers],
        [list(row) for part in grades for row in part],
        np.concatenate(tables) if depth else None,
    )


def sample_labels(labels: LabelsLike, size: int, seed: int = 0) -> LabeledQueries:
    """At most ``size`` of the queries, drawn at random, always the same for one seed; their order stays.

    Example:
        >>> few = sample_labels(([[1.0, 0.0], [0.0, 1.0]], [[0], [1]]), 1)
        >>> len(few.answers), sample_labels(few, 1) is few
        (1, True)
    """
    given = labels if isinstance(labels, LabeledQueries) else LabeledQueries(*labels)
    if len(given.answers) <= size:
        return given
    kept = np.sort(np.random.default_rng(seed).permutation(len(given.answers))[:size])
    return LabeledQueries(
        np.asarray(_on_host(given.vectors))[kept],
        [given.answers[row] for row in kept],
        None if given.grades is None else [given.grades[row] for row in kept],
        None if given.competitors is None else np.asarray(given.competitors)[kept],
    )


def _rejected(queries: IntArray, nodes: IntArray, grades: Float64Array, kept: IntArray) -> RejectedPairs:
    """The rejections by queries that have answers, numbered as those are."""
    here = (grades < 0) & np.isin(queries, kept)
    return RejectedPairs(np.searchsorted(kept, queries[here]), nodes[here], -grades[here])


def _on_host(vectors: Any) -> ArrayLike:
    return to_numpy(vectors) if is_foreign(vectors) else vectors


def _checked_competitors(labels: LabeledQueries, name: str) -> Float64Array | None:
    if labels.competitors is None:
        return None
    competitors = np.asarray(labels.competitors, dtype=np.float64)
    if competitors.ndim != 2 or len(competitors) != len(labels.answers):
        raise ValueError(f"{name} competitors must be (queries, r) scores, got shape {competitors.shape}")
    if np.isnan(competitors).any() or (competitors == np.inf).any():
        raise ValueError(f"{name} competitors hold NaN or infinite scores (-inf alone stands for a missing node)")
    return competitors


def _no_vectors(labels: LabeledQueries, name: str) -> FloatArray:
    """An empty list of queries has no dimension of its own: (0,) and (0, d) are both accepted."""
    if np.size(labels.vectors):
        raise ValueError(f"{name} has {len(np.asarray(labels.vectors))} query embeddings but 0 answer lists")
    return np.zeros((0, 0), dtype=np.float32)


def _flatten(labels: LabeledQueries, name: str, n_nodes: int) -> tuple[IntArray, IntArray, Float64Array]:
    nodes = _concatenate_rows(labels.answers, name)
    lengths = [len(answers) for answers in labels.answers]
    queries = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    bad = (nodes < 0) | (nodes >= n_nodes)
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{name} query {queries[first]} names node {nodes[first]}: rows must be in 0..{n_nodes - 1}"
            f" ({int(bad.sum())} such label(s))"
        )
    grades = _concatenate_grades(labels.grades, lengths, name)
    # Best grade first, so that the first of each repeated pair is the one to keep.
    order = np.lexsort((-grades, nodes, queries))
    queries, nodes, grades = queries[order], nodes[order], grades[order]
    first_of_pair = np.ones(len(queries), dtype=bool)
    first_of_pair[1:] = (np.diff(queries) != 0) | (np.diff(nodes) != 0)
    return queries[first_of_pair], nodes[first_of_pair], grades[first_of_pair]


def _concatenate_rows(answers: Sequence[Sequence[int]], name: str) -> IntArray:
    try:
        flat = list(itertools.chain.from_iterable(answers))
    except TypeError:
        flat = []
    if flat and all(kind is int or issubclass(kind, np.integer) for kind in set(map(type, flat))):
        return np.array(flat, dtype=np.int64)
    # Empty, or something is not an integer: find out what.
    parts: list[IntArray] = []
    for query, rows in enumerate(answers):
        part = np.asarray(rows)
        if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
            raise TypeError(f"{name} answers of query {query} must be a sequence of integer row indices, got {rows!r}")
        parts.append(part.astype(np.int64))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _concatenate_grades(grades: Sequence[Sequence[float]] | None, lengths: list[int], name: str) -> Float64Array:
    if grades is None:
        return np.ones(sum(lengths), dtype=np.float64)
    if [len(part) for part in grades] != lengths:
        raise ValueError(f"{name} grades must be nested like its answers")
    flat = np.asarray([grade for part in grades for grade in part], dtype=np.float64)
    if not np.isfinite(flat).all():
        raise ValueError(f"{name} grades hold NaN or infinite values")
    return flat
