"""What else one could do with the same labels: the methods that accuracy.py sets beside this library's solvers."""

from __future__ import annotations

import contextlib
import time

import numpy as np
from data_sets import Data, Method, Tuned


def nudge_ft(name: str) -> Method:
    """The paper's authors' own implementation, ``NUDGEM`` or ``NUDGEN``, with its defaults."""

    def method(data: Data) -> Tuned:
        import nudge

        parts = [data.labels(part) for part in data.split[:2]]
        sets = [{"q_embs": np.asarray(part.vectors), "q_ans_indx": part.answers} for part in parts]
        started = time.perf_counter()
        with contextlib.redirect_stdout(None):
            vectors = getattr(nudge, name)(device="cpu").finetune_embeddings(np.array(data.nodes), *sets)
        return Tuned(
            np.asarray(vectors), time.perf_counter() - started, similarity="dot" if name == "NUDGEM" else "cosine"
        )

    return method


def extra_vectors(data: Data) -> Tuned:
    """Every training query is stored as one more vector of each of its nodes; nothing is trained."""
    queries, nodes = data.positives(data.split.train)
    started = time.perf_counter()
    owners = np.concatenate([np.arange(len(data.ids)), nodes])
    vectors = np.concatenate([data.nodes, data.embed(list(data.split.train.queries.values()))[queries]])
    order = np.argsort(owners, kind="stable")
    vectors = vectors[order]
    return Tuned(vectors, time.perf_counter() - started, owners=owners[order])
