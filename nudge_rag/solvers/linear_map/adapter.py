"""A linear map of queries, learned from labels: it reaches the nodes that nobody labelled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import FloatArray, as_matrix, row_norms
from nudge_rag.solvers.labels import LabeledQueries, LabelsLike

__all__ = ["QueryAdapter", "map_labels"]


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

    def _mapped(self, rows: ArrayLike, name: str, change: FloatArray) -> FloatArray:
        given = as_matrix(rows, name)
        if given.shape[1] != self.dimension:
            raise ValueError(f"{name} have dimension {given.shape[1]}, the adapter takes {self.dimension}")
        norms = row_norms(given, name)
        moved = np.asarray(given + given @ change, dtype=np.float64)
        lengths = np.linalg.norm(moved, axis=1)
        # A query that the map sends to zero has no direction left: it stays.
        lost = ~(lengths > np.finfo(np.float32).tiny)
        scale = norms / np.where(lost, 1.0, lengths)
        mapped: Any = np.where(lost[:, None], given, moved * scale[:, None])
        return np.asarray(mapped, dtype=given.dtype)


def map_labels(labels: LabelsLike, adapter: QueryAdapter) -> LabeledQueries:
    """The labels with their queries mapped; scores that they bring along are of the unmapped ones and left out."""
    given = labels if isinstance(labels, LabeledQueries) else LabeledQueries(*labels)
    vectors = np.asarray(given.vectors)
    return replace(given, vectors=adapter(vectors) if len(vectors) else vectors, competitors=None)
