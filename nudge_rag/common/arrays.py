"""Array types, checks and normalisation that every package uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.blas_threads import count_threads, map_in_threads

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Float32Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Float64Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

__all__ = ["BoolArray", "Float32Array", "Float64Array", "FloatArray", "IntArray"]
__all__ += ["as_matrix", "check_finite", "normalize_rows", "row_blocks", "row_norms", "rows_in_cache"]
__all__ += ["unit_rows"]

# Rows that are looked at together where float64 of all of them would be too much.
ROWS_AT_ONCE = 16_384
# So many numbers of them fit the processor's cache.
NUMBERS_IN_CACHE = 250_000
# A number that is read, divided in float64 and written takes as long as so many multiplications of a product.
DIVISION = 60


def as_matrix(values: ArrayLike, name: str) -> FloatArray:
    """Return ``values`` as a two-dimensional float32 or float64 array, without a copy if it is one already.

    Integers and half precision become float32.

    Args:
        values: (n, d) numbers.
        name: what the values are, for error messages.

    Raises:
        TypeError: ``values`` is not numeric.
        ValueError: it has another number of dimensions than two.

    Example:
        >>> as_matrix([[1, 2]], "embeddings").dtype
        dtype('float32')
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a numeric array, got dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions (rows, dimension), got shape {array.shape}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64 if array.dtype.itemsize > 4 and array.dtype.kind == "f" else np.float32)
    return array


def check_finite(rows: FloatArray, name: str, *, first_row: int = 0) -> None:
    """Check that no row holds NaN or infinity.

    Raises:
        ValueError: one does; the message names the first, counted from ``first_row``.
    """
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(f"{name} row {first_row + int(bad.argmax())} holds NaN or infinite values")


def row_norms(rows: FloatArray, name: str, *, first_row: int = 0) -> FloatArray:
    """Return the Euclidean norm of each row, (n,) float64.

    Raises:
        ValueError: a row is all zeros or not finite; the message names the first, counted from ``first_row``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares: FloatArray = np.einsum("ij,ij->i", rows, rows)
    if np.isfinite(squares).all() and (squares > np.finfo(squares.dtype).tiny).all():
        return np.asarray(np.sqrt(squares.astype(np.float64)))
    # Something is wrong, or too large or small to be squared in its own precision: look closely.
    check_finite(rows, name, first_row=first_row)
    norms: FloatArray = np.linalg.norm(rows.astype(np.float64, copy=False), axis=1)
    if (norms == 0).any():
        raise ValueError(f"{name} row {first_row + int((norms == 0).argmax())} is a zero vector: it has no direction")
    return norms


def normalize_rows(rows: FloatArray, name: str) -> FloatArray:
    """Divide rows by their norms, in the same dtype.

    Raises:
        ValueError: as `row_norms`.

    Example:
        >>> normalize_rows(np.array([[3.0, 4.0]]), "queries")
        array([[0.6, 0.8]])
    """
    units = np.empty(rows.shape, dtype=rows.dtype)
    step = rows_in_cache(rows.shape[1])

    def divide(first: int) -> None:
        part = rows[first : first + step]
        norms = row_norms(part, name, first_row=first)
        np.divide(part, norms[:, None], out=units[first : first + step], casting="same_kind")

    map_in_threads(divide, range(0, len(rows), step), count_threads(DIVISION * rows.size))
    return units


def rows_in_cache(dimension: int) -> int:
    """How many rows of so many numbers the processor's cache holds, with a copy of them in float64; at least one.

    Example:
        >>> rows_in_cache(1_000)
        250
    """
    return max(1, NUMBERS_IN_CACHE // max(1, dimension))


def row_blocks(count: int, size: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Slices of ``size`` rows, if nothing is said some thousands, that together are all ``count``.

    Example:
        >>> [(part.start, part.stop) for part in row_blocks(20_000)]
        [(0, 16384), (16384, 20000)]
    """
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def unit_rows(rows: FloatArray) -> FloatArray:
    """Rows (n, d), none of them zero, at unit length: computed in float64, returned in their own dtype.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0]], dtype=np.float32)).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    units = np.empty_like(rows)
    for part in row_blocks(len(rows), rows_in_cache(rows.shape[1])):
        units[part] = rows[part] / np.linalg.norm(rows[part].astype(np.float64), axis=1, keepdims=True)
    return units
