"""The checks that every solver starts with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray, as_matrix, row_norms
from nudge_rag.solvers.devices import as_device_matrix, is_foreign, numpy_dtype, on_device, take, to_numpy
from nudge_rag.solvers.labels import LabelsLike, PreparedLabels, QuerySums, prepare_labels
from nudge_rag.solvers.targets import covered_targets, unit_directions

__all__ = ["Problem", "check_gamma", "make_problem"]


@dataclass(frozen=True)
class Problem:
    """Checked input of a solver: labels, covered rows and their originals.

    ``embeddings`` may be an array of another library than numpy; everything else is numpy's.
    """

    embeddings: Any
    train: PreparedLabels | None
    val: PreparedLabels | None
    rows: IntArray
    originals: FloatArray
    summed: QuerySums | None = None

    @cached_property
    def targets(self) -> Float64Array:
        """The unit direction of the sum of each covered node's training queries, (c, d); zeros if they cancel out."""
        if self.summed is not None:
            return unit_directions(self.summed.sums, self.summed.counts)
        return np.zeros((0, 0)) if self.train is None else covered_targets(self.train)[1]

    def as_given(self, vectors: FloatArray) -> Any:
        """``vectors`` as an array of the library, and on the device, of the embeddings."""
        return on_device(vectors, self.embeddings) if is_foreign(self.embeddings) else vectors

    def without_answers(self) -> dict[str, Any]:
        """How many queries were left out of each part, as the result names them."""
        parts = {"train": self.train, "val": self.val}
        return {f"{name}_without_answers": 0 if part is None else part.without_answers for name, part in parts.items()}


def make_problem(
    embeddings: ArrayLike, train: LabelsLike | QuerySums, val: LabelsLike | None, *, needs_validation: bool
) -> Problem:
    """Check everything that a solver is given and read the covered rows.

    Raises:
        TypeError: as `prepare_labels`.
        ValueError: as `prepare_labels`; an empty training set; an empty validation set if ``needs_validation``; covered
            rows that are zero or not finite.
    """
    foreign = is_foreign(embeddings)
    nodes: Any = as_device_matrix(embeddings, "embeddings") if foreign else as_matrix(embeddings, "embeddings")
    dtype = numpy_dtype(nodes) if foreign else nodes.dtype
    size: dict[str, Any] = {"n_nodes": nodes.shape[0], "dimension": nodes.shape[1], "dtype": dtype}
    learned, summed = None, None
    if isinstance(train, QuerySums):
        summed = _checked_sums(train, nodes)
        rows = summed.rows
    else:
        learned = prepare_labels(train, "training", **size)
        rows = np.unique(learned.node_of_pair)
    if not len(rows):
        raise ValueError("the training set has no query with an answer: there is nothing to learn from")
    checked = None if val is None else prepare_labels(val, "validation", **size)
    if checked is not None and not checked.n_queries:
        checked = None
    if checked is None and needs_validation:
        raise ValueError(
            "the validation set has no query with an answer: gamma cannot be chosen (pass gamma= to fix it)"
        )
    originals: FloatArray = to_numpy(take(nodes, rows)) if foreign else np.asarray(nodes[rows])
    _check_covered(originals, rows)
    return Problem(nodes, learned, checked, rows, originals, summed)


def _checked_sums(train: QuerySums, nodes: Any) -> QuerySums:
    if train.sums.shape != (len(train.rows), nodes.shape[1]) or train.counts.shape != train.rows.shape:
        raise ValueError(
            f"training sums have shape {train.sums.shape} for {len(train.rows)} rows and dimension {nodes.shape[1]}"
        )
    return train


def _check_covered(originals: FloatArray, rows: IntArray) -> None:
    bad = ~np.isfinite(originals).all(axis=1) | ~originals.any(axis=1)
    if bad.any():
        position = int(bad.argmax())
        row_norms(originals[position : position + 1], "embeddings", first_row=int(rows[position]))


def check_gamma(gamma: float, name: str, highest: float) -> float:
    """``gamma`` as a float; ValueError if it is not in 0..highest."""
    value = float(gamma)
    if not 0 <= value <= highest:
        raise ValueError(f"{name} must be between 0 and {highest:g}, got {gamma!r}")
    return value
