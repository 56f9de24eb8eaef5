"""The arrays of a version as they are stored: rows that another array holds already are not written again.

A version that may be undone by itself is whole: ``originals`` and ``after``, and of ``before`` the rows that differ
from the nearer of the two. A superseded version is a difference to the next newer one, its base: the base's
``originals`` and ``before`` are this one's ``originals`` and ``after``, but for the rows that are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.journal.manifest import ARRAY_NAMES, wrong_array

__all__ = ["Vectors", "decode", "encode"]

Array = np.ndarray[Any, np.dtype[Any]]
BEFORE_LIKE = "before_like"


@dataclass(frozen=True)
class Vectors:
    """Of each node of a push: its original vector, the one that was there before, and the one written.

    Attributes:
        originals: (n, d) before any nudge.
        before: (n, d) the vectors that the push found.
        after: (n, d) the vectors that it wrote.
    """

    originals: FloatArray
    before: FloatArray
    after: FloatArray


def encode(
    ids: Sequence[str], vectors: Vectors, base: tuple[Sequence[str], Vectors] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Fields for the manifest, and arrays, from which `decode` makes ``vectors`` again, bit for bit.

    Args:
        ids: node ids of the rows.
        vectors: those to store.
        base: ids and vectors of the next newer version, if that is to be built on.
    """
    if base is None:
        differing = {like: _differing(vectors.before, getattr(vectors, like)) for like in ("after", "originals")}
        like = min(differing, key=lambda name: len(differing[name]))
        rows = differing[like]
        arrays = {"originals": vectors.originals, "after": vectors.after}
        return {BEFORE_LIKE: like}, arrays | {"before_rows": rows, "before_values": vectors.before[rows]}
    built = _built_on(ids, base)
    arrays = {}
    for name, reference in (("originals", built.originals), ("after", built.after), ("before", vectors.after)):
        rows = _differing(getattr(vectors, name), reference)
        arrays |= {f"{name}_rows": rows, f"{name}_values": getattr(vectors, name)[rows]}
    return {BEFORE_LIKE: "after"}, arrays


def decode(
    ids: Sequence[str],
    dimension: int,
    fields: Mapping[str, Any],
    arrays: Mapping[str, Array],
    base: tuple[Sequence[str], Vectors] | None = None,
) -> Vectors:
    """Return the vectors that `encode` was given.

    Raises:
        ValueError: an array is missing, or is not as it writes it; says which.
    """
    shape = (len(ids), dimension)
    if all(name in arrays for name in ARRAY_NAMES):  # as versions were written first
        return Vectors(*(_checked(arrays, name, shape) for name in ARRAY_NAMES))
    if base is None:
        originals, after = (_checked(arrays, name, shape) for name in ("originals", "after"))
    else:
        built = _built_on(ids, base)
        if built.after.shape != shape:
            raise ValueError(f"its base has dimension {built.after.shape[1]}, not {dimension}")
        originals, after = (_with_rows(arrays, name, getattr(built, name)) for name in ("originals", "after"))
    like = fields.get(BEFORE_LIKE)
    if like not in ("after", "originals"):
        raise ValueError(f"{BEFORE_LIKE} is {like!r}" if like is not None else "it has no array 'before'")
    return Vectors(originals, _with_rows(arrays, "before", after if like == "after" else originals), after)


def _built_on(ids: Sequence[str], base: tuple[Sequence[str], Vectors]) -> Vectors:
    """Look up ``ids`` in the base: its originals and the vectors it found; zeros for a node that it does not know."""
    names, newer = base
    row_of = {node_id: row for row, node_id in enumerate(names)}
    at = np.array([row_of.get(node_id, -1) for node_id in ids], dtype=np.int64)
    known = at >= 0
    parts = []
    for source in (newer.originals, newer.before):
        part = np.zeros((len(ids), newer.after.shape[1]), dtype=source.dtype)
        part[known] = source[at[known]]
        parts.append(part)
    return Vectors(parts[0], parts[1], parts[1])


def _differing(wanted: FloatArray, reference: FloatArray) -> Array:
    """Rows that are not the same bit for bit."""
    if wanted.dtype != reference.dtype or wanted.shape != reference.shape:
        return np.arange(len(wanted), dtype=np.int64)
    if not wanted.size:
        return np.zeros(0, dtype=np.int64)
    bits = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in (wanted, reference)]
    return np.flatnonzero((bits[0] != bits[1]).any(axis=1)).astype(np.int64)


def _checked(arrays: Mapping[str, Array], name: str, shape: tuple[int, int]) -> FloatArray:
    wrong = wrong_array(arrays, name, shape)
    if wrong is not None:
        raise ValueError(wrong)
    return arrays[name]


def _with_rows(arrays: Mapping[str, Array], name: str, reference: FloatArray) -> FloatArray:
    """``reference`` but for the rows that are written."""
    rows = arrays.get(f"{name}_rows")
    if rows is None or rows.dtype != np.int64 or rows.ndim != 1:
        raise ValueError(f"it has no array {name!r}")
    if len(rows) and (rows[0] < 0 or rows[-1] >= len(reference) or (np.diff(rows) <= 0).any()):
        raise ValueError(f"{name}_rows are not rows of {len(reference)} nodes, in order")
    values = _checked(arrays, f"{name}_values", (len(rows), reference.shape[1]))
    whole = reference.astype(values.dtype) if len(rows) else reference.copy()
    whole[rows] = values
    return whole
