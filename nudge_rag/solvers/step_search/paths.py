"""How the scores of covered nodes run along their paths: one form for both solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.similarity import Similarity
from nudge_rag.solvers.step_search.arcs import Arcs
from nudge_rag.solvers.step_search.products import PathProducts

__all__ = ["Paths", "paths_of_arcs", "paths_of_lines"]

# Nodes that meet where the last of them arrives tie from there on: a step of its own, however narrow, in radians.
PAST_THE_END = 1e-6


@dataclass(frozen=True)
class Paths:
    """Scores of the covered nodes along an angle t: q.A_j cos(t_j) + q.B_j sin(t_j) + c_j with t_j = min(t, cap_j).

    Attributes:
        rows: (c,) covered rows.
        starts: (c, d) A_j.
        tangents: (c, d) B_j.
        bias: (c,) c_j.
        caps: (c,) radians.
        still_cap: the cap of all other nodes, whose score s is s cos(min(t, still_cap)).
        end: where the paths end, in radians.
        similarity: how the store ranks.
        like: the embeddings, whose device the products are made on.
    """

    rows: IntArray
    starts: FloatArray
    tangents: FloatArray
    bias: Float64Array
    caps: Float64Array
    still_cap: float
    end: float
    similarity: Similarity
    like: Any

    def products(self, dtype: np.dtype[Any]) -> PathProducts:
        """A and B ready to be multiplied with queries, where the embeddings are."""
        return PathProducts(self.starts, self.tangents, self.bias, dtype, self.like)


def paths_of_arcs(arcs: Arcs, similarity: Similarity, like: Any) -> Paths:
    """Great-circle arcs (NUDGE-N): nodes turn until they reach their targets, all others keep their scores."""
    bias = -(arcs.norms**2) / 2 if similarity == "l2" else np.zeros_like(arcs.norms)
    starts, tangents = arcs.starts, arcs.tangents
    if similarity != "cosine":
        starts, tangents = (part * arcs.norms[:, None] for part in (starts, tangents))
    end = float(arcs.angles.max(initial=0.0)) + PAST_THE_END
    return Paths(
        rows=arcs.rows,
        starts=starts,
        tangents=tangents,
        bias=bias,
        caps=arcs.angles,
        still_cap=0.0,
        end=end,
        similarity=similarity,
        like=like,
    )


def paths_of_lines(rows: IntArray, originals: FloatArray, targets: FloatArray, like: Any) -> Paths:
    """Straight lines v_j + gamma g_j (NUDGE-M), with gamma = tan(t).

    Every score is multiplied by cos(t) > 0, which changes no rank: (s + gamma r) cos(t) = s cos(t) + r sin(t).
    """
    right = np.pi / 2
    zero = np.zeros(len(rows))
    return Paths(
        rows=rows,
        starts=originals,
        tangents=targets,
        bias=zero,
        caps=zero + right,
        still_cap=right,
        end=right,
        similarity="dot",
        like=like,
    )
