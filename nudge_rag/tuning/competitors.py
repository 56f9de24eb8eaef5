"""Find the best unlabelled nodes of each query, by the store's own search or by streaming everything once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.common.progress import track
from nudge_rag.common.similarity import scorer_of
from nudge_rag.errors import StoreError
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.stores.lake.scanning import find_best

__all__ = ["CompetitorMethod", "Competitors", "StoreReads", "find_competitors"]

CompetitorMethod: TypeAlias = Literal["auto", "search", "scan"]
ReadMethod: TypeAlias = Literal["search", "scan"]
METHODS: tuple[CompetitorMethod, ...] = ("auto", "search", "scan")
# Searches that take fewer seconds are made, whatever a scan would take.
SEARCHED_AT_LEAST = 4.0
# Seconds on one processor: a search of up to so many nodes through a database's index, and a number of a vector that
# one without an index looks at; a node that is read, and a query's score of it, which is a product of two vectors.
SEARCH, NODES_PER_SEARCH, LOOK = 2e-3, 100, 1e-9
READ, SCORE, PRODUCT = 1e-5, 1.3e-9, 2.7e-11
SCORES_PER_BLOCK = 4_000_000
# Between two steps of the bar.
QUERIES_AT_ONCE = 1_000
# Stores add up in another order than numpy: scores this close, relative to 1 + |score|, count as equal.
ROUNDING = 1e-5
# Below this share of known nodes found, a store's index is too coarse to choose a step by.
ENOUGH_FOUND = 0.95


@dataclass(frozen=True)
class StoreReads:
    """What was read from a store, and how far its answers can be trusted.

    Attributes:
        method: ``search`` (the store's own nearest-neighbour search, of some queries at least) or ``scan`` (everything
            streamed once).
        exact: whether the store's lists are exact: always for scan.
        vectors_read: number of vectors that left the store.
        queries: number of queries whose best unlabelled nodes were looked for.
        expected: how many labelled nodes belong in the lists that the store returned, by their exact scores.
        found: how many of those were in them.
        short: queries for which the store returned fewer nodes than asked for although it holds more.
    """

    method: ReadMethod
    exact: bool
    vectors_read: int
    queries: int
    expected: int = 0
    found: int = 0
    short: int = 0

    @property
    def recall(self) -> float:
        """Share of the labelled nodes that the store's search should have returned and did; 1 if there are none.

        A node that it misses can only make a rank look better than it is, by one place per node. Measured on the
        labelled nodes, whose exact scores are known anyway; the unlabelled ones are searched by the same index.
        """
        return self.found / self.expected if self.expected else 1.0

    @classmethod
    def none(cls, method: CompetitorMethod) -> StoreReads:
        """Return those of nothing that was read yet."""
        return cls("scan" if method == "scan" else "search", True, 0, 0)

    def __add__(self, other: StoreReads) -> StoreReads:
        """Add up reads of one store."""
        names = ("vectors_read", "queries", "expected", "found", "short")
        sums = (getattr(self, name) + getattr(other, name) for name in names)
        searched = any(reads.method == "search" and reads.queries for reads in (self, other))
        return StoreReads("search" if searched else other.method, self.exact and other.exact, *sums)

    def __str__(self) -> str:
        if self.method == "scan":
            return f"{self.vectors_read} vectors read (scan, exact)"
        how = "exact" if self.exact else f"approximate: {self.found} of {self.expected} known nodes found"
        return f"{self.vectors_read} vectors read (search, {how})"


@dataclass(frozen=True)
class Competitors:
    """The best unknown nodes of each query, best first, and how they were found.

    Attributes:
        ids: one list of node ids per query.
        scores: one float64 array per query, larger is better, in the store's similarity.
        reads: what was asked of the store.
    """

    ids: list[list[str]]
    scores: list[Float64Array]
    reads: StoreReads


def find_competitors(
    store: EmbeddingStore,
    queries: FloatArray,
    known: Sequence[str],
    vectors: FloatArray,
    depth: int,
    method: CompetitorMethod,
) -> Competitors:
    """Find the ``depth`` best nodes of each query that are not among ``known``.

    Args:
        store: the vector store.
        queries: (m, d).
        known: ids left out; all of them are in the store.
        vectors: (c, d), what the store holds now for the first c of them: they tell how good its search is.
        depth: how many nodes per query; fewer if the store holds fewer.
        method: ``"search"`` asks the store for more and more neighbours until enough unknown ones are among them;
            ``"scan"`` reads every vector once, on the store's executor if it has one, and is exact; ``"auto"`` scans
            for the queries whose searches would take longer, as `_scan_is_quicker` reckons.

    Raises:
        ValueError: an unknown method; a scanned vector that is not finite, by its id.
        StoreError: the store failed, or gave another number of lists than asked for.

    Warns:
        UserWarning: the store returned too few neighbours, or its index missed more than 5 % of the known nodes.
    """
    if method not in METHODS:
        raise ValueError(f"competitors must be 'auto', 'search' or 'scan', got {method!r}")
    if not len(queries) or depth < 1:
        return Competitors([[] for _ in queries], [np.zeros(0) for _ in queries], StoreReads.none(method))
    if method == "scan":
        return _scanned(store, queries, set(known), depth)
    return _searched(store, queries, known, vectors, depth, may_scan=method == "auto")


def _scan_is_quicker(store: EmbeddingStore, n_queries: int, dimension: int, size: int, asked: int) -> bool:
    """Whether one pass over all ``size`` nodes takes less time than a search of the ``asked`` best for each query.

    By what these take in the databases of this library, on one processor. Not by a clock: the answers of an approximate
    index are others than those of a scan, and the same call must give the same result.
    """
    search = SEARCH * max(1.0, asked / NODES_PER_SEARCH)
    if store.capabilities.exact_search:
        search = max(search, LOOK * size * dimension)
    scan = size * READ + n_queries * size * (SCORE + PRODUCT * dimension)
    return n_queries * search > max(scan, SEARCHED_AT_LEAST)


def _searched(
    store: EmbeddingStore,
    queries: FloatArray,
    known: Sequence[str],
    vectors: FloatArray,
    depth: int,
    *,
    may_scan: bool,
) -> Competitors:
    hidden, size = set(known), store.count()
    wanted = min(depth, size - len(known))
    lists: list[tuple[list[str], Float64Array]] = [([], np.zeros(0)) for _ in queries]
    asked, short = min(wanted + min(wanted, len(known)), size), set[int]()
    if wanted <= 0 and not store.capabilities.exact_search:
        # Nobody competes, but how many nodes the index finds is to be known all the same.
        asked = min(depth, size)
    pending = list(range(len(queries))) if asked > 0 else []
    may_scan = may_scan and wanted > 0
    scanned: list[int] = []
    while pending:
        if may_scan and _scan_is_quicker(store, len(pending), queries.shape[1], size, asked):
            scanned = pending
            break
        for row, ids, scores in zip(pending, *_neighbours(store, queries[pending], asked), strict=True):
            if len(ids) < asked:
                short.add(row)
            if len(ids) > len(lists[row][0]):
                lists[row] = ids, scores
        pending = [row for row in pending if row not in short and len(set(lists[row][0]) - hidden) < wanted]
        if asked == size:
            break
        asked = min(2 * asked, size)
    if len(scanned) == len(queries):
        return _scanned(store, queries, hidden, depth)
    expected, found = _known_found(store, queries, known, vectors, lists)
    kept = [_without(ids, scores, hidden, depth) for ids, scores in lists]
    incomplete = sum(len(kept[row][0]) < wanted for row in short)
    n_read = 0
    if scanned:
        rest = _scanned(store, queries[scanned], hidden, depth)
        n_read = rest.reads.vectors_read
        for row, ids, scores in zip(scanned, rest.ids, rest.scores, strict=True):
            kept[row] = ids, scores
    reads = StoreReads("search", store.capabilities.exact_search, n_read, len(queries), expected, found, incomplete)
    _warn_of_gaps(store, reads)
    return Competitors([ids for ids, _ in kept], [scores for _, scores in kept], reads)


def _neighbours(store: EmbeddingStore, queries: FloatArray, k: int) -> tuple[list[list[str]], list[Float64Array]]:
    ids: list[list[str]] = []
    scores: list[Float64Array] = []
    for first in track(range(0, len(queries), QUERIES_AT_ONCE), "asking the store for neighbours"):
        part = queries[first : first + QUERIES_AT_ONCE]
        with reading(store, f"searching the nearest nodes of {len(part)} queries"):
            found = store.search(part, k)
        if len(found.ids) != len(part) or len(found.scores) != len(part):
            raise StoreError(f"{store.name} returned {len(found.ids)} lists of neighbours for {len(part)} queries")
        ids += found.ids
        scores += found.scores
    return ids, scores


def _without(ids: list[str], scores: Float64Array, hidden: set[str], depth: int) -> tuple[list[str], Float64Array]:
    at = [place for place, node_id in enumerate(ids) if node_id not in hidden][:depth]
    return [ids[place] for place in at], np.asarray(scores, dtype=np.float64)[at]


def _known_found(
    store: EmbeddingStore,
    queries: FloatArray,
    known: Sequence[str],
    vectors: FloatArray,
    lists: list[tuple[list[str], Float64Array]],
) -> tuple[int, int]:
    """Count the known nodes that score above the last node of each list, and those of them that are in it."""
    expected = found = 0
    step = max(1, SCORES_PER_BLOCK // max(1, len(vectors)))
    score = scorer_of(vectors, store.capabilities.similarity)
    for first in range(0, len(queries), step):
        part = lists[first : first + step]
        last = np.array([scores[-1] if len(scores) else np.inf for _, scores in part])
        scores = score(queries[first : first + step])
        rows, columns = np.nonzero(scores > (last + ROUNDING * (1 + np.abs(last)))[:, None])
        members = [set(ids) for ids, _ in part]
        expected += len(rows)
        found += sum(known[column] in members[row] for row, column in zip(rows.tolist(), columns.tolist(), strict=True))
    return expected, found


def _warn_of_gaps(store: EmbeddingStore, reads: StoreReads) -> None:
    if reads.short:
        warn_caller(
            f"{store.name} returned fewer neighbours than asked for {reads.short} of {reads.queries} queries although"
            " it holds more: their ranks may look better than they are (competitors='scan' reads everything)",
        )
    if reads.recall < ENOUGH_FOUND:
        warn_caller(
            f"the index of {store.name} finds only {reads.found} of {reads.expected} labelled nodes that belong among"
            " the nearest: choose the step with competitors='scan', or make the index search more widely",
        )


def _scanned(store: EmbeddingStore, queries: FloatArray, hidden: set[str], depth: int) -> Competitors:
    with reading(store, "it was scanned"):
        best = find_best(store, queries, depth, without=hidden)
    counts = (best.scores > -np.inf).sum(axis=1)
    found = [line[:count].tolist() for line, count in zip(best.ids, counts, strict=True)]
    kept = [line[:count] for line, count in zip(best.scores, counts, strict=True)]
    return Competitors(found, kept, StoreReads("scan", True, best.read, len(queries)))
