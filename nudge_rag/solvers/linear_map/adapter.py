"""A linear map of queries, learned from labels: it reaches the nodes that nobody labelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import BoolArray, FloatArray, as_matrix, row_blocks, row_norms, rows_in_cache
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike

__all__ = ["MappedBlocks", "QueryAdapter", "map_labels", "usable_rows", "without_scores"]


NODES_PER_BLOCK = 5_000


@dataclass(frozen=True, eq=False)
class QueryAdapter:
    """Map query embeddings before they are searched: q' = |q| (I + B) q / |(I + B) q|.

    Every query passes through it, so that a label helps the nodes that nobody labelled too. Lengths stay as they are:
    a unit query stays one.

    Attributes:
        change: (d, d) B; zero maps every query to itself.

    Raises:
        ValueError: ``change`` is not a square matrix of finite numbers.

    Example:
        >>> adapter = QueryAdapter(np.array([[0.0, 1.0], [0.0, 0.0]]))
        >>> adapter([[0.0, 1.0]]).round(4).tolist()
        [[0.7071, 0.7071]]
    """

    change: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        change = as_matrix(self.change, "adapter")
        if change.shape[0] != change.shape[1]:
            raise ValueError(f"adapter must be a square matrix, got shape {change.shape}")
        if not np.isfinite(change).all():
            raise ValueError("adapter holds NaN or infinite values")
        object.__setattr__(self, "change", change)

    @property
    def dimension(self) -> int:
        """The dimension of the queries that it takes."""
        return int(self.change.shape[0])

    def __call__(self, queries: ArrayLike) -> FloatArray:
        """Map queries (m, d); their dtype is kept.

        Raises:
            ValueError: another dimension than the adapter's; a zero or non-finite query, by its row.
        """
        return self._mapped(queries, "query embeddings", self.change.T)

    def apply_to_nodes(self, vectors: ArrayLike) -> FloatArray:
        """Map nodes instead: v' = |v| (I + B^T) v / |(I + B^T) v|, since ((I + B) q).v = q.((I + B^T) v).

        Raises:
            ValueError: as for queries.
        """
        return self._mapped(vectors, "node embeddings", self.change)

    def apply_to_usable(self, vectors: FloatArray) -> FloatArray:
        """As `apply_to_nodes`, of nodes as a store holds them: zero and non-finite vectors stay as they are."""
        usable = usable_rows(vectors)
        mapped = np.array(vectors)
        if usable.any():
            mapped[usable] = self.apply_to_nodes(vectors[usable])
        return mapped

    def _mapped(self, rows: ArrayLike, name: str, change: FloatArray) -> FloatArray:
        given = as_matrix(rows, name)
        if given.shape[1] != self.dimension:
            raise ValueError(f"{name} have dimension {given.shape[1]}, the adapter takes {self.dimension}")
        mapped = np.empty_like(given)
        # A part at a time: of many rows, float64 copies would be larger than all else that is held.
        for part in row_blocks(len(given), rows_in_cache(self.dimension)):
            norms = row_norms(given[part], name, first_row=part.start)
            moved = np.asarray(given[part] + given[part] @ change, dtype=np.float64)
            lengths = np.linalg.norm(moved, axis=1)
            # A query that the map sends to zero has no direction left: it stays.
            lost = ~(lengths > np.finfo(np.float32).tiny)
            moved *= (norms / np.where(lost, 1.0, lengths))[:, None]
            mapped[part] = np.where(lost[:, None], given[part], moved)
        return mapped


@dataclass(frozen=True, eq=False)
class MappedBlocks:
    """Nodes that are mapped a block at a time, as often as they are gone over: the mapped ones are never all held.

    Attributes:
        nodes: an array (b, d), or blocks of one.
        adapter: the map.

    Example:
        >>> swap = QueryAdapter(np.array([[-1.0, 1.0], [1.0, -1.0]]))
        >>> [block.tolist() for block in MappedBlocks([np.array([[0.0, 2.0]])], swap)]
        [[[2.0, 0.0]]]
    """

    nodes: Any
    adapter: QueryAdapter

    def __iter__(self) -> Iterator[FloatArray]:
        rows = self.nodes
        parts = range(0, len(rows), NODES_PER_BLOCK) if isinstance(rows, np.ndarray) else None
        blocks = rows if parts is None else (rows[first : first + NODES_PER_BLOCK] for first in parts)
        return (self.adapter.apply_to_nodes(block) for block in blocks)


def usable_rows(vectors: FloatArray) -> BoolArray:
    """Whether each row has a direction that a map can turn: it is neither zero nor holds NaN or infinite values."""
    return np.asarray(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))


def map_labels(labels: LabelsLike, adapter: QueryAdapter) -> LabeledQueries:
    """The labels with their queries mapped; scores that they bring along are of the unmapped ones and left out."""
    given = without_scores(labels)
    vectors = np.asarray(given.vectors)
    return replace(given, vectors=adapter(vectors) if len(vectors) else vectors)


def without_scores(labels: LabelsLike) -> LabeledQueries:
    """The labels without the scores that they bring along, which are of nodes and queries that no map has moved."""
    given = labels if isinstance(labels, LabeledQueries) else LabeledQueries(*labels)
    return replace(given, competitors=None)
