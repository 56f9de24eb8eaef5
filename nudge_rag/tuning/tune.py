"""Labelled pairs in, a nudge out: pull, embed the queries, solve, and measure on held-out pairs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.evaluation.metrics import Metric, parse_metric
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.text_hashes import TextsOf, hash_texts
from nudge_rag.journal.versions import DEFAULT_VERSIONS, nudged_ids, original_vectors
from nudge_rag.solvers import LabeledQueries
from nudge_rag.solvers.registry import Solver, resolve_solver
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitors import CandidateMethod, Competitors, StoreReads, find_competitors
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.queries import EmbedQueries, embed_texts
from nudge_rag.tuning.trial import DEFAULT_METRICS, DEFAULT_SPLIT, HeldOut, Trial, run_trial

__all__ = ["EmbedQueries", "Solver", "tune"]


@dataclass(frozen=True)
class LabelledNodes:
    """The nodes that labels name and those that were nudged before: what the store holds, and the originals."""

    ids: list[str]
    current: FloatArray
    originals: FloatArray


def tune(
    store: EmbeddingStore,
    pairs: LabeledPairs | Split,
    embed_queries: EmbedQueries,
    *,
    solver: str | Solver = "auto",
    metrics: Sequence[str | Metric] = DEFAULT_METRICS,
    split: tuple[float, float, float] = DEFAULT_SPLIT,
    seed: int = 0,
    versions: str | Path = DEFAULT_VERSIONS,
    candidates: CandidateMethod = "search",
    model: str | None = None,
    texts: TextsOf | None = None,
    uncovered_tolerance: float | None = None,
) -> Nudge:
    """Move the labelled nodes of ``store`` towards their queries, in memory; nothing is written before ``push``.

    Reads the vectors of the labelled nodes only; what else competes for a place is asked from the store's own search,
    so that time and memory follow the labels and not the store.

    Always starts from the original vectors: those of an earlier push are read from ``versions``, not from the store.

    Args:
        store: the vector store.
        pairs: labelled pairs, divided by query into train, validation and test parts; or a ready `Split`.
        embed_queries: texts to (m, d) query embeddings, by the model that the application searches with.
        solver: ``"auto"`` fits the others, keeps what does not harm queries whose answers have no label, and chooses by
            the first metric on the validation pairs (`nudge_rag.solvers.AutoSolver`; ``nudge.candidates`` lists what it
            chose from). Or one of them: ``"nudge-n"``, ``"nudge-contrastive"`` (better with many labels a node,
            slower), ``"nudge-m"`` (dot-product stores only), or an object with ``fit``.
        metrics: what is compared on held-out pairs; the first one decides whether the nudge improves.
        split: fractions of the queries for training, validation and test.
        seed: of the split.
        versions: folder of the saved originals.
        candidates: ``"search"`` asks the store for the best unlabelled nodes of each held-out query, and checks on the
            labelled nodes how many its index finds; ``"scan"`` streams every vector once and is exact in any store.
            ``nudge.reads`` says what was read and how good it was.
        model: name of the embedding model, for the record; a push over one that was made for another is refused.
        texts: node ids to their texts (None for a node without one), of which hashes go into the record of a push:
            `nudge_rag.status` then finds nodes whose texts were edited since.
        uncovered_tolerance: of ``"auto"``: how much of the first metric (0.01 is a point) queries whose answers have
            no label may lose, as estimated by holding out the labels of whole nodes; None: no significant loss;
            ``math.inf``: any.

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
        >>> from nudge_rag.stores.memory.mapping import MappingStore
        >>> store = MappingStore({"exit": [1.0, 0.0, 0.0], "enter": [0.0, 1.0, 0.0], "bill": [0.0, 0.0, 1.0]})
        >>> pairs = nudge_rag.LabeledPairs.from_pairs((f"how do I leave {n}", "exit") for n in range(40))
        >>> nudge = nudge_rag.tune(store, pairs, lambda texts: np.tile([0.6, 0.7, 0.1], (len(texts), 1)))
        >>> nudge.ids, nudge.gamma > 0, nudge.improves
        (('exit',), True, True)
    """
    measured = [parse_metric(metric) for metric in metrics]
    if not measured:
        raise ValueError("metrics must name at least one metric, such as 'nDCG@10'")
    ready = resolve_solver(solver, store.name, store.capabilities.similarity, measured[0], uncovered_tolerance)
    known = _read_known(store, pairs, versions)
    parts = _known_parts(pairs, known, split, seed)
    wordings = list(dict.fromkeys(text for part in parts for text in part.queries.values()))
    embedded = embed_texts(wordings, embed_queries, known.originals.shape[1], store.capabilities.similarity)
    held_out = parts.test if parts.test.n_queries else parts.val
    depth = max(ready.needs.depth, *(metric.k for metric in measured))
    asked = list(dict.fromkeys(text for part in (parts.val, held_out) for text in part.queries.values()))
    queries = np.stack([embedded[text] for text in asked]) if asked else np.zeros((0, known.originals.shape[1]))
    rivals = find_competitors(store, queries, known.ids, known.current, depth, candidates)
    train = _training(parts.train, embedded, known.ids)
    train, training_reads = _with_rivals(train, ready, store, known, candidates)
    judged = QueryTable(queries, rivals, {text: row for row, text in enumerate(asked)})
    reads = rivals.reads if training_reads is None else rivals.reads + training_reads
    learned = (parts.train, parts.val) if ready.needs.learns_from_validation else (parts.train,)
    trial = Trial(
        store=store,
        ids=known.ids,
        originals=known.originals,
        train=train,
        trained={
            node for part in learned for grades in part.qrels.values() for node, grade in grades.items() if grade > 0
        },
        val=judged.of(parts.val),
        held_out=judged.of(held_out),
        sizes=(parts.train.n_queries, parts.val.n_queries, parts.test.n_queries),
        metrics=measured,
        reads=replace(reads, vectors_read=reads.vectors_read + len(known.ids)),
    )
    nudge = run_trial(trial, ready, versions, parts)
    return replace(nudge, model=model, text_hashes={} if texts is None else hash_texts(texts, nudge.ids))


@dataclass(frozen=True)
class QueryTable:
    """Embeddings and rivals of every query that was asked for, by its text."""

    queries: FloatArray
    rivals: Competitors
    row_of: dict[str, int]

    def of(self, part: LabeledPairs) -> HeldOut:
        rows = [self.row_of[text] for text in part.queries.values()]
        ids, scores = self.rivals.ids, self.rivals.scores
        return HeldOut(part.qrels, self.queries[rows], [ids[row] for row in rows], [scores[row] for row in rows])


def _read_known(store: EmbeddingStore, pairs: LabeledPairs | Split, versions: str | Path) -> LabelledNodes:
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
        # Sorted: the order of the pairs is not to decide between nodes that tie.
        ids = sorted(present)
        if not present.intersection(named):
            warnings.warn(f"none of the {len(named)} labelled node ids is in {store.name}", stacklevel=3)
            raise ValueError("none of the labelled node ids is in the store")
        current = store.read(ids)
    originals = original_vectors(store, ids, current, versions)
    bad = ~np.isfinite(originals).all(axis=1)
    if bad.any():
        raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
    return LabelledNodes(ids, current, originals)


def _known_parts(
    pairs: LabeledPairs | Split, nodes: LabelledNodes, fractions: tuple[float, float, float], seed: int
) -> Split:
    given = [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
    known = []
    for part in given:
        kept, unknown = part.restrict_to(nodes.ids)
        if unknown:
            warnings.warn(str(unknown), stacklevel=3)
        known.append(kept)
    return known[0].split(*fractions, seed=seed) if isinstance(pairs, LabeledPairs) else Split(*known)


def _with_rivals(
    train: LabeledQueries, solver: Solver, store: EmbeddingStore, known: LabelledNodes, candidates: CandidateMethod
) -> tuple[LabeledQueries, StoreReads | None]:
    """For solvers that learn from what training queries are confused with: each one's best unlabelled nodes."""
    depth = solver.needs.train_depth
    # Such solvers work with directions, of which Euclidean distances do not tell enough.
    if not depth or store.capabilities.similarity == "l2" or not len(train.answers):
        return train, None
    rivals = find_competitors(store, np.asarray(train.vectors), known.ids, known.current, depth, candidates)
    table = np.full((len(train.answers), depth), -np.inf)
    for row, scores in enumerate(rivals.scores):
        table[row, : len(scores)] = scores
    return replace(train, competitors=table), rivals.reads


def _training(part: LabeledPairs, embedded: dict[str, FloatArray], ids: list[str]) -> LabeledQueries:
    row_of = {node_id: row for row, node_id in enumerate(ids)}
    vectors: Any = [embedded[text] for text in part.queries.values()]
    return LabeledQueries(
        np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32),
        [[row_of[node] for node in grades] for grades in part.qrels.values()],
        [list(grades.values()) for grades in part.qrels.values()],
    )
