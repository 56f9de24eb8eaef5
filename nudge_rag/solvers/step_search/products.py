"""Products of validation queries with the covered nodes, on the host or on the device of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.solvers.devices import is_foreign, namespace, numpy_dtype, on_device, to_numpy

__all__ = ["PathProducts", "ScorePairs", "entries_above"]

# Blocks of queries are chosen so that this many scores are held at once: about as many as the processor's cache holds,
# so that products with few queries are rare, which take several times as long a query; or enough to keep an accelerator
# busy.
SCORES_IN_CACHE = 2_000_000
SCORES_ON_DEVICE = 20_000_000


@dataclass(frozen=True)
class ScorePairs:
    """a = q.A_j and b = q.B_j of a block of queries (m) with the covered nodes (c); c_j is added to every score.

    Attributes:
        a: (m, c), on the device where it was computed.
        b: (m, c), likewise.
        bias: (c,).
    """

    a: Any
    b: Any
    bias: FloatArray

    def entries(self, rows: IntArray, columns: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return a and b of some (row, column) pairs, as numpy arrays."""
        if not is_foreign(self.a):
            return self.a[rows, columns], self.b[rows, columns]
        xp = namespace(self.a)
        flat = on_device(rows * self.a.shape[1] + columns, self.a)
        a, b = (to_numpy(xp.take(xp.reshape(part, (-1,)), flat)) for part in (self.a, self.b))
        return a, b

    def highest(self) -> Any:
        """An upper bound on a cos(t) + b sin(t) + c for every t, (m, c): sqrt(a^2 + b^2) + c."""
        if not is_foreign(self.a):
            return np.sqrt(self.a * self.a + self.b * self.b) + self.bias
        return namespace(self.a).sqrt(self.a * self.a + self.b * self.b) + on_device(self.bias, self.a)


def entries_above(scores: Any, rows: IntArray, levels: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs (which, column) with scores[rows[which], column] > levels[which], in order, as numpy arrays."""
    if not is_foreign(scores):
        # Mostly each query has one answer: then no row is copied.
        compared = scores if np.array_equal(rows, np.arange(len(scores))) else scores[rows]
        # Several times faster than a nonzero of two axes.
        above = np.flatnonzero(compared > levels[:, None])
        return np.divmod(above, scores.shape[1])
    xp = namespace(scores)
    chosen = xp.take(scores, on_device(rows, scores), axis=0)
    which, columns = xp.nonzero(chosen > on_device(levels.astype(numpy_dtype(scores)), scores)[:, None])
    return to_numpy(which), to_numpy(columns)


class PathProducts:
    """The matrices A and B of the covered nodes' paths, kept where the embeddings are.

    Args:
        starts: (c, d) A.
        tangents: (c, d) B.
        bias: (c,).
        dtype: of the products.
        like: the embeddings.
    """

    def __init__(
        self, starts: FloatArray, tangents: FloatArray, bias: FloatArray, dtype: np.dtype[Any], like: Any
    ) -> None:
        a, b = (np.ascontiguousarray(part, dtype=dtype).T for part in (starts, tangents))
        self._like = like if is_foreign(like) else None
        self._a: Any = a if self._like is None else on_device(a, like)
        self._b: Any = b if self._like is None else on_device(b, like)
        self._bias = bias.astype(dtype)
        self.scores_at_once = SCORES_IN_CACHE if self._like is None else SCORES_ON_DEVICE

    def of(self, queries: FloatArray) -> ScorePairs:
        """Products with a block of queries (m, d)."""
        block = queries if self._like is None else on_device(queries, self._like)
        return ScorePairs(block @ self._a, block @ self._b, self._bias)
