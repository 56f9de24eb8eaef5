"""Ask the store for what a solver and its test need: competitors of every query, and the nodes they compete with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.node_map import mapped_store, untouched_store
from nudge_rag.solvers import LabeledQueries
from nudge_rag.solvers.registry import Solver
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitor_pool import read_pool
from nudge_rag.tuning.competitors import CompetitorMethod, Competitors, StoreReads, find_competitors
from nudge_rag.tuning.labelled_nodes import LabelledNodes
from nudge_rag.tuning.options import TuneSettings
from nudge_rag.tuning.trial import HeldOut, Trial

__all__ = ["prepare_trial"]


@dataclass(frozen=True)
class QueryTable:
    """Embeddings and competitors of every held-out query, by its text."""

    queries: FloatArray
    competitors: Competitors
    row_of: dict[str, int]

    def select(self, part: LabeledPairs) -> HeldOut:
        """Return the queries of ``part``, in its order."""
        rows = [self.row_of[text] for text in part.queries.values()]
        ids, scores = self.competitors.ids, self.competitors.scores
        return HeldOut(part.qrels, self.queries[rows], [ids[row] for row in rows], [scores[row] for row in rows])


def prepare_trial(
    store: EmbeddingStore,
    solver: Solver,
    settings: TuneSettings,
    nodes: LabelledNodes,
    split: Split,
    embedded: Mapping[str, FloatArray],
) -> Trial:
    """Ask the store what competes with the labelled nodes, and put together what the solver and its test need."""
    held_out = split.test if split.test.n_queries else split.val
    depth = max(solver.needs.depth, *(metric.k for metric in settings.metrics))
    texts = list(dict.fromkeys(text for part in (split.val, held_out) for text in part.queries.values()))
    queries = np.stack([embedded[text] for text in texts]) if texts else np.zeros((0, nodes.originals.shape[1]))
    journal = Journal.open(store, settings.versions)
    # If all nodes were written, no index knows what they were before: they are streamed.
    untouched = untouched_store(store, journal)
    method: CompetitorMethod = settings.competitors if untouched is store else "scan"
    competitors = find_competitors(untouched, queries, nodes.ids, nodes.current, depth, method)
    table = QueryTable(queries, competitors, {text: row for row, text in enumerate(texts)})
    train = _training_queries(split.train, embedded, nodes.ids)
    train, training_reads, train_ids = _with_competitors(train, solver, untouched, nodes, method)
    reads = competitors.reads if training_reads is None else competitors.reads + training_reads
    held_out_queries = table.select(split.val)
    pool = read_pool(untouched, solver, [train_ids, held_out_queries.competitor_ids])
    learned_from = (split.train, split.val) if solver.needs.learns_from_validation else (split.train,)
    return Trial(
        store=store,
        ids=nodes.ids,
        originals=nodes.originals,
        train=train,
        trained=_answers(learned_from),
        val=held_out_queries,
        held_out=table.select(held_out),
        sizes=(split.train.n_queries, split.val.n_queries, split.test.n_queries),
        metrics=settings.metrics,
        reads=replace(reads, vectors_read=reads.vectors_read + len(nodes.ids) + (0 if pool is None else len(pool))),
        background=pool,
        stored=nodes.current,
        search=lambda mapped: find_competitors(untouched, mapped, nodes.ids, nodes.current, depth, method),
        scan_mapped=lambda asked, node_map: find_competitors(
            mapped_store(store, journal, node_map), asked, nodes.ids, nodes.current, depth, "scan"
        ),
        search_live=None
        if untouched is store
        else lambda asked: find_competitors(store, asked, nodes.ids, nodes.current, depth, settings.competitors),
    )


def _answers(parts: tuple[LabeledPairs, ...]) -> set[str]:
    """Return the ids of all nodes that answer a query."""
    grades_of_queries = (grades for part in parts for grades in part.qrels.values())
    return {node for grades in grades_of_queries for node, grade in grades.items() if grade > 0}


def _with_competitors(
    train: LabeledQueries, solver: Solver, store: EmbeddingStore, nodes: LabelledNodes, method: CompetitorMethod
) -> tuple[LabeledQueries, StoreReads | None, Sequence[Sequence[str]]]:
    """Find the best unlabelled nodes of each training query, if the solver learns from what it is confused with."""
    depth = solver.needs.train_depth
    # Such solvers work with directions, of which Euclidean distances do not tell enough.
    distances = store.capabilities.similarity == "l2" and not solver.needs.competitor_vectors
    if not depth or distances or not len(train.answers):
        return train, None, []
    competitors = find_competitors(store, np.asarray(train.vectors), nodes.ids, nodes.current, depth, method)
    table = np.full((len(train.answers), depth), -np.inf)
    for row, scores in enumerate(competitors.scores):
        table[row, : len(scores)] = scores
    return replace(train, competitors=table), competitors.reads, competitors.ids


def _training_queries(part: LabeledPairs, embedded: Mapping[str, FloatArray], ids: list[str]) -> LabeledQueries:
    row_of = {node_id: row for row, node_id in enumerate(ids)}
    vectors = [embedded[text] for text in part.queries.values()]
    return LabeledQueries(
        np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32),
        [[row_of[node] for node in grades] for grades in part.qrels.values()],
        [list(grades.values()) for grades in part.qrels.values()],
    )
