"""Fit a solver to the labelled nodes, and measure what that does to held-out queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.evaluation.comparison import compare
from nudge_rag.evaluation.evaluate import Evaluation
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.feedback.pairs import Split
from nudge_rag.solvers import LabeledQueries, NudgeFit, QueryAdapter
from nudge_rag.solvers.registry import Solver, solver_settings
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.chance import find_chance
from nudge_rag.tuning.competitors import Competitors, StoreReads
from nudge_rag.tuning.gate import LiveComparison, compare_with_live
from nudge_rag.tuning.held_out import HeldOutQueries
from nudge_rag.tuning.held_out_evaluation import HeldOut, HeldOutEvaluator
from nudge_rag.tuning.nudge import Nudge
from nudge_rag.tuning.query_sample import QuerySample
from nudge_rag.tuning.refusal import why_nothing_moves
from nudge_rag.tuning.store_answers import StoreAnswers

__all__ = ["HeldOut", "Trial", "run_trial"]

NOTHING_MOVES = {
    "tolerance": "no setting leaves queries without labelled answers unharmed (uncovered_tolerance)",
    "uncovered": "what queries with labelled answers would gain, those without would lose",
    "validation": "no step helps on the validation queries",
}


@dataclass(frozen=True)
class Trial:
    """Everything that a solver and its test need.

    Attributes:
        store: the vector store.
        ids: the known nodes: labelled now, or nudged before.
        originals: (n, d) their original vectors.
        train: what is learned from, with rows of ``ids``.
        trained: ids of the nodes that have a training label.
        val: queries that choose the step.
        held_out: queries that it is measured on.
        sizes: number of queries for training, validation and test.
        metrics: what is measured; the first one decides.
        reads: what was read of the store.
        background: (b, d) unlabelled nodes that compete, the nearest first, if the solver asks for their vectors.
        search: queries to their best unlabelled nodes, for queries that a map has moved.
        scan_mapped: queries to their best unlabelled nodes, if all nodes pass a map.
        search_live: queries to their best unlabelled nodes as they are live, if an earlier push has written all nodes.
        live: (n, d) vectors that are in the store, if an earlier push moved any of them.
        live_adapter: the map that queries pass until now, if there is one.
        live_version: name of the version that is live.
        seen: ids of held-out queries that what is live was made from.
        stored: (n, d) what the store holds for ``ids``; None if it is not known.
    """

    store: EmbeddingStore
    ids: Sequence[str]
    originals: FloatArray
    train: Any
    trained: Collection[str]
    val: HeldOut
    held_out: HeldOut
    sizes: tuple[int, int, int]
    metrics: Sequence[Metric]
    reads: StoreReads
    background: FloatArray | None = None
    search: Callable[[FloatArray], Competitors] | None = None
    scan_mapped: Callable[[FloatArray, QueryAdapter], Competitors] | None = None
    search_live: Callable[[FloatArray], Competitors] | None = None
    live: FloatArray | None = None
    live_adapter: Callable[[FloatArray], FloatArray] | None = None
    live_version: str | None = None
    seen: Collection[str] = ()
    stored: FloatArray | None = None


def run_trial(trial: Trial, solver: Solver, versions: str | Path | None, split: Split | None = None) -> Nudge:
    """Solve, rank the held-out queries before and after, and compare."""
    rows = {node_id: row for row, node_id in enumerate(trial.ids)}
    fit = _fit(trial, solver, trial.val.labels(rows, solver.needs.depth))
    # No index knows mapped nodes, or those that were before them: all are measured by exact scores then.
    answers = None if fit.node_map is not None or trial.search_live is not None else _store_answers(trial)
    held_out = HeldOutEvaluator(
        trial.ids, trial.store.capabilities.similarity, trial.metrics, answers, _draw_sample(trial)
    )
    exact_before, before = held_out.evaluate(trial.held_out, trial.originals)
    near_chance = _near_chance(trial, exact_before)
    exact_after, after = held_out.evaluate(_as_pushed(trial, fit), fit.embeddings())
    live = None if trial.live is None else held_out.evaluate(_as_live(trial), trial.live)[1]
    is_coarse = before is not exact_before or after is not exact_after
    more_read = 0 if answers is None else answers.vectors_read
    gain = after.mean(trial.metrics[0]) - before.mean(trial.metrics[0])
    return Nudge(
        store=trial.store,
        ids=tuple(trial.ids[row] for row in fit.rows),
        vectors=fit.vectors,
        originals=trial.originals[fit.rows],
        gamma=fit.gamma,
        curve=fit.curve,
        improves=not _is_unchanged(fit) and gain > 0,
        summary=_summary(fit, trial, gain, held_out.note) + near_chance,
        solver=fit.solver,
        settings=solver_settings(solver),
        tried=fit.tried,
        other_reaches=fit.other_reaches,
        versions=None if versions is None else Path(versions),
        comparison=compare(before, after, _groups(trial), live=live, seen=trial.seen),
        split=split,
        exact_comparison=compare(exact_before, exact_after, _groups(trial)) if is_coarse else None,
        reads=replace(trial.reads, vectors_read=trial.reads.vectors_read + more_read),
        adapter=fit.adapter,
        node_map=fit.node_map,
        against_live=None if live is None else _against_live(trial, live, after),
        held_out=None if split is None else _held_out_queries(trial, split, held_out, (before, live, after)),
    )


def _against_live(trial: Trial, live: Evaluation, after: Evaluation) -> LiveComparison:
    return compare_with_live(trial.metrics[0], live, after, trial.seen, trial.live_version)


def _held_out_queries(
    trial: Trial,
    split: Split,
    held_out: HeldOutEvaluator,
    evaluations: tuple[Evaluation, Evaluation | None, Evaluation],
) -> HeldOutQueries:
    """Put together what a report shows of single queries."""
    before, live, after = evaluations
    states = {"untuned": before} | ({} if live is None else {"live": live}) | {"nudged": after}
    pairs, states = held_out.rankings_of(split.test if split.test.n_queries else split.val, states)
    return HeldOutQueries(pairs, states, str(trial.metrics[0]), max(metric.k for metric in trial.metrics))


def _fit(trial: Trial, solver: Any, val: LabeledQueries) -> NudgeFit:
    if not solver.needs.competitor_vectors:
        sample = {"competitor_vectors": trial.background} if solver.needs.competitor_sample else {}
        fit: NudgeFit = solver.fit(trial.originals, trial.train, val, **sample)
        return fit
    # The scores that the labels bring along are of queries as they are; vectors serve queries that a map has moved.
    train, val = replace(trial.train, competitors=None), replace(val, competitors=None)
    mapped: NudgeFit = solver.fit(trial.originals, train, val, background=trial.background)
    return mapped


def _is_unchanged(fit: NudgeFit) -> bool:
    return fit.gamma == 0 and fit.adapter is None and fit.node_map is None


def _as_pushed(trial: Trial, fit: NudgeFit) -> HeldOut:
    """Return the held-out queries and what competes with the labelled nodes after a push."""
    if fit.node_map is None or not len(trial.held_out.queries):
        return _map_queries(trial, fit.adapter)
    if trial.scan_mapped is None:
        raise ValueError("all nodes pass a map, and this trial cannot search among what they become")
    found = trial.scan_mapped(trial.held_out.queries, fit.node_map)
    return replace(trial.held_out, competitor_ids=found.ids, competitor_scores=found.scores)


def _as_live(trial: Trial) -> HeldOut:
    """Return the held-out queries and what competes with the labelled nodes now."""
    if trial.search_live is None or not len(trial.held_out.queries):
        return _map_queries(trial, trial.live_adapter)
    queries = trial.held_out.queries if trial.live_adapter is None else trial.live_adapter(trial.held_out.queries)
    found = trial.search_live(queries)
    return HeldOut(trial.held_out.qrels, queries, found.ids, found.scores)


def _map_queries(trial: Trial, adapter: Callable[[FloatArray], FloatArray] | None) -> HeldOut:
    """Return the held-out queries as they are searched after a push, with what the store finds for them."""
    if adapter is None or not len(trial.held_out.queries):
        return trial.held_out
    if trial.search is None:
        raise ValueError("queries pass a map, and this trial cannot search for what they become")
    queries = adapter(trial.held_out.queries)
    found = trial.search(queries)
    return HeldOut(trial.held_out.qrels, queries, found.ids, found.scores)


def _near_chance(trial: Trial, before: Evaluation) -> str:
    """Warn of a baseline near chance by exact scores, and say so for the summary; empty if it is better."""
    run = {query: list(found) for query, found in before.rankings.items()}
    found = find_chance(trial.held_out.qrels, run, trial.metrics)
    if found is None:
        return ""
    what = f"before tuning, {trial.metrics[0]} is near chance: {found[0]:.3f}, and {found[1]:.3f} with other queries'"
    warn_caller(
        f"{what} answers. Are queries embedded by the model that the nodes were embedded by, and do the labels name the"
        " right nodes?"
    )
    return f"; {what} answers"


def _store_answers(trial: Trial) -> StoreAnswers | None:
    """Ask the store itself, if its search is approximate; an exact one answers as the scores say."""
    if trial.store.capabilities.exact_search:
        return None
    if trial.stored is not None:
        return StoreAnswers(trial.store, trial.ids, trial.stored)
    with reading(trial.store, "the labelled nodes were read"):
        present = trial.store.matching(trial.ids, None)
        rows = [row for row, node_id in enumerate(trial.ids) if node_id in present]
        stored = np.array(trial.originals)
        stored[rows] = trial.store.read([trial.ids[row] for row in rows])
    return StoreAnswers(trial.store, trial.ids, stored)


def _draw_sample(trial: Trial) -> QuerySample:
    """Draw the queries that the store is asked, of each group that is told apart."""
    covered = set(_groups(trial)["covered"])
    return QuerySample.draw([(query in covered, query in trial.seen) for query in trial.held_out.qrels])


def _groups(trial: Trial) -> dict[str, list[str]]:
    """Divide the held-out queries into those with an answer that has a training label, and those without."""
    groups: dict[str, list[str]] = {"all": list(trial.held_out.qrels), "covered": [], "uncovered": []}
    for query, grades in trial.held_out.qrels.items():
        covered = any(grade > 0 and node in trial.trained for node, grade in grades.items())
        groups["covered" if covered else "uncovered"].append(query)
    return groups


def _summary(fit: NudgeFit, trial: Trial, gain: float, note: str) -> str:
    sizes = ", ".join(f"{size} {name}" for name, size in zip(Split._fields, trial.sizes, strict=True))
    unchanged = _is_unchanged(fit)
    if unchanged:
        verdict = f"{NOTHING_MOVES[why_nothing_moves(fit.tried)]}: nothing to push"
    else:
        verdict = f"{trial.metrics[0]} on held-out queries changes by {gain:+.3f}"
    # A user whose nodes do not move is to know why.
    stay = f" ({len(fit.opposed)} stay, as they point away from their queries)" if len(fit.opposed) else ""
    return (
        f"{fit.solver}, gamma {fit.gamma:.3g}, {len(fit.rows)} of {trial.store.count()} nodes labelled{stay},"
        f" {trial.reads}; queries: {sizes}; {verdict}{note}"
    )
