"""A contract that every store must keep: subclass `StoreContract` to test an adapter of your own. Needs pytest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.similarity import score_matrix
from nudge_rag.errors import UnknownIdError
from nudge_rag.stores.access import replace_vectors_if, same_vectors
from nudge_rag.stores.base import EmbeddingStore, SearchResult, SideBySideStore

__all__ = ["StoreContract"]

# What databases trip over, each made from an id that the store has: cleaned, or taken for a part of a statement, it
# would be that node.
STRANGE = ("", "{}é", "{}\0", "{}\ud800", "{}'", '{}"', "{}%", "{}, {}", "{}" + "x" * 10_000)


class StoreContract:
    """Tests of an `EmbeddingStore`; a subclass named ``Test...`` overrides the fixture ``store``.

    The store must hold at least 10 nodes, and be a new one for each test. Searches are compared with brute force if the
    store says that they are exact. A subclass also overrides the fixture ``reopen`` if its store is persistent, the
    fixture ``filtered`` if it takes filters, and ``delete`` if its nodes can be deleted; a test that misses one is
    skipped, and says so.

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

    @pytest.fixture
    def reopen(self, store: EmbeddingStore) -> Callable[[], EmbeddingStore] | None:
        """A function that opens the same store anew, as another process does; None if none can."""
        return None

    @pytest.fixture
    def filtered(self, store: EmbeddingStore) -> tuple[Any, set[str]] | None:
        """A filter in the store's own form, and the ids of the nodes that pass it; None if the store takes none."""
        return None

    @pytest.fixture
    def delete(self, store: EmbeddingStore) -> Callable[[list[str]], object] | None:
        """A function that deletes nodes as an application does, past the adapter; None if there is none."""
        return None

    def test_is_an_embedding_store(self, store: EmbeddingStore) -> None:
        """It has every member of the protocol, holds copies if it says so, and has a key that is fit for a folder."""
        _expect(isinstance(store, EmbeddingStore), "it lacks a member of EmbeddingStore")
        copies = isinstance(store, SideBySideStore) or not store.capabilities.side_by_side
        _expect(copies, "it says that it holds copies, and lacks a member of SideBySideStore")
        _expect(store.key.replace("-", "").isalnum(), f"its key {store.key!r} is not letters, digits and hyphens")

    def test_scan_covers_every_node_once(self, store: EmbeddingStore) -> None:
        """Batches are no longer than asked, and hold each node once, in the store's dtype."""
        batches = list(store.scan(7))
        ids = [node_id for part, _ in batches for node_id in part]
        _expect(len(ids) == len(set(ids)) == store.count() >= 10, "scan and count differ, or there are fewer than 10")
        _expect(all(len(part) == len(rows) <= 7 for part, rows in batches), "a batch is longer than asked")
        _expect(all(_are_ids(part) for part, _ in batches), "the ids of a batch are no list of strings")
        _expect(all(rows.dtype == store.capabilities.dtype for _, rows in batches), "vectors are of another dtype")

    def test_read_answers_in_the_order_asked(self, store: EmbeddingStore) -> None:
        """An id may be asked for twice; one that is not there is an UnknownIdError."""
        ids, rows = _nodes(store)
        asked = [*reversed(ids), ids[0]]
        _expect(same_vectors(store, store.read(asked), np.concatenate([rows[::-1], rows[:1]])), "read and scan differ")
        _expect(store.read(ids[:2]).dtype == store.capabilities.dtype, "vectors are read in another dtype")
        _expect(store.read([]).shape == (0, rows.shape[1]), "reading nothing gives another shape than (0, d)")
        with pytest.raises(UnknownIdError):
            store.read([ids[0], "nudge-rag: gone"])

    def test_strange_ids_are_of_no_node(self, store: EmbeddingStore) -> None:
        """Whatever text an id is, it is unknown if no node has exactly this one: never an error of the database."""
        ids, rows = _nodes(store)
        for strange in (ids[0][:-1], *(form.replace("{}", ids[0]) for form in STRANGE)):
            if strange in ids:
                continue
            shown = repr(strange if len(strange) < 100 else f"{strange[:100]}...")
            with pytest.raises(UnknownIdError) as told:
                store.read([strange])
            _expect(told.value.ids == [strange], f"the error for {shown} names {told.value.ids[:3]}")
            _expect(store.matching([strange, ids[0]], None) == {ids[0]}, f"matching takes {shown} for a node")
            with pytest.raises(UnknownIdError):
                store.replace([strange], rows[:1] + 1)
        _expect(store.matching([], None) == set(), "of no ids, some match")
        _expect(same_vectors(store, store.read(ids), rows), "a write to an id that is not there has changed vectors")

    def test_search_is_as_exact_as_it_says(self, store: EmbeddingStore) -> None:
        """Scores are larger-is-better, in the store's similarity: roughly so if its search is approximate."""
        ids, rows = _nodes(store)
        queries = rows[:3].astype(np.float64) + 0.1
        found = store.search(queries, 5)
        _check_form(found, 3, 5)
        _expect([len(line) for line in found.ids] == [5, 5, 5], "a search gives fewer nodes than there are")
        scores = score_matrix(queries, rows.astype(np.float64), store.capabilities.similarity)
        row_of = {node_id: row for row, node_id in enumerate(ids)}
        for query, line in enumerate(found.scores):
            _expect(len(set(found.ids[query])) == 5, "a search gives a node twice")
            own = scores[query, [row_of[node_id] for node_id in found.ids[query]]]
            if not store.capabilities.exact_search:
                # It may keep vectors in fewer bits, but a distance is no similarity, and one no other.
                most = np.ptp(scores[query]) / 2
                _expect(bool((np.abs(line - own) <= most).all()), "scores are not those of the ids, even roughly")
                continue
            np.testing.assert_allclose(line, own, rtol=1e-4, atol=1e-4, err_msg="scores are not those of the ids")
            best = -np.sort(-scores[query])[:5]
            np.testing.assert_allclose(line, best, rtol=1e-4, atol=1e-4, err_msg="others are nearer")
        _check_form(store.search(queries.astype(np.float32), 5), 3, 5)
        _expect(store.matching([ids[0], "nudge-rag: gone"], None) == {ids[0]}, "matching gives another set")

    def test_search_takes_any_number(self, store: EmbeddingStore) -> None:
        """Of nodes: there may be fewer than are asked for. And of queries: none has no answers."""
        ids, rows = _nodes(store)
        result = store.search(rows[:1].astype(np.float64), len(ids) + 5)
        _check_form(result, 1, len(ids) + 5)
        (found,) = result.ids
        _expect(set(found) <= set(ids), "a search for more nodes than there are finds others")
        _expect(len(found) == len(ids) or not store.capabilities.exact_search, "a search for all nodes misses some")
        nothing = store.search(np.zeros((0, rows.shape[1])), 5)
        _expect(len(nothing.ids) == len(nothing.scores) == 0, "no query has answers")

    def test_bad_queries_are_refused(self, store: EmbeddingStore) -> None:
        """A search for no nodes, or by vectors that are none of the store's, is a ValueError."""
        good = _nodes(store)[1][:2].astype(np.float64)
        for queries, k in ((good, 0), (good[:, :-1], 3), (good * np.nan, 3)):
            with pytest.raises(ValueError):
                store.search(queries, k)

    def test_replace_changes_what_it_is_told_and_can_be_undone(self, store: EmbeddingStore) -> None:
        """A vector that was read can be put back, bit for bit or to within the rounding that the store makes known."""
        ids, rows = _nodes(store)
        moved = np.random.default_rng(0).normal(size=(4, rows.shape[1]))
        store.replace(ids[:4], moved)
        _expect(same_vectors(store, store.read(ids[:4]), store.as_stored(moved)), "as_stored and read differ")
        _expect(same_vectors(store, store.read(ids[4:]), rows[4:]), "other nodes have changed")
        store.replace(ids[:4], rows[:4])
        _expect(same_vectors(store, store.read(ids), rows), "what was read cannot be put back")
        store.replace([], moved[:0])
        _expect(same_vectors(store, store.read(ids), rows), "a write of nothing has changed vectors")

    def test_arrays_are_not_shared_with_the_store_after_replace(self, store: EmbeddingStore) -> None:
        """What a caller does to an array that was written, or read, is not done to the store."""
        ids, rows = _nodes(store)
        moved = np.random.default_rng(3).normal(size=(2, rows.shape[1]))
        written = store.as_stored(moved.copy())
        store.replace(ids[:2], moved)
        moved[:] = 1
        _expect(same_vectors(store, store.read(ids[:2]), written), "the store keeps the array that was written")
        found = store.read(ids[:1])
        if found.flags.writeable:
            found[:] = 1
        for _, batch in store.scan():
            if batch.flags.writeable:
                batch[:] = 1
        after = store.read(ids)
        _expect(same_vectors(store, after[:2], written), "the store gives the arrays that it keeps")
        _expect(same_vectors(store, after[2:], rows[2:]), "the store gives the arrays that it keeps")

    def test_replace_if_leaves_nodes_that_have_changed(self, store: EmbeddingStore) -> None:
        """Only nodes that still have the expected vector are written; the others are named, as those that are gone."""
        ids, rows = _nodes(store)
        moved = np.random.default_rng(1).normal(size=(3, rows.shape[1]))
        expected = np.concatenate([rows[:1], rows[1:2] + 1, rows[2:3]])
        left = replace_vectors_if(store, [*ids[:2], "nudge-rag: gone"], expected, moved)
        _expect(set(left) == {ids[1], "nudge-rag: gone"}, f"{left} were left as they are")
        _expect(
            same_vectors(store, store.read(ids[:1]), store.as_stored(moved[:1])), "what was expected is not written"
        )
        _expect(
            same_vectors(store, store.read(ids[1:]), rows[1:]), "a node that has changed is written, or another one"
        )

    def test_what_replace_wrote_is_there_when_the_store_is_opened_again(
        self, store: EmbeddingStore, reopen: Callable[[], EmbeddingStore] | None
    ) -> None:
        """A store that is opened again has the same key, by which its pushes are found."""
        if reopen is None:
            pytest.skip("nothing opens the store again: override the fixture reopen if it is persistent")
        (ids, rows), key = _nodes(store), store.key
        moved = np.random.default_rng(2).normal(size=(2, rows.shape[1]))
        store.replace(ids[:2], moved)
        written = store.as_stored(moved)
        again = reopen()
        _expect(again.key == key, f"the key was {key!r}, and is {again.key!r} when the store is opened again")
        _expect(same_vectors(again, again.read(ids[:2]), written), "what was written is not there")

    def test_deleted_nodes_are_gone(self, store: EmbeddingStore, delete: Callable[[list[str]], object] | None) -> None:
        """Nodes that the application deletes are counted, read, scanned and found no more."""
        if delete is None:
            pytest.skip("nothing deletes nodes: override the fixture delete if the application can")
        ids, rows = _nodes(store)
        delete(ids[:2])
        _expect(store.count() == len(ids) - 2, f"{store.count()} nodes are counted, and {len(ids) - 2} are left")
        _expect(sorted(_nodes(store)[0]) == sorted(ids[2:]), "a scan gives other nodes than those that are left")
        _expect(store.matching(ids, None) == set(ids[2:]), "a node that was deleted matches")
        with pytest.raises(UnknownIdError):
            store.read(ids[:1])
        (found,) = store.search(rows[:1].astype(np.float64), len(ids)).ids
        _expect(not {*ids[:2]} & {*found}, "a search finds a node that was deleted")
        left = replace_vectors_if(store, ids[1:3], rows[1:3], rows[1:3] + 1)
        _expect(left == [ids[1]], f"of a deleted node and another, {left} were left as they are")

    def test_a_filter_is_kept(self, store: EmbeddingStore, filtered: tuple[Any, set[str]] | None) -> None:
        """Searches find nodes that pass, and as many of them as asked; `matching` names those that pass."""
        if filtered is None:
            pytest.skip("there is no filter: override the fixture filtered if the store takes filters")
        where, passing = filtered
        ids, rows = _nodes(store)
        _expect(0 < len(passing) < len(ids), "the filter lets all nodes pass, or none")
        _expect(store.matching(ids, where) == passing, "matching gives other nodes than those that pass")
        (found,) = store.search(rows[:1].astype(np.float64), len(passing), where=where).ids
        _expect(set(found) <= passing, "a search gives nodes that do not pass")
        _expect(set(found) == passing or not store.capabilities.exact_search, "a search leaves out nodes that pass")

    def test_its_history_keeps_named_blobs(self, store: EmbeddingStore) -> None:
        """What ``history()`` returns is a `nudge_rag.stores.history.BlobStorage`, which keeps pushes and originals."""
        offer = getattr(store, "history", None)
        history = offer() if callable(offer) else None
        if history is None:
            pytest.skip("the store has no history(): each call has to name a folder")
        before, content = history.names(), bytes(range(256)) * 5_000
        _expect(isinstance(history.location, str), "its location is not told in words")
        with history.lock():
            for name, written in (("1/blob", b"old"), ("1/blob", content), ("10/blob", b"")):
                history.write(name, written)
                for opened in (history, store.history()):  # type: ignore[attr-defined]
                    found = opened.read(name)
                    _expect(isinstance(found, bytes) and found == written, f"{name} is not read as it was written")
            _expect(history.names("1/") == ["1/blob"], "names gives others than those that begin with the prefix")
            _expect(history.names() == sorted([*before, "1/blob", "10/blob"]), "names is no sorted list of all")
            history.delete("1/other")
            for name in ("1/blob", "10/blob"):
                history.delete(name)
                with pytest.raises(KeyError):
                    history.read(name)
        with history.lock():
            _expect(history.names() == before, "a blob that was deleted is still there")

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


def _are_ids(ids: object) -> bool:
    return isinstance(ids, list) and all(type(node_id) is str for node_id in ids)


def _check_form(found: SearchResult, n_queries: int, k: int) -> None:
    """Check that an answer is of the types that `SearchResult` names, best first, and no longer than asked."""
    _expect(len(found.ids) == len(found.scores) == n_queries, "there is not one list of ids and of scores per query")
    for ids, scores in zip(found.ids, found.scores, strict=True):
        _expect(_are_ids(ids), "the ids of a search are no list of strings")
        _expect(isinstance(scores, np.ndarray) and scores.dtype == np.float64, "scores are no array of float64")
        _expect(len(ids) == len(scores) <= k, f"{len(ids)} ids have {len(scores)} scores; {k} were asked for")
        _expect(bool(np.isfinite(scores).all()), "a score is not finite")
        tolerance = 1e-5 * np.abs(scores[1:])
        _expect(bool((np.diff(scores) <= tolerance).all()), "scores are not in descending order")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
