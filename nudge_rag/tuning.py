"""Labelled pairs in, a nudge out: pull, embed the queries, solve, and measure on held-out pairs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.arrays import FloatArray, as_matrix, row_norms
from nudge_rag.evaluate import Evaluation, evaluate
from nudge_rag.metrics import Metric, parse_metric
from nudge_rag.nudge import Nudge
from nudge_rag.pairs import LabeledPairs, Split
from nudge_rag.ranking import rank_nodes
from nudge_rag.report.comparison import compare
from nudge_rag.similarity import Similarity
from nudge_rag.solvers import LabeledQueries, NudgeFit, NudgeM, NudgeN
from nudge_rag.solvers.labels import LabelsLike
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.versions import DEFAULT_VERSIONS, original_vectors

__all__ = ["DEFAULT_METRICS", "DEFAULT_SPLIT", "Solver", "tune"]

logger = logging.getLogger(__name__)

DEFAULT_METRICS = ("nDCG@10", "Recall@1", "Recall@10")
DEFAULT_SPLIT = (0.7, 0.1, 0.2)
SOLVERS: dict[str, type[NudgeN] | type[NudgeM]] = {"nudge-n": NudgeN, "nudge-m": NudgeM}

EmbedQueries = Callable[[list[str]], ArrayLike]


class Solver(Protocol):
    """What `tune` asks of a solver object."""

    name: str
    similarity: Similarity

    def fit(self, embeddings: ArrayLike, train: LabelsLike, val: LabelsLike | None = None) -> NudgeFit:
        """Moved embeddings of the covered rows."""
        ...


@dataclass(frozen=True)
class _Nodes:
    """Everything in the store, originals in place of nudged vectors."""

    ids: list[str]
    vectors: FloatArray

    def rows(self) -> dict[str, int]:
        return {node_id: row for row, node_id in enumerate(self.ids)}


def tune(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    *,
    solver: str | Solver = "nudge-n",
    metrics: Sequence[str | Metric] = DEFAULT_METRICS,
    split: tuple[float, float, float] = DEFAULT_SPLIT,
    seed: int = 0,
    versions: str | Path = DEFAULT_VERSIONS,
) -> Nudge:
    """Move the labelled nodes of ``store`` towards their queries, in memory; nothing is written before ``push``.

    Always starts from the original vectors: those of an earlier push are read from ``versions``, not from the store.

    Args:
        store: the vector store.
        pairs: labelled pairs, divided by query into train, validation and test parts; or a ready `Split`.
        embed_queries: texts to (m, d) query embeddings, by the model that the application searches with.
        solver: ``"nudge-n"``, ``"nudge-m"`` (dot-product stores only) or an object with ``fit``.
        metrics: what is compared on held-out pairs; the first one decides whether the nudge improves.
        split: fractions of the queries for training, validation and test.
        seed: of the split.
        versions: folder of the saved originals.

    Returns:
        A `Nudge`: print it for the before/after table, then ``push()``.

    Raises:
        TypeError, ValueError: arguments that do not fit, named; a solver that the store's similarity cannot score;
            no known node among the labels; query embeddings of another dimension than the store's.

    Warns:
        UserWarning: labels that name unknown nodes, by name and count.

    Example:
        >>> import numpy as np, nudge_rag
        >>> from nudge_rag.stores.mapping import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0, 0.0], "enter": [0.0, 1.0, 0.0], "bill": [0.0, 0.0, 1.0]})
        >>> pairs = nudge_rag.LabeledPairs.from_pairs((f"how do I leave {n}", "exit") for n in range(40))
        >>> nudge = nudge_rag.tune(store, pairs, lambda texts: np.tile([0.6, 0.7, 0.1], (len(texts), 1)))
        >>> nudge.ids, nudge.gamma > 0, nudge.improves
        (('exit',), True, True)
    """
    measured = [parse_metric(metric) for metric in metrics]
    if not measured:
        raise ValueError("metrics must name at least one metric, such as 'nDCG@10'")
    ready = _resolve_solver(solver, store)
    nodes = _pull(store, versions)
    parts = _known_parts(pairs, nodes, split, seed)
    embedded = _embed(parts, embed_queries, nodes.vectors.shape[1])
    rows = nodes.rows()
    fit = ready.fit(nodes.vectors, *(_labels(part, embedded, rows) for part in parts[:2]))
    held_out = parts.test if parts.test.n_queries else parts.val
    before, after = (
        _evaluate(nodes.ids, vectors, held_out, embedded, measured, store)
        for vectors in (nodes.vectors, fit.embeddings())
    )
    comparison = compare(before, after, _groups(parts.train, held_out))
    gain = after.mean(measured[0]) - before.mean(measured[0])
    return Nudge(
        store=store,
        ids=tuple(nodes.ids[row] for row in fit.rows),
        vectors=fit.vectors,
        originals=nodes.vectors[fit.rows],
        gamma=fit.gamma,
        curve=fit.curve,
        improves=fit.gamma > 0 and gain > 0,
        summary=_summary(fit, parts, measured[0], gain, len(nodes.ids)),
        solver=ready.name,
        versions=Path(versions),
        comparison=comparison,
        split=parts,
    )


def _resolve_solver(solver: str | Solver, store: EmbeddingStore) -> Solver:
    similarity = store.capabilities.similarity
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(SOLVERS)} or an object with fit, got {solver!r}")
        return SOLVERS[solver](similarity=similarity)
    if not callable(getattr(solver, "fit", None)):
        raise TypeError(f"solver must be a name or an object with fit, got {type(solver).__name__}")
    if isinstance(solver, NudgeM):
        NudgeM(similarity=similarity)  # raises with what to do instead
    if solver.similarity != similarity:
        raise ValueError(
            f"the solver scores by {solver.similarity} but {store.name} ranks by {similarity}:"
            f" make it with similarity={similarity!r}"
        )
    return solver


def _pull(store: EmbeddingStore, versions: str | Path) -> _Nodes:
    ids: list[str] = []
    batches: list[FloatArray] = []
    for batch_ids, batch in store.scan():
        ids.extend(batch_ids)
        batches.append(batch)
    if not ids:
        raise ValueError(f"{store.name} holds no nodes: add them before tuning")
    return _Nodes(ids, original_vectors(store, ids, np.concatenate(batches), versions))


def _known_parts(pairs: LabeledPairs | Split, nodes: _Nodes, fractions: tuple[float, float, float], seed: int) -> Split:
    if not isinstance(pairs, LabeledPairs | Split):
        raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
    given = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
    known = []
    for part in given:
        kept, unknown = part.restrict_to(nodes.ids)
        if unknown:
            warnings.warn(str(unknown), stacklevel=3)
        known.append(kept)
    if not any(part.n_queries for part in known):
        raise ValueError("none of the labelled node ids is in the store")
    return known[0].split(*fractions, seed=seed) if isinstance(pairs, LabeledPairs) else Split(*known)


def _embed(parts: Split, embed_queries: EmbedQueries, dimension: int) -> dict[str, FloatArray]:
    """Embedding of each distinct query text."""
    texts = list(dict.fromkeys(text for part in parts for text in part.queries.values()))
    logger.info("embedding %d queries", len(texts))
    vectors = as_matrix(embed_queries(texts), "query embeddings")
    if vectors.shape != (len(texts), dimension):
        raise ValueError(
            f"query embeddings have shape {vectors.shape}, expected {(len(texts), dimension)}: one row per query, in"
            " the dimension of the store. Is it the model that the store was built with?"
        )
    row_norms(vectors, "query embeddings")
    return dict(zip(texts, vectors, strict=True))


def _labels(part: LabeledPairs, embedded: dict[str, FloatArray], rows: dict[str, int]) -> LabeledQueries:
    judged = [(text, part.qrels.get(query, {})) for query, text in part.queries.items()]
    vectors: Any = [embedded[text] for text, _ in judged]
    return LabeledQueries(
        np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32),
        [[rows[node] for node in grades] for _, grades in judged],
        [list(grades.values()) for _, grades in judged],
    )


def _evaluate(
    ids: list[str],
    vectors: FloatArray,
    part: LabeledPairs,
    embedded: dict[str, FloatArray],
    metrics: list[Metric],
    store: EmbeddingStore,
) -> Evaluation:
    queries = np.stack([embedded[text] for text in part.queries.values()])
    best, _ = rank_nodes(queries, vectors, max(metric.k for metric in metrics), store.capabilities.similarity)
    run = {query: [ids[row] for row in rows] for query, rows in zip(part.queries, best, strict=True)}
    return evaluate(part.qrels, run, metrics)


def _groups(train: LabeledPairs, held_out: LabeledPairs) -> dict[str, list[str]]:
    """Held-out queries with an answer that has a training label, and those without."""
    labelled = {node for grades in train.qrels.values() for node, grade in grades.items() if grade > 0}
    covered = [
        query
        for query, grades in held_out.qrels.items()
        if any(grade > 0 and node in labelled for node, grade in grades.items())
    ]
    uncovered = [query for query in held_out.qrels if query not in set(covered)]
    return {"all": list(held_out.qrels), "covered": covered, "uncovered": uncovered}


def _summary(fit: NudgeFit, parts: Split, metric: Metric, gain: float, n_nodes: int) -> str:
    sizes = ", ".join(f"{part.n_queries} {name}" for name, part in zip(Split._fields, parts, strict=True))
    if fit.gamma == 0:
        verdict = "no step helps on the validation queries: nothing to push"
    else:
        verdict = f"{metric} on held-out queries changes by {gain:+.3f}"
    return (
        f"{fit.solver}, gamma {fit.gamma:.3g}, {len(fit.rows)} of {n_nodes} nodes labelled; queries: {sizes}; {verdict}"
    )
