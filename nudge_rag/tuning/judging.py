"""Let the application's own pipeline decide: it is run over the original, the live and the new vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nudge_rag.common.arrays import FloatArray
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
from nudge_rag.evaluation.retrievers import evaluate_retrievers
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.journal.journal import Journal
from nudge_rag.solvers.linear_map.adapter import QueryAdapter
from nudge_rag.stores.base import EmbeddingStore, SearchResult
from nudge_rag.stores.overlay import OverlayStore
from nudge_rag.tuning.adapters import live_adapter
from nudge_rag.tuning.gate import LiveComparison, find_seen, live_queries
from nudge_rag.tuning.judge import LIVE, NEW, ORIGINALS, Judge, Judgement
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.overlays import lay_over

__all__ = ["JudgedStore", "judge_nudge", "view_store"]


class JudgedStore(OverlayStore):
    """A store as a judge sees it: some vectors replaced, and queries mapped if these vectors demand it.

    Args:
        store: the store beneath; never written to.
        ids: nodes that have other vectors than in the store.
        vectors: (len(ids), d) theirs.
        adapter: the map that queries pass first; None if they stay as they are.
        laid_over: the nudge that the vectors and the map are of; None for the store as it is live. An integration
            lays it over the framework's own store.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        ids: Sequence[str],
        vectors: FloatArray,
        adapter: QueryAdapter | None,
        laid_over: Nudge | None = None,
    ) -> None:
        super().__init__(store, ids, vectors)
        self.adapter = adapter
        self.laid_over = laid_over

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """The k best nodes of each query, exactly as far as the store beneath searches exactly."""
        return super().search(queries if self.adapter is None else self.adapter(queries), k, where=where)


def view_store(nudge: Nudge, laid_over: Nudge | None) -> JudgedStore:
    """Return the nudge's store as it is live, or with a nudge laid over it."""
    if laid_over is None:
        return JudgedStore(nudge.store, [], nudge.vectors[:0], live_adapter(nudge.store, nudge.versions))
    overlay = lay_over(laid_over, nudge.store, nudge.versions)
    return JudgedStore(overlay.store, overlay.ids, overlay.vectors, laid_over.adapter, laid_over)


def judge_nudge(nudge: Nudge, judge: Judge) -> Nudge:
    """Let the application's own pipeline decide on the held-out queries whether a nudge is to be pushed.

    Three rankings of each query are compared: with the original vectors, with those that are live, and with the new
    ones, which are laid over the store; nothing is written. The new ones have to have the best mean of the first
    metric. Queries that the live version was made from are left out if there are others.

    Args:
        nudge: of `nudge_rag.tune`.
        judge: takes a `JudgedStore` and returns a retriever over it: one that `nudge_rag.evaluate_retrievers` takes.

    Returns:
        The nudge, with what was found as its ``judgement``.

    Raises:
        TypeError: the judge returns something that is no retriever.
        ValueError: every query failed.
    """
    live = Journal.open(nudge.store, nudge.versions).live
    if nudge.split is None or not (nudge.gamma or nudge.adapter is not None or nudge.node_map is not None):
        return nudge
    originals = replace(nudge, vectors=nudge.originals, adapter=None, node_map=None)
    views = {ORIGINALS: view_store(nudge, None if live is None else originals)}
    if live is not None:
        views[LIVE] = view_store(nudge, None)
    views[NEW] = view_store(nudge, nudge)
    held_out = nudge.split.test if nudge.split.test.n_queries else nudge.split.val
    learned = set() if live is None else live_queries(live.manifest["details"])
    seen = find_seen(held_out.queries, learned)
    fair = [query for query in held_out.queries if query not in seen]
    pairs: LabeledPairs = held_out.subset(fair) if fair else held_out
    rows = () if nudge.comparison is None else nudge.comparison.rows
    metrics = list(dict.fromkeys(str(row.metric) for row in rows)) or [str(nudge.curve.metric)]
    baseline = ORIGINALS if live is None else LIVE
    retrievers = {name: judge(view) for name, view in views.items()}
    found = evaluate_retrievers(retrievers, pairs, metrics, baseline=baseline, trained_on=nudge.split.train)
    judgement = _judgement(found, metrics[0])
    against_live = nudge.against_live
    if live is not None:
        n_seen = held_out.n_queries - pairs.n_queries
        counts = judgement.queries, n_seen, live.name
        against_live = LiveComparison(judgement.metric, judgement.before, judgement.after, *counts)
    return replace(nudge, improves=judgement.improves, judgement=judgement, against_live=against_live)


def _judgement(found: RetrieverComparison, metric: str) -> Judgement:
    row = found.row(NEW, metric)
    after = found.mean(NEW, metric)
    others = [found.mean(system, metric) for system in found.systems if system != NEW]
    return Judgement(
        metric=metric,
        baseline=found.baseline,
        before=found.mean(found.baseline, metric),
        after=after,
        low=0.0 if row.low is None else row.low,
        high=0.0 if row.high is None else row.high,
        queries=row.n_queries,
        improves=all(after > other for other in others),
        evaluation=found,
    )
