"""`scan`: the best nodes of many queries in one pass over a store, on any executor."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nudge_rag.common.blas_threads import one_blas_thread
from nudge_rag.common.progress import track
from nudge_rag.stores.base import EmbeddingStore, SearchResult
from nudge_rag.stores.checks import check_queries
from nudge_rag.stores.lake.batch import Batch, Workspace
from nudge_rag.stores.lake.best import NO_ROW, Best, BestNodes, Question, merge_best
from nudge_rag.stores.lake.executors import map_fragments
from nudge_rag.stores.lake.fragments import Fragment, FragmentedStore, StoreFragment

__all__ = ["find_best", "scan"]

# As many nodes of a batch as give a product of this size, within limits.
SCORES_PER_BATCH = 16_000_000
FEWEST, MOST = 512, 16_384
# A thread has so many queries at least, and so many at once: scores of more do not fit the processor's cache.
# More threads than this would wait for the one that reads.
QUERIES_PER_THREAD, QUERIES_AT_ONCE, MOST_THREADS = 500, 4_000, 8


def scan(
    source: EmbeddingStore,
    queries: ArrayLike,
    k: int,
    executor: Executor | None = None,
    *,
    where: Any = None,
    without: Collection[str] = (),
) -> SearchResult:
    """Find the k best nodes of each query in one pass over every vector; only m x k nodes leave a worker.

    Each fragment is read once, for all queries, by a `concurrent.futures.Executor`: processes, the threads or processes
    of a dask cluster (``Client.get_executor()``), or anything else of that interface. The answer is the same whatever
    computes it: scores are float64, each from its query and node alone, and of equal scores the node that the store
    scans first is first.

    Args:
        source: the store. One without fragments is scanned by this process.
        queries: (m, d).
        k: how many nodes per query.
        executor: reads the fragments; None for the store's own, or else this process.
        where: a filter in the store's form; only stores with fragments take one.
        without: ids of nodes that are left out.

    Returns:
        Ids and scores, best first, in the store's similarity.

    Raises:
        ValueError: queries that do not fit; a vector that is not finite, by its node.
        TypeError: anything but an executor.
        StoreError: the store was changed while it was read, or workers died again and again.
        MissingPackageError: threadpoolctl, which keeps workers from sharing processors, is not installed.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [2.0, 0.0]})
        >>> found = scan(store, [[1.0, 0.5]], 2)
        >>> found.ids, found.scores[0].round(4).tolist()
        ([['a', 'c']], [0.8944, 0.8944])
    """
    best = find_best(source, queries, k, executor, where=where, without=without)
    counts = (best.scores > -np.inf).sum(axis=1).tolist()
    return SearchResult(
        [line[:count].tolist() for line, count in zip(best.ids, counts, strict=True)],
        [line[:count] for line, count in zip(best.scores, counts, strict=True)],
    )


def find_best(
    source: EmbeddingStore,
    queries: ArrayLike,
    k: int,
    executor: Executor | None = None,
    *,
    where: Any = None,
    without: Collection[str] = (),
) -> Best:
    """`scan`, with the rows of the nodes and the number of those that were read."""
    rows = check_queries(queries, k, dimension=getattr(source, "dimension", None)).astype(np.float64)
    if not len(rows):
        return Best.nothing(0, int(k))
    fragments, executor = _fragments_of(source, where, executor)
    firsts = np.cumsum([0, *(fragment.rows for fragment in fragments)])
    # No more than there are: room for so many is made for each query.
    most = max(1, min(int(k), int(firsts[-1])))
    question = Question(rows, most, source.capabilities.similarity, frozenset(without), secrets.token_hex(8))
    best = Best.nothing(len(rows), most)
    ask = best_of_fragment if executor is not None else best_by_threads
    found = map_fragments(ask, fragments, question, executor)
    for number, part in track(found, "scanning the store", total=len(fragments)):
        rows_before = np.where(part.rows == NO_ROW, 0, firsts[number])
        best = merge_best(best, replace(part, rows=part.rows + rows_before))
    return best


def best_of_fragment(fragment: Fragment, question: Question) -> Best:
    """Find the best nodes of one fragment."""
    best = BestNodes(question)
    for names, vectors in fragment.batches(_batch_size(question)):
        best.add(names, vectors)
    return _told(best.result(), question)


def best_by_threads(fragment: Fragment, question: Question) -> Best:
    """Find the best nodes of one fragment, with a thread a processor if the queries are many: each has its share.

    The next batch is read while the threads look at one.
    """
    n_queries = len(question.queries)
    n_threads = max(1, min(MOST_THREADS, _count_processors(), n_queries // QUERIES_PER_THREAD))
    n_shares = n_threads * -(-n_queries // (n_threads * QUERIES_AT_ONCE))
    if n_shares < 2:
        return best_of_fragment(fragment, question)
    spaces = [Workspace() for _ in range(n_threads)]
    shares = [BestNodes(share, spaces[number % n_threads]) for number, share in enumerate(question.divide(n_shares))]
    node_space, looking = Workspace(), list[Future[None]]()
    with one_blas_thread(), ThreadPoolExecutor(n_threads) as pool:
        for names, vectors in fragment.batches(_batch_size(question)):
            _wait(looking)
            batch = Batch(names, vectors, question.similarity, question.without, node_space)
            looking = [pool.submit(_look, shares[number::n_threads], batch) for number in range(n_threads)]
        _wait(looking)
    parts = [share.result() for share in shares]
    scores, rows, ids = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "rows", "ids"))
    return _told(Best(scores, rows, ids, parts[0].read), question)


def _look(shares: Sequence[BestNodes], batch: Batch) -> None:
    for share in shares:
        share.look(batch)


def _wait(looking: Sequence[Future[None]]) -> None:
    """Wait for threads; what one of them raises is raised here."""
    for each in looking:
        each.result()


def _batch_size(question: Question) -> int:
    return min(MOST, max(FEWEST, SCORES_PER_BATCH // len(question.queries)))


def _count_processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _told(found: Best, question: Question) -> Best:
    """The best nodes of one fragment, of which scans of others are told the last."""
    # Threads may do so at once: what one of them leaves is the k-th best of some fragment all the same.
    np.maximum(question.floor, found.scores[:, -1], out=question.floor)
    return found


def _fragments_of(
    source: EmbeddingStore, where: Any, executor: Executor | None
) -> tuple[Sequence[Fragment], Executor | None]:
    if isinstance(source, FragmentedStore):
        executor = source.executor if executor is None else executor
        if executor is not None or where is not None:
            return source.fragments(where), executor
        return [_Tracked(source)], None
    if where is not None:
        raise ValueError(f"a {source.name} store has no fragments: scan takes no filter there, search does")
    if executor is not None:
        raise ValueError(f"a {source.name} store has no fragments for an executor: leave executor out")
    return [_Tracked(source)], None


class _Tracked(StoreFragment):
    """A store's nodes, with a bar while they are read."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """All nodes."""
        return track(super().batches(batch_size), "scanning the store", total=-(-self.rows // batch_size))
