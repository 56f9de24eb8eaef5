"""Compare what a store held, holds, and would hold, on labelled pairs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.cli.outcome import UsageError
from nudge_rag.cli.resources import journal_of, load_model, load_pairs, open_named_store
from nudge_rag.common.caller import warn_caller
from nudge_rag.evaluation.measures import cutoff_of, resolve_measures
from nudge_rag.evaluation.retrievers import evaluate_retrievers
from nudge_rag.stores.mapped import MappedStore
from nudge_rag.stores.overlay import OverlayStore
from nudge_rag.tuning.label_matching import describe_strangers
from nudge_rag.tuning.queries import embed_texts
from nudge_rag.tuning.spelling import spell_pairs

if TYPE_CHECKING:
    from nudge_rag.common.arrays import FloatArray
    from nudge_rag.evaluation.retriever_comparison import RetrieverComparison
    from nudge_rag.feedback.pairs import LabeledPairs
    from nudge_rag.solvers import QueryAdapter
    from nudge_rag.stores.base import EmbeddingStore, SearchResult
    from nudge_rag.tuning.nudge import Nudge
    from nudge_rag.tuning.queries import EmbedQueries

__all__ = ["compare_states", "compare_stores", "name_states", "passes_gate"]

QUERIES_AT_ONCE = 1_000


def compare_states(arguments: argparse.Namespace, metrics: Sequence[str]) -> RetrieverComparison:
    """Evaluate the store as the arguments of ``eval`` say."""
    from nudge_rag.tuning.nudge import Nudge

    store, where = open_named_store(arguments.store), journal_of(arguments)
    pairs = load_pairs(arguments.pairs, arguments.format, encoding=arguments.encoding)
    trained = (
        load_pairs(arguments.trained_on, arguments.format, encoding=arguments.encoding)
        if arguments.trained_on
        else None
    )
    nudge = Nudge.load(arguments.nudge, store, **where) if arguments.nudge else None
    states = name_states(store, where, nudge)
    _warn_of_learned(store, where, pairs)
    return compare_stores(states, pairs, load_model(arguments.model), metrics, trained_on=trained)


def _warn_of_learned(store: EmbeddingStore, where: dict[str, Any], pairs: LabeledPairs) -> None:
    """Warn of queries that the live version was made from."""
    from nudge_rag.journal.journal import Journal
    from nudge_rag.tuning.gate import find_seen, live_queries

    live = Journal.open(store, where.get("versions")).live
    details = {} if live is None else live.manifest.get("details", {})
    seen = find_seen(pairs.queries, live_queries(details))
    if seen:
        warn_caller(
            f"{len(seen)} of {len(pairs.queries)} queries are among those that the live version was made from: on them"
            " it looks better than it is; evaluate it on others"
        )


def name_states(store: EmbeddingStore, where: dict[str, Any], nudge: Nudge | None) -> dict[str, EmbeddingStore]:
    """Return the originals ("untuned"), the store as it is ("live"), and what a nudge would make of it ("nudged").

    A store that no push is live in is its own original: it is called "untuned" then.
    """
    from nudge_rag.journal.journal import Journal
    from nudge_rag.journal.node_map import untouched_store
    from nudge_rag.tuning.adapters import live_adapter

    journal = Journal.open(store, where.get("versions"))
    live = journal.live
    states: dict[str, EmbeddingStore] = {"untuned": store}
    if live is not None:
        # A push of all nodes keeps its originals in blocks, which are read as they are asked for.
        streamed = live.is_streamed
        untuned = untouched_store(store, journal) if streamed else OverlayStore(store, live.ids, live.originals)
        states = {"untuned": untuned, "live": _with_map(store, live_adapter(store, **where))}
    if nudge is not None:
        base, node_map = states["untuned"], nudge.node_map
        if node_map is not None:
            base = MappedStore(base, lambda _, vectors: node_map.apply_to_usable(vectors))
        states["nudged"] = _with_map(OverlayStore(base, nudge.ids, nudge.vectors), nudge.adapter)
    return states


class _MappedStore:
    """A store whose searches map their queries first; everything else is the store's own."""

    def __init__(self, store: EmbeddingStore, adapter: QueryAdapter) -> None:
        self._store, self._adapter = store, adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search(self, queries: FloatArray, k: int, *, where: Any = None) -> SearchResult:
        """Search for mapped queries."""
        return self._store.search(self._adapter(queries), k, where=where)


def _with_map(store: EmbeddingStore, adapter: QueryAdapter | None) -> Any:
    return store if adapter is None else _MappedStore(store, adapter)


def compare_stores(
    states: Mapping[str, EmbeddingStore],
    pairs: LabeledPairs,
    embed: EmbedQueries,
    metrics: Sequence[str],
    *,
    trained_on: LabeledPairs | None = None,
    baseline: str | None = None,
) -> RetrieverComparison:
    """Evaluate searches of each state by the same query embeddings, each text embedded once."""
    first = next(iter(states.values()))
    pairs = _known_pairs(first, pairs)
    texts = list(dict.fromkeys(pairs.queries.values()))
    vectors = embed_texts(texts, embed, _dimension(first), first.capabilities.similarity)
    k = cutoff_of(resolve_measures(metrics))
    retrievers = {name: _searcher(state, vectors, k) for name, state in states.items()}
    return evaluate_retrievers(retrievers, pairs, metrics, trained_on=trained_on, baseline=baseline)


def _known_pairs(store: EmbeddingStore, pairs: LabeledPairs) -> LabeledPairs:
    """Leave out labels of nodes that are not in the store, as `tune` does: no retriever can find them."""
    pairs = spell_pairs(pairs, store)
    known, unknown = pairs.restrict_to(store.matching(list(pairs.node_ids), None))
    if not known.n_queries:
        raise UsageError(describe_strangers(pairs.node_ids, store))
    if unknown:
        warn_caller(str(unknown))
    return known


def _dimension(store: EmbeddingStore) -> int:
    for _, vectors in store.scan(1):
        return int(vectors.shape[1])
    raise UsageError(f"{store.name} holds no nodes: add them before it is evaluated")


def _searcher(store: EmbeddingStore, vectors: dict[str, Any], k: int) -> Callable[[str], list[str]]:
    """A function that answers a text, and asks the store for many at once: files are read whole for each call."""
    dtype = store.capabilities.dtype
    texts = list(vectors)
    block_of = {text: number // QUERIES_AT_ONCE for number, text in enumerate(texts)}
    answers: dict[str, list[str]] = {}
    failed: set[int] = set()

    def ask(asked: list[str]) -> None:
        found = store.search(np.stack([np.asarray(vectors[text], dtype=dtype) for text in asked]), k)
        answers.update(zip(asked, map(list, found.ids), strict=True))

    def search(text: str) -> list[str]:
        block = block_of[text]
        if text not in answers and block not in failed:
            try:
                ask(texts[block * QUERIES_AT_ONCE : (block + 1) * QUERIES_AT_ONCE])
            except Exception:
                failed.add(block)  # a query that the store fails on fails alone
        if text not in answers:
            ask([text])
        return answers[text]

    return search


def passes_gate(found: RetrieverComparison, gate: str) -> tuple[bool, str]:
    """Return whether the last retriever changes by at least what ``METRIC:CHANGE`` says, and a sentence.

    Raises:
        UsageError: another form, a metric that was not evaluated, or one retriever only.
    """
    metric, colon, text = gate.rpartition(":")
    try:
        wanted = float(text)
        colon = colon if math.isfinite(wanted) else ""
    except ValueError:
        colon = ""
    if not colon or metric not in found.metrics:
        raise UsageError(f"--fail-under must be one of {', '.join(found.metrics)}, a colon and a change, got {gate!r}")
    last = found.systems[-1]
    row = found.row(last, metric)
    if row.difference is None:
        raise UsageError("--fail-under compares two retrievers: there is neither a push that is live nor --nudge")
    passed = row.difference >= wanted
    verb = "passes" if passed else "fails"
    return passed, f"gate {verb}: {metric} of {last} changes by {row.difference:+.3f}, wanted {wanted:+.3f}"
