"""What Chroma's cosine spaces do to a vector, and how to write one so that it reads back bit for bit.

A cosine space keeps x / |x| and |x| apart, in float32, and multiplies them again when it is read. The result is
f(x) = (x * (1 / L)) * L with L = sqrt(sum of x_i^2), the sum taken one term after another. f is not the identity, and
not idempotent either: a vector that was read and is written back can come out different in its last bits. To restore
a vector that was read, a vector that f maps to it has to be written. Measured on chromadb 1.5; a push
reads back every vector that it wrote.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, Float32Array

__all__ = ["read_back", "space_of", "written_to_read_back"]

VALUE_ULPS = range(-3, 4)
# Nearest lengths first; below 1 the units are half as wide, so that more of them are in reach.
LENGTH_ULPS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8)
MIXTURES = 300
ROWS_PER_CHUNK = 1_000
# Of few rows many mixtures are tried in one step.
NUMBERS_AT_ONCE = 100_000


def space_of(collection: Any) -> str:
    """The name of the space that a collection ranks in: ``cosine``, ``ip`` or ``l2``."""
    configuration = collection.configuration
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    return str(index.get("space") or "l2")


def read_back(vectors: Float32Array) -> Float32Array:
    """f(x) for each row of ``vectors`` (n, d): what a cosine space gives back.

    Example:
        >>> read_back(np.array([[3, 4]], dtype=np.float32))
        array([[3., 4.]], dtype=float32)
    """
    lengths = _lengths(vectors)
    inverse = np.divide(np.float32(1), lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return (vectors * inverse) * lengths


def written_to_read_back(vectors: Float32Array) -> Float32Array:
    """For each row r, find an x with f(x) = r. If there is none (r never came out of a cosine space), return r.

    For every float length near |r|, each coordinate has one or a few floats that come back as r_i; mixtures of the
    smallest and the largest of them are tried until one has that very length.

    Example:
        >>> read = read_back(np.array([[0.1, 0.7, 0.4]], dtype=np.float32))
        >>> bool((read_back(written_to_read_back(read)) == read).all())
        True
    """
    written = np.array(vectors)
    todo = np.flatnonzero((read_back(vectors) != vectors).any(axis=1))
    for first in range(0, len(todo), ROWS_PER_CHUNK):
        rows = todo[first : first + ROWS_PER_CHUNK]
        for ulps in LENGTH_ULPS:
            found, candidates = _with_length(vectors[rows], _shifted(_lengths(vectors[rows]), ulps))
            written[rows[found]] = candidates[found]
            rows = rows[~found]
            if not len(rows):
                break
    return written


def _with_length(wanted: Float32Array, lengths: Float32Array) -> tuple[BoolArray, Float32Array]:
    """Rows of ``wanted`` for which an x of just these lengths was found, and those x."""
    inverse = np.float32(1) / lengths
    small, large = np.full_like(wanted, np.nan), np.full_like(wanted, np.nan)
    for ulps in VALUE_ULPS:
        candidate = _shifted(wanted, ulps)
        fits = (candidate * inverse) * lengths == wanted
        small = np.where(fits & np.isnan(small), candidate, small)
        large = np.where(fits, candidate, large)
    found = np.zeros(len(wanted), dtype=bool)
    best = np.array(wanted)
    is_large = np.random.default_rng(0).random((MIXTURES, wanted.shape[1])) < np.linspace(0, 1, MIXTURES)[:, None]
    first = 0
    while first < MIXTURES and not found.all():
        open_rows = np.flatnonzero(~found)
        tried = is_large[first : first + max(1, NUMBERS_AT_ONCE // small[open_rows].size)]
        first += len(tried)
        mixtures = np.where(tried, large[open_rows, None], small[open_rows, None])
        # A NaN, if no float fits, equals nothing.
        hits = _lengths(mixtures)[..., 0] == lengths[open_rows]
        rows = np.flatnonzero(hits.any(axis=1))
        best[open_rows[rows]] = mixtures[rows, hits[rows].argmax(axis=1)]
        found[open_rows[rows]] = True
    return found, best


def _lengths(vectors: Float32Array) -> Float32Array:
    """Float32 lengths (..., 1) with the squares summed one after another, as Chroma does: cumsum keeps that order."""
    squares = np.cumsum(vectors * vectors, axis=-1, dtype=np.float32)[..., -1:]
    return np.sqrt(squares)


def _shifted(values: Float32Array, ulps: int) -> Float32Array:
    """Each value moved by so many units in the last place, away from zero if positive."""
    bits = np.ascontiguousarray(values).view(np.int32)
    return np.where(values == 0, values, (bits + np.int32(ulps)).view(np.float32))
