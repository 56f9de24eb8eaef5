"""Read the vectors of nodes that compete, for solvers that ask for more than their scores."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.errors import UnknownIdError
from nudge_rag.solvers.linear_map.adapter import usable_rows
from nudge_rag.solvers.registry import Solver
from nudge_rag.stores.access import read_present, reading
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["read_pool"]

logger = logging.getLogger(__name__)

# Vectors of unlabelled nodes that are read, at most, for solvers that compare with them.
LARGEST_POOL = 50_000
READ_AT_ONCE = 1_000


def read_pool(store: EmbeddingStore, solver: Solver, lists: Sequence[Sequence[Sequence[str]]]) -> FloatArray | None:
    """Read the unlabelled nodes that compete for any query, the nearest ones first; None if no solver asks for them.

    Nodes that were deleted meanwhile are left out, and vectors without a direction, which no map can turn. A store that
    fails is an error if the solver cannot do without these vectors; a sample of them is done without.
    """
    is_needed = solver.needs.competitor_vectors
    most = LARGEST_POOL if is_needed else solver.needs.competitor_sample
    if not most:
        return None
    ids_of_queries = [ids for part in lists for ids in part]
    nearest_first = itertools.chain.from_iterable(itertools.zip_longest(*ids_of_queries))
    pool = list(dict.fromkeys(node_id for node_id in nearest_first if node_id is not None))[:most]
    try:
        with reading(store, "competing nodes were read"):
            vectors = [
                _read_left(store, pool[first : first + READ_AT_ONCE]) for first in range(0, len(pool), READ_AT_ONCE)
            ]
    except Exception as error:
        if is_needed:
            raise
        logger.warning("what other reaches would give is not estimated: %s", error)
        return None
    found = [part for part in vectors if len(part)]
    return np.concatenate(found) if found else None


def _read_left(store: EmbeddingStore, ids: list[str]) -> FloatArray:
    """Read the vectors of those of ``ids`` that are still there, and have a direction."""
    try:
        vectors = store.read(ids)
    except UnknownIdError:
        present, _ = read_present(store, ids)
        vectors = np.array(list(present.values()))
    return vectors[usable_rows(vectors)] if len(vectors) else vectors
