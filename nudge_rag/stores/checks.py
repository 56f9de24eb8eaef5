"""Argument checks shared by the adapters, and helpers to shape their results."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.arrays import Float64Array, FloatArray, as_matrix, check_finite
from nudge_rag.common.caller import warn_caller

__all__ = [
    "at_unit_length",
    "check_batch_size",
    "check_ids",
    "check_k",
    "check_label",
    "check_queries",
    "check_replacement",
    "check_synchronous",
    "chunks",
    "encodable",
    "ungrouped",
    "warn_experimental",
]


def check_ids(ids: Sequence[str]) -> list[str]:
    """``ids`` as a list; TypeError if one is not a string or all of them are one string."""
    if isinstance(ids, str):
        raise TypeError(f"ids must be a sequence of strings, got the single string {ids!r}")
    for node_id in ids:
        if not isinstance(node_id, str):
            raise TypeError(f"node ids are strings, got {node_id!r}")
    return list(ids)


def encodable(ids: Sequence[str]) -> list[str]:
    """Return those of ``ids`` that can be encoded as UTF-8: no database holds others.

    Example:
        >>> encodable(["a", chr(0xD800), "b"])
        ['a', 'b']
    """
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        return [node_id for node_id in ids if node_id == node_id.encode(errors="ignore").decode()]
    return list(ids)


def check_replacement(
    ids: Sequence[str], vectors: ArrayLike, *, dimension: int | None, dtype: str
) -> tuple[list[str], FloatArray]:
    """Ids and vectors fit to be written: distinct, as many, of the store's dimension, finite in its dtype."""
    names = check_ids(ids)
    if len(set(names)) != len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"id {twice!r} is given more than once: each node has one vector")
    rows = as_matrix(vectors, "vectors") if len(names) else np.zeros((0, dimension or 0))
    if len(rows) != len(names) or len(np.asarray(vectors)) != len(names):
        raise ValueError(f"{len(names)} ids but {len(np.asarray(vectors))} vectors")
    if dimension is not None and rows.shape[1] != dimension:
        raise ValueError(f"vectors have dimension {rows.shape[1]}, the store has {dimension}")
    with np.errstate(over="ignore"):
        rows = np.asarray(rows, dtype=np.dtype(dtype))
    check_finite(rows, "vectors")
    return names, rows


def check_k(k: Any) -> None:
    """Refuse a number of nodes that is no positive integer."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}")


def check_queries(queries: ArrayLike, k: int, *, dimension: int | None) -> FloatArray:
    """Query embeddings (m, d) fit to be searched with."""
    check_k(k)
    rows = as_matrix(queries, "queries")
    if dimension is not None and rows.shape[1] != dimension:
        raise ValueError(f"queries have dimension {rows.shape[1]}, the store has {dimension}")
    check_finite(rows, "queries")
    return rows


def check_label(label: Any) -> str:
    """A label fit to be part of a name in any database."""
    if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,24}", label):
        raise ValueError(f"a label is 1 to 24 letters, digits and underscores, got {label!r}")
    return label


def check_batch_size(batch_size: Any) -> int:
    """A positive integer."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    return batch_size


def chunks(items: list[str], size: int) -> Iterator[list[str]]:
    """``items`` in parts of at most ``size``."""
    return (items[at : at + size] for at in range(0, len(items), size))


def ungrouped(
    query: np.ndarray[Any, Any], ids: Sequence[str], scores: np.ndarray[Any, Any], n_queries: int, k: int
) -> tuple[list[list[str]], list[Float64Array]]:
    """Rows (query, id, score) of a batch search as one list per query, best first, at most k.

    Example:
        >>> ungrouped(np.array([1, 0, 1]), ["a", "b", "c"], np.array([0.2, 0.5, 0.9]), 2, 5)[0]
        [['b'], ['c', 'a']]
    """
    order = np.lexsort((-scores, query))
    bounds = np.searchsorted(query[order], np.arange(n_queries + 1))
    lists = [order[start:stop][:k] for start, stop in itertools.pairwise(bounds)]
    return [[ids[at] for at in part] for part in lists], [scores[part].astype(np.float64) for part in lists]


def at_unit_length(vectors: FloatArray) -> FloatArray:
    """Rows (n, d) divided by their lengths, float32; zeros stay zeros."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: FloatArray = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0).astype(np.float32)
    return scaled


def check_synchronous(client: Any, expected: str) -> None:
    """TypeError if ``client`` is asynchronous, which its class says; the methods themselves may not."""
    if any("async" in base.__name__.lower() for base in type(client).__mro__):
        raise TypeError(f"expected a synchronous {expected}, got {type(client).__name__}")


def warn_experimental(database: str) -> None:
    """Warn the caller who opens a store whose adapter no real database has ever answered."""
    warn_caller(
        f"the {database} adapter is experimental: its calls were checked against the client and the documented API, not"
        f" against a running {database}; try it on a copy of your data first",
        UserWarning,
    )
