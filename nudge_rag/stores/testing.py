"""A contract that every store must keep: subclass `StoreContract` to test an adapter of your own. Needs pytest."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import score_matrix
from nudge_rag.errors import UnknownIdError
from nudge_rag.stores.access import same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["StoreContract"]


class StoreContract:
    """Tests of an `EmbeddingStore`; a subclass named ``Test...`` overrides the fixture ``store``.

    The store must hold at least 10 nodes, and be a new one for each test. Searches are compared with brute force if the
    store says that they are exact.

    Example:
        >>> from nudge_rag.stores import MappingStore
        >>> class TestMyStore(StoreContract):
        ...     @pytest.fixture
        ...     def store(self):
        ...         return MappingStore({str(i): [float(i), 1.0] for i in range(12)})
    """

    @pytest.fixture
    def store(self) -> EmbeddingStore:
        """The store under test."""
        raise NotImplementedError("override the fixture store")

    def test_is_an_embedding_store(self, store: EmbeddingStore) -> None:
        """It has every member of the protocol, and a key that is fit for a folder."""
        _expect(isinstance(store, EmbeddingStore), "it lacks a member of EmbeddingStore")
        _expect(store.key.replace("-", "").isalnum(), f"its key {store.key!r} is not letters, digits and hyphens")

    def test_scan_covers_every_node_once(self, store: EmbeddingStore) -> None:
        """Batches are no longer than asked, and hold each node once, in the store's dtype."""
        batches = list(store.scan(7))
        ids = [node_id for part, _ in batches for node_id in part]
        _expect(len(ids) == len(set(ids)) == store.count() >= 10, "scan and count differ, or there are fewer than 10")
        _expect(all(len(part) == len(rows) <= 7 for part, rows in batches), "a batch is longer than asked")
        _expect(all(rows.dtype == store.capabilities.dtype for _, rows in batches), "vectors are of another dtype")

    def test_read_answers_in_the_order_asked(self, store: EmbeddingStore) -> None:
        """An id may be asked for twice; one that is not there is an UnknownIdError."""
        ids, rows = _nodes(store)
        asked = [*reversed(ids), ids[0]]
        _expect(same_vectors(store, store.read(asked), np.concatenate([rows[::-1], rows[:1]])), "read and scan differ")
        _expect(store.read([]).shape == (0, rows.shape[1]), "reading nothing gives another shape than (0, d)")
        with pytest.raises(UnknownIdError):
            store.read([ids[0], "nudge-rag: gone"])

    def test_search_is_as_exact_as_it_says(self, store: EmbeddingStore) -> None:
        """Scores are larger-is-better, in the store's similarity."""
        ids, rows = _nodes(store)
        queries = rows[:3].astype(np.float64) + 0.1
        found = store.search(queries, 5)
        _expect([len(line) for line in found.ids] == [5, 5, 5], "a search gives fewer nodes than there are")
        if store.capabilities.exact_search:
            scores = score_matrix(queries, rows.astype(np.float64), store.capabilities.similarity)
            for line, expected in zip(found.scores, -np.sort(-scores, axis=1)[:, :5], strict=True):
                np.testing.assert_allclose(line, expected, rtol=1e-4, atol=1e-4)
        _expect(store.matching([ids[0], "nudge-rag: gone"], None) == {ids[0]}, "matching gives another set")

    def test_replace_changes_what_it_is_told_and_can_be_undone(self, store: EmbeddingStore) -> None:
        """A vector that was read can be put back, bit for bit or to within the rounding that the store makes known."""
        ids, rows = _nodes(store)
        moved = np.random.default_rng(0).normal(size=(4, rows.shape[1]))
        store.replace(ids[:4], moved)
        _expect(same_vectors(store, store.read(ids[:4]), store.as_stored(moved)), "as_stored and read differ")
        _expect(same_vectors(store, store.read(ids[4:]), rows[4:]), "other nodes have changed")
        store.replace(ids[:4], rows[:4])
        _expect(same_vectors(store, store.read(ids), rows), "what was read cannot be put back")

    def test_bad_writes_change_nothing(self, store: EmbeddingStore) -> None:
        """Everything is checked before anything is written."""
        ids, rows = _nodes(store)
        good = np.ones((2, rows.shape[1]))
        for names, vectors in (
            ([ids[0], "nudge-rag: gone"], good),
            ([ids[0], ids[0]], good),
            (ids[:2], good[:, :-1]),
            (ids[:2], good[:1]),
            (ids[:2], good * np.nan),
        ):
            with pytest.raises(ValueError):
                store.replace(names, vectors)
        _expect(same_vectors(store, store.read(ids), rows), "a write that was refused has changed vectors")


def _nodes(store: EmbeddingStore) -> tuple[list[str], FloatArray]:
    batches = list(store.scan())
    return [node_id for ids, _ in batches for node_id in ids], np.concatenate([rows for _, rows in batches])


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
