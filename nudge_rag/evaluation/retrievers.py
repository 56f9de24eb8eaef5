"""Evaluate retrievers on labelled pairs, and compare each with a baseline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from nudge_rag.common.caller import warn_caller
from nudge_rag.common.progress import track
from nudge_rag.common.text import printable
from nudge_rag.evaluation.answers import NodeIdOf
from nudge_rag.evaluation.groups import group_queries
from nudge_rag.evaluation.measures import cutoff_of, measure_rankings, resolve_measures
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison, compare_systems
from nudge_rag.evaluation.searches import (
    Search,
    SearchRun,
    collect_answers,
    collect_answers_at_once,
    resolve_search,
    run_coroutine,
)
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.renaming import spell_as

__all__ = ["DEFAULT_MEASURES", "OnFailure", "aevaluate_retrievers", "evaluate_retrievers"]

DEFAULT_MEASURES = ("nDCG@10", "Recall@10", "MRR@10")
OnFailure: TypeAlias = Literal["exclude", "zero", "raise"]
Slices: TypeAlias = Mapping[str, Mapping[str, object]]


def evaluate_retrievers(
    retrievers: Mapping[str, Any],
    pairs: LabeledPairs,
    metrics: Sequence[str | Metric] = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
    trained_on: LabeledPairs | Collection[str] | None = None,
    new_nodes: Collection[str] = (),
    slices: Slices | None = None,
    node_id: NodeIdOf | None = None,
    on_failure: OnFailure = "exclude",
    concurrency: int = 1,
) -> RetrieverComparison:
    """Ask every retriever every query of ``pairs``, and compare each with the baseline on the same queries.

    Labels whose node ids are other spellings of ids that are found (a UUID without hyphens, "007") are those nodes'.

    The values come from ir-measures if it is installed (``pip install 'nudge-rag[evaluation]'``), else from our own
    metrics, which agree with it. Differences have paired bootstrap intervals and a paired randomization test; within a
    group of queries, p-values are adjusted by Holm over systems and metrics.

    Args:
        retrievers: name to a LlamaIndex retriever or query engine, a LangChain retriever or runnable, or a function
            (or coroutine function) of a query's text that returns node ids, nodes or documents, best first.
        pairs: labelled pairs that none of the retrievers was tuned on.
        metrics: such as ``["nDCG@10", "Recall@5"]``; with ir-measures also its own, such as ``"AP@10"``.
        baseline: name of the retriever that others are compared with; default the first.
        trained_on: the training labels, or the ids of the nodes that have one: covered queries (an answer has a
            training label) are then shown apart from uncovered ones.
        new_nodes: ids of nodes that nobody could have labelled yet; their queries are a group of their own.
        slices: name of a field to {query id: value}; every value is a group (see `slice_by_node`).
        node_id: takes one item of an answer and returns the node id that the labels use.
        on_failure: a query that a retriever failed on is reported, and then left out for all retrievers
            (``"exclude"``), counted as 0 (``"zero"``), or ends the evaluation (``"raise"``).
        concurrency: how many queries are asked at once; above 1, asynchronous retrievers are awaited and others are
            asked in threads, which they must allow.

    Returns:
        A `RetrieverComparison`: print it, or ``to_dict()``, ``to_dataframe()``, ``to_markdown()``, ``to_latex()``.

    Raises:
        TypeError: something that is no retriever, or an answer without node ids.
        ValueError: arguments that do not fit, named; every query failed.
        RuntimeError: a query failed and ``on_failure="raise"``.

    Warns:
        UserWarning: queries that failed, and repeated nodes that were removed, by retriever and count.

    Example:
        >>> pairs = LabeledPairs.from_pairs([("leave", "exit"), ("pay", "bill")])
        >>> found = evaluate_retrievers({"one": lambda text: ["exit"], "two": lambda text: ["bill", "exit"]}, pairs)
        >>> found.mean("one", "Recall@10"), found.mean("two", "Recall@10")
        (0.5, 1.0)
    """
    searches = _check_arguments(retrievers, pairs, baseline, on_failure, concurrency)
    measures = resolve_measures(metrics)
    groups = group_queries(pairs, trained_on, new_nodes, slices or {})
    runs = {}
    for name, search in searches.items():
        ticks = iter(track(range(pairs.n_queries), f"asking {name}", total=pairs.n_queries))
        tick = _ticker(ticks)
        if concurrency == 1:
            runs[name] = collect_answers(search, pairs.queries, node_id, tick)
        else:
            runs[name] = run_coroutine(_collector(search, pairs.queries, node_id, tick, concurrency))
        next(ticks, None)  # closes the bar
    return _compare(runs, pairs, measures, groups, baseline, on_failure)


async def aevaluate_retrievers(
    retrievers: Mapping[str, Any],
    pairs: LabeledPairs,
    metrics: Sequence[str | Metric] = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
    trained_on: LabeledPairs | Collection[str] | None = None,
    new_nodes: Collection[str] = (),
    slices: Slices | None = None,
    node_id: NodeIdOf | None = None,
    on_failure: OnFailure = "exclude",
    concurrency: int = 8,
) -> RetrieverComparison:
    """Do what `evaluate_retrievers` does, in the event loop that the retrievers' own connections belong to.

    Example:
        >>> import asyncio
        >>> async def find(text): return ["exit"]
        >>> pairs = LabeledPairs.from_pairs([("leave", "exit")])
        >>> asyncio.run(aevaluate_retrievers({"one": find}, pairs)).mean("one", "MRR@10")
        1.0
    """
    searches = _check_arguments(retrievers, pairs, baseline, on_failure, concurrency)
    measures = resolve_measures(metrics)
    groups = group_queries(pairs, trained_on, new_nodes, slices or {})
    runs = {
        name: await collect_answers_at_once(search, pairs.queries, node_id, lambda: None, concurrency)
        for name, search in searches.items()
    }
    return _compare(runs, pairs, measures, groups, baseline, on_failure)


def _check_arguments(
    retrievers: Mapping[str, Any], pairs: LabeledPairs, baseline: str | None, on_failure: str, concurrency: int
) -> dict[str, Search]:
    if not isinstance(retrievers, Mapping) or not retrievers:
        raise ValueError(f"retrievers must be a mapping of names to retrievers, got {retrievers!r}")
    unnamed = [name for name in retrievers if not isinstance(name, str) or not name.strip()]
    if unnamed:
        raise ValueError(f"retrievers are named by text that is not empty, got {unnamed[0]!r}")
    if not isinstance(pairs, LabeledPairs):
        raise TypeError(f"pairs must be LabeledPairs, got {type(pairs).__name__}")
    if not pairs.n_queries:
        raise ValueError("pairs hold no query")
    if baseline is not None and baseline not in retrievers:
        raise ValueError(f"baseline must be one of {', '.join(map(repr, retrievers))}, got {baseline!r}")
    if on_failure not in ("exclude", "zero", "raise"):
        raise ValueError(f"on_failure must be 'exclude', 'zero' or 'raise', got {on_failure!r}")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"concurrency must be a positive integer, got {concurrency!r}")
    return {name: resolve_search(retriever, name) for name, retriever in retrievers.items()}


def _ticker(ticks: Any) -> Callable[[], None]:
    def tick() -> None:
        next(ticks, None)

    return tick


def _collector(
    search: Search, queries: Mapping[str, str], node_id: NodeIdOf | None, tick: Callable[[], None], limit: int
) -> Callable[[], Awaitable[SearchRun]]:
    return lambda: collect_answers_at_once(search, queries, node_id, tick, limit)


def _compare(
    runs: Mapping[str, SearchRun],
    pairs: LabeledPairs,
    measures: Sequence[Metric | str],
    groups: Mapping[str, Sequence[str]],
    baseline: str | None,
    on_failure: str,
) -> RetrieverComparison:
    _report(runs, pairs.n_queries, on_failure)
    failed = {query for run in runs.values() for query in run.failures}
    left = [query for query in pairs.queries if on_failure == "zero" or query not in failed]
    if not left or (on_failure == "zero" and all(len(run.failures) == pairs.n_queries for run in runs.values())):
        name, run = next((name, run) for name, run in runs.items() if run.failures)
        raise ValueError(
            f"no query is left to evaluate: every one failed for some retriever ({name}: "
            f"{next(iter(run.failures.values()))})"
        )
    found = {node for run in runs.values() for ranking in run.rankings.values() for node in ranking}
    judged = spell_as(pairs.subset(left), found)
    measured = {name: measure_rankings(judged.qrels, run.rankings, measures) for name, run in runs.items()}
    first = next(iter(runs))
    comparison = compare_systems(
        runs,
        {name: values for name, (values, _) in measured.items()},
        judged,
        groups={group: [query for query in queries if query in judged.queries] for group, queries in groups.items()},
        sources=measured[first][1],
        baseline=baseline or first,
        depth=cutoff_of(measures),
    )
    excluded = () if on_failure == "zero" else tuple(query for query in pairs.queries if query in failed)
    return replace(comparison, excluded=excluded)


def _report(runs: Mapping[str, SearchRun], n_queries: int, on_failure: str) -> None:
    consequence = {
        "exclude": "they are left out for every retriever",
        "zero": "they count as 0",
        "raise": "the evaluation ends",
    }[on_failure]
    for name, run in runs.items():
        if run.failures:
            query, error = next(iter(run.failures.items()))
            message = (
                f"{printable(name)} failed on {len(run.failures)} of {n_queries} queries, such as {query!r} "
                f"({printable(error)})"
            )
            if on_failure == "raise":
                raise RuntimeError(message)
            warn_caller(f"{message}; {consequence}")
        if run.duplicates:
            warn_caller(
                f"{printable(name)} returned a node twice in {len(run.duplicates)} of {n_queries} queries; "
                f"{sum(run.duplicates.values())} repeats were removed"
            )
