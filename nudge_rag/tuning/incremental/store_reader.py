"""What a `TuningState` reads from its store, and the account of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.feedback.pairs import UnknownNodes
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.journal.learned_queries import live_queries
from nudge_rag.journal.node_map import untouched_store
from nudge_rag.solvers.registry import Solver
from nudge_rag.stores.access import read_present, reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.competitor_pool import read_pool
from nudge_rag.tuning.competitors import CompetitorMethod, Competitors, StoreReads, find_competitors

__all__ = ["StoreReader"]


@dataclass(eq=False)
class StoreReader:
    """Reads original and live vectors, and the best unlabelled nodes of queries; ``reads`` adds up what it took.

    Attributes:
        store: the vector store.
        versions: where the history of its pushes is, as in `nudge_rag.tune`.
        competitors: how the best unlabelled nodes are found, as in `nudge_rag.tune`.
        reads: what was read so far.
    """

    store: EmbeddingStore
    versions: Path | None
    competitors: CompetitorMethod
    reads: StoreReads

    def untouched(self) -> EmbeddingStore:
        """Return the store as it was before all of its nodes were written, if they were."""
        return untouched_store(self.store, Journal.open(self.store, self.versions))

    def learned(self) -> set[str]:
        """Return hashes of the queries that the version that is live was made from."""
        live = Journal.open(self.store, self.versions).live
        return set() if live is None else live_queries(live.manifest["details"])

    def read_originals(self, ids: list[str]) -> FloatArray:
        """Read what nodes held before the pushes.

        Raises:
            ValueError: a vector holds NaN or infinite values.
            nudge_rag.stores.StoreError: the store failed.
        """
        with reading(self.store, "nodes were read"):
            current = self.store.read(ids)
        bad = ~np.isfinite(current).all(axis=1)
        if bad.any():
            raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
        self._count_vectors(len(ids))
        return original_vectors(self.store, ids, current, self.versions)

    def read_new(self, named: Sequence[str], known: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Read the originals of named nodes, and of those nudged by an earlier push, that are not known yet."""
        wanted = list(dict.fromkeys([*named, *nudged_ids(self.store, self.versions)]))
        wanted = [node_id for node_id in wanted if node_id not in known]
        with reading(self.store, "the labelled nodes were read"):
            present = self.store.matching(wanted, None)
        unknown = {node_id: named.count(node_id) for node_id in wanted if node_id not in present}
        unknown = {node_id: count for node_id, count in unknown.items() if count}
        if unknown:
            warn_caller(str(UnknownNodes(unknown, ())))
        ids = [node_id for node_id in wanted if node_id in present]
        return dict(zip(ids, self.read_originals(ids), strict=True)) if ids else {}

    def read_live(self, ids: list[str], originals: Mapping[str, FloatArray]) -> FloatArray:
        """Read what the store holds; only nodes that an earlier push moved can differ from their originals."""
        nudged = [node_id for node_id in nudged_ids(self.store, self.versions) if node_id in originals]
        if self.untouched() is not self.store:
            nudged = ids
        with reading(self.store, "nodes were read"):
            moved, _ = read_present(self.store, nudged)
        return np.stack([moved.get(node_id, originals[node_id]) for node_id in ids])

    def find_lists(
        self, vectors: list[FloatArray], originals: Mapping[str, FloatArray], depth: int
    ) -> list[tuple[list[str], Float64Array]]:
        """Find ids and scores of the best unlabelled nodes of each query.

        Known nodes that hold their originals tell how good the store's search is.
        """
        if not vectors:
            return []
        competitors = self.find_unlabelled(np.stack(vectors), originals, depth)
        self.reads += competitors.reads
        return list(zip(competitors.ids, competitors.scores, strict=True))

    def find_unlabelled(self, queries: FloatArray, originals: Mapping[str, FloatArray], depth: int) -> Competitors:
        """Find the best unlabelled nodes of queries among the vectors from before the pushes."""
        untouched = self.untouched()
        if untouched is not self.store:
            # All nodes were written, and no index knows what they were before: they are streamed.
            return find_competitors(untouched, queries, list(originals), queries[:0], depth, "scan")
        nudged = set(nudged_ids(self.store, self.versions))
        known = sorted(originals, key=lambda node_id: node_id in nudged)
        checked = np.array([originals[node_id] for node_id in known if node_id not in nudged])
        checked = checked.reshape(-1, queries.shape[1])
        return find_competitors(self.store, queries, known, checked, depth, self.competitors)

    def search_live(self, queries: FloatArray, originals: Mapping[str, FloatArray], depth: int) -> Competitors:
        """Find the best unlabelled nodes of queries with the vectors that are live."""
        ids = list(originals)
        return find_competitors(self.store, queries, ids, self.read_live(ids, originals), depth, self.competitors)

    def read_pool(self, solver: Solver, lists: list[list[str]]) -> FloatArray | None:
        """Read unlabelled nodes of the queries' lists, if the solver learns from them."""
        pool = read_pool(self.untouched(), solver, [lists])
        if pool is not None:
            self._count_vectors(len(pool))
        return pool

    def _count_vectors(self, count: int) -> None:
        self.reads = replace(self.reads, vectors_read=self.reads.vectors_read + count)
