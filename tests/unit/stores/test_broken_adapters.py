"""The contract suite notices adapters that were broken on purpose, one by each of its tests at least."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from nudge_rag.errors import LockedError, UnknownIdError
from nudge_rag.stores import MappingStore
from nudge_rag.stores.base import SearchResult
from nudge_rag.stores.storages import ProcessStorage
from nudge_rag.stores.testing import StoreContract

TESTS = sorted(name for name in dir(StoreContract) if name.startswith("test_"))
IDS = [f"n{number}" for number in range(20)]
VECTORS = np.random.default_rng(0).integers(1, 9, (20, 4)).astype(float).tolist()


def is_even(node_id):
    return int(node_id[1:]) % 2 == 0


class Sound(MappingStore):
    """Keeps the contract; what is broken below is one method of it."""

    def __init__(self, table):
        super().__init__(table, similarity="dot", key="sound")


class NoKey(Sound):
    @property
    def key(self):
        return "../sound"


class KeyOfTheObject(Sound):
    @property
    def key(self):
        return f"sound-{id(self)}"


class LosesTheLastBatch(Sound):
    def scan(self, batch_size=1000):
        batches = list(super().scan(batch_size))
        yield from batches[:-1] if len(batches) > 1 else batches


class ScansTwice(Sound):
    def scan(self, batch_size=1000):
        yield from super().scan(batch_size)
        yield from super().scan(batch_size)


class IgnoresTheBatchSize(Sound):
    def scan(self, batch_size=1000):
        yield from super().scan(1000)


class ScansInAnotherDtype(Sound):
    def scan(self, batch_size=1000):
        for ids, rows in super().scan(batch_size):
            yield ids, rows.astype(np.float32)


class ReadsInTheStoresOrder(Sound):
    def read(self, ids):
        return super().read([node_id for node_id in self._table if node_id in ids])


class ReadsEachOnce(Sound):
    def read(self, ids):
        return super().read(list(dict.fromkeys(ids)))


class ReadsZerosForUnknownIds(Sound):
    def read(self, ids):
        if not ids:
            return super().read(ids)
        return np.array([self._table.get(node_id, [0.0] * self.dimension) for node_id in ids])


class ReadsNothingWithoutAShape(Sound):
    def read(self, ids):
        return super().read(ids) if ids else np.zeros(0)


class ReadsInAnotherDtype(Sound):
    """The numbers are the same: what was stored are whole ones."""

    def read(self, ids):
        return super().read(ids).astype(np.float32)


class GivesItsOwnArrays(Sound):
    """What a caller does to an answer is done to the store."""

    def __init__(self, table):
        super().__init__(table)
        self.held = {node_id: np.array(vector) for node_id, vector in table.items()}

    def read(self, ids):
        if len(ids) == 1 and ids[0] in self.held:
            return self.held[ids[0]][None, :]
        return np.array([self._held(node_id) for node_id in ids]) if ids else super().read(ids)

    def _held(self, node_id):
        if node_id not in self.held:
            raise UnknownIdError([node_id], self.name)
        return self.held[node_id]

    def scan(self, batch_size=1000):
        for ids, _ in super().scan(batch_size):
            yield ids, self.read(ids)

    def _write(self, names, rows):
        super()._write(names, rows)
        self.held.update(zip(names, np.array(rows), strict=True))


class FindsOneLess(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult([line[:-1] for line in found.ids], [line[:-1] for line in found.scores])


class FindsTheWorst(Sound):
    def search(self, queries, k, *, where=None):
        return super().search(-np.asarray(queries), k, where=where)


class FindsOneTwice(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        ids = [[*line[:1], *line[:1], *line[2:]] for line in found.ids]
        return SearchResult(ids, found.scores)


class ScoresAreDistances(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult(found.ids, [-line for line in found.scores])


class RanksByAnotherSimilarity(Sound):
    def __init__(self, table):
        super().__init__(table)
        self._capabilities = replace(self._capabilities, similarity="l2")

    def search(self, queries, k, *, where=None):
        return MappingStore(self._table, similarity="cosine").search(queries, k, where=where)


class AnswersTheFirstQueryOnly(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries[:1], k, where=where)
        return SearchResult(found.ids * len(queries), found.scores * len(queries))


class MissesNodes(Sound):
    """Calls itself exact, and is an index that looks at half of the nodes."""

    def search(self, queries, k, *, where=None):
        half = dict(list(self._table.items())[:10])
        return MappingStore(half, similarity="dot").search(queries, k, where=where)


class Approximate(Sound):
    """Keeps the contract, and calls its search approximate."""

    def __init__(self, table):
        super().__init__(table)
        self._capabilities = replace(self._capabilities, exact_search=False)


class ApproximateScoresAreDistances(Approximate):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult([line[::-1] for line in found.ids], [-line[::-1] for line in found.scores])


class RanksApproximatelyByAnotherSimilarity(Approximate):
    def __init__(self, table):
        super().__init__(table)
        self._capabilities = replace(self._capabilities, similarity="l2")

    def search(self, queries, k, *, where=None):
        return MappingStore(self._table, similarity="dot").search(queries, k, where=where)


class FindsTheBestLast(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult([line[::-1] for line in found.ids], [line[::-1] for line in found.scores])


class ScoresInSinglePrecision(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult(found.ids, [line.astype(np.float32) for line in found.scores])


class ScoresAreLists(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult(found.ids, [line.tolist() for line in found.scores])


class FindsIdsOfAnArray(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        return SearchResult([list(np.array(line)) for line in found.ids], found.scores)


class PadsScores(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k, where=where)
        padded = [np.concatenate([line, np.full(k - len(line), -np.inf)]) for line in found.scores]
        return SearchResult(found.ids, padded)


class TakesDoublesAlone(Sound):
    def search(self, queries, k, *, where=None):
        if np.asarray(queries).dtype != np.float64:
            raise RuntimeError("expected double, got float")
        return super().search(queries, k, where=where)


class ScansIdsOfAnArray(Sound):
    def scan(self, batch_size=1000):
        for ids, rows in super().scan(batch_size):
            yield np.array(ids), rows


class CountsDeletedNodes(Sound):
    def __init__(self, table):
        super().__init__(table)
        self.n_nodes = len(table)

    def count(self):
        return self.n_nodes


class FindsDeletedNodes(Sound):
    def __init__(self, table):
        super().__init__(table)
        self.first = dict(table)

    def search(self, queries, k, *, where=None):
        current = self.first | dict(self._table)
        return MappingStore(current, similarity="dot").search(queries, k, where=where)


class SaysThatItHoldsCopies(Sound):
    def __init__(self, table):
        super().__init__(table)
        self._capabilities = replace(self._capabilities, side_by_side=True)


class ReadsByPartOfTheId(Sound):
    def _fetch(self, names):
        return {name: self._table[node_id] for name in names for node_id in self._table if node_id.startswith(name)}


class DropsSignsOfIds(Sound):
    def _fetch(self, names):
        plain = {name: name.encode("ascii", "ignore").decode() for name in names}
        found = super()._fetch(list(plain.values()))
        return {name: found[plain[name]] for name in names if plain[name] in found}


class FailsOnQuotes(Sound):
    def matching(self, ids, where):
        if any("'" in node_id for node_id in ids):
            raise RuntimeError("syntax error in the statement")
        return super().matching(ids, where)


class EncodesIds(Sound):
    """Python's own error comes of a lone surrogate."""

    def _possible(self, ids):
        return [node_id for node_id in ids if node_id.encode()]


class FailsOnLongIds(Sound):
    def _fetch(self, names):
        if any(len(name) > 8191 for name in names):
            raise RuntimeError("the key is too long")
        return super()._fetch(names)


class FailsToMatchNothing(Sound):
    def matching(self, ids, where):
        if not ids:
            raise RuntimeError("an empty list is no condition")
        return super().matching(ids, where)


class FailsIfAskedForMoreThanThereAre(Sound):
    def search(self, queries, k, *, where=None):
        if k > self.count():
            raise RuntimeError("limit is too large")
        return super().search(queries, k, where=where)


class FailsWithoutQueries(Sound):
    def search(self, queries, k, *, where=None):
        if not len(queries):
            raise RuntimeError("the list of queries is empty")
        return super().search(queries, k, where=where)


class TakesAnyQuery(Sound):
    def search(self, queries, k, *, where=None):
        wide = np.nan_to_num(np.asarray(queries, dtype=np.float64))[:, : self.dimension]
        padded = np.zeros((len(wide), self.dimension))
        padded[:, : wide.shape[1]] = wide
        return super().search(padded, max(int(k), 1), where=where)


class IgnoresFilters(Sound):
    def search(self, queries, k, *, where=None):
        return super().search(queries, k)


class FiltersAfterTheSearch(Sound):
    def search(self, queries, k, *, where=None):
        found = super().search(queries, k)
        kept = [[where is None or where(node_id) for node_id in line] for line in found.ids]
        ids = [
            [node_id for node_id, keep in zip(*pair, strict=True) if keep] for pair in zip(found.ids, kept, strict=True)
        ]
        return SearchResult(ids, [line[keep] for line, keep in zip(found.scores, kept, strict=True)])


class MatchesWithoutTheFilter(Sound):
    def matching(self, ids, where):
        return super().matching(ids, None)


class MatchesUnknownIds(Sound):
    def matching(self, ids, where):
        return {node_id for node_id in ids if node_id not in self._table or where is None or where(node_id)}


class WritesTheFirstOnly(Sound):
    def _write(self, names, rows):
        super()._write(names[:1], rows[:1])


class WritesNothing(Sound):
    def _write(self, names, rows):
        pass


class WritesToAllNodes(Sound):
    def _write(self, names, rows):
        super()._write(list(self._table), np.resize(rows, (self.count(), rows.shape[1])))


class RoundsWhatItWrites(Sound):
    """Half precision, of which it says nothing."""

    def _write(self, names, rows):
        super()._write(names, rows.astype(np.float16).astype(np.float64))


class NormalisesWhatItWrites(Sound):
    def _write(self, names, rows):
        super()._write(names, rows / np.linalg.norm(rows, axis=1, keepdims=True))


class AddsUnknownIds(Sound):
    def replace(self, ids, vectors):
        known = [row for row, node_id in enumerate(ids) if node_id in self._table]
        if len(known) == len(ids):
            super().replace(ids, vectors)
        self._table.update((node_id, [1.0] * self.dimension) for node_id in ids)


class WritesBeforeItChecks(Sound):
    def replace(self, ids, vectors):
        rows = np.asarray(vectors, dtype=np.float64)
        if ids[0] in self._table and rows.shape[1] == self.dimension and np.isfinite(rows[0]).all():
            self._table[ids[0]] = rows[0].tolist()
        super().replace(ids, vectors)


class TakesAnIdTwice(Sound):
    def replace(self, ids, vectors):
        once = list(dict.fromkeys(ids))
        super().replace(once, np.asarray(vectors)[: len(once)] if len(once) < len(ids) else vectors)


class TakesNaN(Sound):
    def replace(self, ids, vectors):
        if np.isnan(np.asarray(vectors, dtype=np.float64)).all():
            return
        super().replace(ids, vectors)


class KeepsTheCallersArray(Sound):
    """Later changes of the array are changes of the store."""

    def __init__(self, table):
        super().__init__(table)
        self.rows = {}

    def _write(self, names, rows):
        self._table.update(zip(names, rows.tolist(), strict=True))

    def replace(self, ids, vectors):
        super().replace(ids, vectors)
        self.rows.update(zip(ids, vectors, strict=True))

    def read(self, ids):
        self._table.update((node_id, [float(x) for x in row]) for node_id, row in self.rows.items())
        return super().read(ids)


class FailsToWriteNothing(Sound):
    def replace(self, ids, vectors):
        if not ids:
            raise IndexError("list index out of range")
        super().replace(ids, vectors)


class WritesWhateverIsExpected(Sound):
    def _write_if(self, names, expected, rows):
        there = [row for row, name in enumerate(names) if name in self._table]
        self._write([names[row] for row in there], rows[there])
        return [name for name in names if name not in self._table]


class TellsNothingOfWhatItLeft(Sound):
    def replace_vectors_if(self, ids, expected, vectors):
        super().replace_vectors_if(ids, expected, vectors)
        return []


class LeavesAllIfOneHasChanged(Sound):
    def _write_if(self, names, expected, rows):
        same = self._unchanged(names, expected)
        return super()._write_if(names, expected, rows) if all(same) else names


class WritesToMemoryAlone(Sound):
    """Another process does not see what was written."""

    def __init__(self, table):
        super().__init__(dict(table))


class KeepsItsHistory(Sound):
    """Keeps the contract, and its history in a storage that is broken below."""

    storage = ProcessStorage

    def __init__(self, table):
        super().__init__(table)
        self.kept = self.storage()

    def history(self):
        return self.kept


class AnyPrefix(ProcessStorage):
    def names(self, prefix=""):
        return super().names()


class NamesOnce(ProcessStorage):
    def names(self, prefix=""):
        return iter(super().names(prefix))


class NoKeyError(ProcessStorage):
    def read(self, name):
        try:
            return super().read(name)
        except KeyError:
            raise FileNotFoundError(name) from None


class KeepsTheFirst(ProcessStorage):
    def write(self, name, content):
        if name not in self.names():
            super().write(name, content)


class KeepsDeleted(ProcessStorage):
    def delete(self, name):
        pass


class FailsToDeleteNothing(ProcessStorage):
    def delete(self, name):
        self.read(name)
        super().delete(name)


class NeverGivesTheLockBack(ProcessStorage):
    def lock(self):
        if not self._lock.acquire(blocking=False):
            raise LockedError("held")
        return nullcontext()


def with_history(broken):
    """An adapter whose history is in a broken storage."""
    return type(broken.__name__, (KeepsItsHistory,), {"storage": broken})


STORAGES = [AnyPrefix, NamesOnce, NoKeyError, KeepsTheFirst, KeepsDeleted, FailsToDeleteNothing, NeverGivesTheLockBack]
BROKEN = {with_history(storage): "test_its_history_keeps_named_blobs" for storage in STORAGES} | {
    NoKey: "test_is_an_embedding_store",
    KeyOfTheObject: "test_what_replace_wrote_is_there_when_the_store_is_opened_again",
    LosesTheLastBatch: "test_scan_covers_every_node_once",
    ScansTwice: "test_scan_covers_every_node_once",
    IgnoresTheBatchSize: "test_scan_covers_every_node_once",
    ScansInAnotherDtype: "test_scan_covers_every_node_once",
    ReadsInTheStoresOrder: "test_read_answers_in_the_order_asked",
    ReadsEachOnce: "test_read_answers_in_the_order_asked",
    ReadsZerosForUnknownIds: "test_read_answers_in_the_order_asked",
    ReadsNothingWithoutAShape: "test_read_answers_in_the_order_asked",
    ReadsInAnotherDtype: "test_read_answers_in_the_order_asked",
    GivesItsOwnArrays: "test_arrays_are_not_shared_with_the_store_after_replace",
    FindsOneLess: "test_search_is_as_exact_as_it_says",
    FindsTheWorst: "test_search_is_as_exact_as_it_says",
    FindsOneTwice: "test_search_is_as_exact_as_it_says",
    ScoresAreDistances: "test_search_is_as_exact_as_it_says",
    RanksByAnotherSimilarity: "test_search_is_as_exact_as_it_says",
    AnswersTheFirstQueryOnly: "test_search_is_as_exact_as_it_says",
    MissesNodes: "test_search_is_as_exact_as_it_says",
    ApproximateScoresAreDistances: "test_search_is_as_exact_as_it_says",
    RanksApproximatelyByAnotherSimilarity: "test_search_is_as_exact_as_it_says",
    FindsTheBestLast: "test_search_is_as_exact_as_it_says",
    ScoresInSinglePrecision: "test_search_is_as_exact_as_it_says",
    ScoresAreLists: "test_search_is_as_exact_as_it_says",
    FindsIdsOfAnArray: "test_search_is_as_exact_as_it_says",
    TakesDoublesAlone: "test_search_is_as_exact_as_it_says",
    PadsScores: "test_search_takes_any_number",
    ScansIdsOfAnArray: "test_scan_covers_every_node_once",
    CountsDeletedNodes: "test_deleted_nodes_are_gone",
    FindsDeletedNodes: "test_deleted_nodes_are_gone",
    SaysThatItHoldsCopies: "test_is_an_embedding_store",
    ReadsByPartOfTheId: "test_strange_ids_are_of_no_node",
    DropsSignsOfIds: "test_strange_ids_are_of_no_node",
    FailsOnQuotes: "test_strange_ids_are_of_no_node",
    EncodesIds: "test_strange_ids_are_of_no_node",
    FailsOnLongIds: "test_strange_ids_are_of_no_node",
    FailsToMatchNothing: "test_strange_ids_are_of_no_node",
    FailsIfAskedForMoreThanThereAre: "test_search_takes_any_number",
    FailsWithoutQueries: "test_search_takes_any_number",
    TakesAnyQuery: "test_bad_queries_are_refused",
    IgnoresFilters: "test_a_filter_is_kept",
    FiltersAfterTheSearch: "test_a_filter_is_kept",
    MatchesWithoutTheFilter: "test_a_filter_is_kept",
    MatchesUnknownIds: "test_search_is_as_exact_as_it_says",
    WritesTheFirstOnly: "test_replace_changes_what_it_is_told_and_can_be_undone",
    WritesNothing: "test_replace_changes_what_it_is_told_and_can_be_undone",
    WritesToAllNodes: "test_replace_changes_what_it_is_told_and_can_be_undone",
    RoundsWhatItWrites: "test_replace_changes_what_it_is_told_and_can_be_undone",
    NormalisesWhatItWrites: "test_replace_changes_what_it_is_told_and_can_be_undone",
    AddsUnknownIds: "test_bad_writes_change_nothing",
    WritesBeforeItChecks: "test_bad_writes_change_nothing",
    TakesAnIdTwice: "test_bad_writes_change_nothing",
    TakesNaN: "test_bad_writes_change_nothing",
    KeepsTheCallersArray: "test_arrays_are_not_shared_with_the_store_after_replace",
    FailsToWriteNothing: "test_replace_changes_what_it_is_told_and_can_be_undone",
    WritesWhateverIsExpected: "test_replace_if_leaves_nodes_that_have_changed",
    TellsNothingOfWhatItLeft: "test_replace_if_leaves_nodes_that_have_changed",
    LeavesAllIfOneHasChanged: "test_replace_if_leaves_nodes_that_have_changed",
    WritesToMemoryAlone: "test_what_replace_wrote_is_there_when_the_store_is_opened_again",
}


def delete_from(table, ids):
    for node_id in ids:
        del table[node_id]


def noticed_by(adapter):
    """Names of the contract's tests that fail for an adapter, each with a new store."""
    failed = set()
    for name in TESTS:
        table = dict(zip(IDS, VECTORS, strict=True))
        given = {
            "store": adapter(table),
            "reopen": partial(adapter, table),
            "delete": partial(delete_from, table),
            "filtered": (is_even, {node_id for node_id in IDS if is_even(node_id)}),
        }
        test = getattr(StoreContract(), name)
        try:
            test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})
        except pytest.skip.Exception:
            pass
        except (Exception, pytest.fail.Exception):
            failed.add(name)
    return failed


@pytest.mark.parametrize("adapter", [Sound, Approximate, KeepsItsHistory])
def test_a_sound_adapter_passes(adapter):
    assert noticed_by(adapter) == set()


@pytest.mark.parametrize("adapter", BROKEN, ids=lambda adapter: adapter.__name__)
def test_a_broken_adapter_is_noticed(adapter):
    assert BROKEN[adapter] in noticed_by(adapter)


def test_every_test_of_the_contract_notices_something():
    assert {*BROKEN.values()} == {*TESTS}
