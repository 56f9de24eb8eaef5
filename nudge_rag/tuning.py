"""Labelled pairs in, a nudge out: pull, embed the queries, solve, and measure on held-out pairs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from nudge_rag.rivals import CandidateMethod, Rivals, StoreReads, find_rivals, reading
from nudge_rag.similarity import Similarity
from nudge_rag.solvers import LabeledQueries, NudgeFit, NudgeM, NudgeN
from nudge_rag.solvers.labels import LabelsLike
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.versions import DEFAULT_VERSIONS, nudged_ids, original_vectors

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
class _Known:
    """The nodes that labels name and those that were nudged before: what the store holds, and the originals."""

    ids: list[str]
    current: FloatArray
    originals: FloatArray

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
    candidates: CandidateMethod = "search",
) -> Nudge:
    """Move the labelled nodes of ``store`` towards their queries, in memory; nothing is written before ``push``.

    Reads the vectors of the labelled nodes only; what else competes for a place is asked from the store's own search,
    so that time and memory follow the labels and not the store.

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
        candidates: ``"search"`` asks the store for the best unlabelled nodes of each held-out query, and checks on the
            labelled nodes how many its index finds; ``"scan"`` streams every vector once and is exact in any store.
            ``nudge.reads`` says what was read and how good it was.

    Returns:
        A `Nudge`: print it for the before/after table, then ``push()``.

    Raises:
        TypeError, ValueError: arguments that do not fit, named; a solver that the store's similarity cannot score;
            no known node among the labels; query embeddings of another dimension than the store's.
        nudge_rag.stores.StoreError: the store failed while it was read.

    Warns:
        UserWarning: labels that name unknown nodes, by name and count; a store whose search misses many nodes.

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
    known = _read_known(store, pairs, versions)
    parts = _known_parts(pairs, known, split, seed)
    embedded = _embed(parts, embed_queries, known.originals.shape[1], store.capabilities.similarity)
    held_out = parts.test if parts.test.n_queries else parts.val
    depth = max(getattr(ready, "depth", 1), *(metric.k for metric in measured))
    asked = list(dict.fromkeys(text for part in (parts.val, held_out) for text in part.queries.values()))
    queries = np.stack([embedded[text] for text in asked]) if asked else np.zeros((0, 0))
    rivals = find_rivals(store, queries, known.ids, known.current, depth, candidates)
    row_of = {text: row for row, text in enumerate(asked)}
    train = _labels(parts.train, embedded, known.rows())
    fit = ready.fit(known.originals, train, _with_rivals(parts.val, embedded, known.rows(), rivals, row_of, depth))
    before, after = (
        _evaluate(known.ids, vectors, held_out, queries, rivals, row_of, measured, store)
        for vectors in (known.originals, fit.embeddings())
    )
    comparison = compare(before, after, _groups(parts.train, held_out))
    gain = after.mean(measured[0]) - before.mean(measured[0])
    reads = replace(rivals.reads, vectors_read=rivals.reads.vectors_read + len(known.ids))
    return Nudge(
        store=store,
        ids=tuple(known.ids[row] for row in fit.rows),
        vectors=fit.vectors,
        originals=known.originals[fit.rows],
        gamma=fit.gamma,
        curve=fit.curve,
        improves=fit.gamma > 0 and gain > 0,
        summary=_summary(fit, parts, measured[0], gain, store.count(), reads),
        solver=ready.name,
        versions=Path(versions),
        comparison=comparison,
        split=parts,
        reads=reads,
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


def _read_known(store: EmbeddingStore, pairs: LabeledPairs | Split, versions: str | Path) -> _Known:
    """Vectors of the labelled nodes and of those that an earlier push moved: no others can differ from the store's."""
    if not isinstance(pairs, LabeledPairs | Split):
        raise TypeError(f"pairs must be LabeledPairs or a Split of them, got {type(pairs).__name__}")
    given = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
    named = list(dict.fromkeys(node for part in given for node in part.node_ids))
    with reading(store, "the labelled nodes were read"):
        if not store.count():
            raise ValueError(f"{store.name} holds no nodes: add them before tuning")
        wanted = list(dict.fromkeys([*named, *nudged_ids(store, versions)]))
        present = store.matching(wanted, None)
        ids = [node_id for node_id in wanted if node_id in present]
        if not present.intersection(named):
            warnings.warn(f"none of the {len(named)} labelled node ids is in {store.name}", stacklevel=3)
            raise ValueError("none of the labelled node ids is in the store")
        current = store.read(ids)
    originals = original_vectors(store, ids, current, versions)
    bad = ~np.isfinite(originals).all(axis=1)
    if bad.any():
        raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
    return _Known(ids, current, originals)


def _known_parts(pairs: LabeledPairs | Split, nodes: _Known, fractions: tuple[float, float, float], seed: int) -> Split:
    given = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
    known = []
    for part in given:
        kept, unknown = part.restrict_to(nodes.ids)
        if unknown:
            warnings.warn(str(unknown), stacklevel=3)
        known.append(kept)
    return known[0].split(*fractions, seed=seed) if isinstance(pairs, LabeledPairs) else Split(*known)


def _embed(parts: Split, embed_queries: EmbedQueries, dimension: int, similarity: Similarity) -> dict[str, FloatArray]:
    """Embedding of each distinct query text, at unit length where that changes no ranking (l2 keeps the length)."""
    texts = list(dict.fromkeys(text for part in parts for text in part.queries.values()))
    logger.info("embedding %d queries", len(texts))
    vectors = as_matrix(embed_queries(texts), "query embeddings")
    if vectors.shape != (len(texts), dimension):
        raise ValueError(
            f"query embeddings have shape {vectors.shape}, expected {(len(texts), dimension)}: one row per query, in"
            " the dimension of the store. Is it the model that the store was built with?"
        )
    norms = row_norms(vectors, "query embeddings")
    if similarity != "l2":
        vectors = np.asarray(vectors / norms[:, None], dtype=vectors.dtype)
    return dict(zip(texts, vectors, strict=True))


def _labels(part: LabeledPairs, embedded: dict[str, FloatArray], rows: dict[str, int]) -> LabeledQueries:
    judged = [(text, part.qrels.get(query, {})) for query, text in part.queries.items()]
    vectors: Any = [embedded[text] for text, _ in judged]
    return LabeledQueries(
        np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32),
        [[rows[node] for node in grades] for _, grades in judged],
        [list(grades.values()) for _, grades in judged],
    )


def _with_rivals(
    part: LabeledPairs,
    embedded: dict[str, FloatArray],
    rows: dict[str, int],
    rivals: Rivals,
    row_of: dict[str, int],
    depth: int,
) -> LabeledQueries:
    """Validation labels that bring along the scores of the best nodes outside ``rows``."""
    table = rivals.score_table([row_of[text] for text in part.queries.values()], depth)
    return replace(_labels(part, embedded, rows), rivals=table)


def _evaluate(
    ids: list[str],
    vectors: FloatArray,
    part: LabeledPairs,
    queries: FloatArray,
    rivals: Rivals,
    row_of: dict[str, int],
    metrics: list[Metric],
    store: EmbeddingStore,
) -> Evaluation:
    """Rank the known nodes, with ``vectors``, among the best of all others."""
    asked = [row_of[text] for text in part.queries.values()]
    depth = max(metric.k for metric in metrics)
    best, scores = rank_nodes(queries[asked], vectors, depth, store.capabilities.similarity)
    run = {}
    for query, row, known_rows, known_scores in zip(part.queries, asked, best, scores, strict=True):
        names = [*(ids[known] for known in known_rows), *rivals.ids[row]]
        order = np.argsort(-np.concatenate([known_scores, rivals.scores[row]]), kind="stable")[:depth]
        run[query] = [names[place] for place in order]
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


def _summary(fit: NudgeFit, parts: Split, metric: Metric, gain: float, n_nodes: int, reads: StoreReads) -> str:
    sizes = ", ".join(f"{part.n_queries} {name}" for name, part in zip(Split._fields, parts, strict=True))
    if fit.gamma == 0:
        verdict = "no step helps on the validation queries: nothing to push"
    else:
        verdict = f"{metric} on held-out queries changes by {gain:+.3f}"
    return (
        f"{fit.solver}, gamma {fit.gamma:.3g}, {len(fit.rows)} of {n_nodes} nodes labelled, {reads};"
        f" queries: {sizes}; {verdict}"
    )
