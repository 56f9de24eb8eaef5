"""Pushes beside the live version: states of the journal, what is refused, and that nothing is lost."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest

from nudge_rag import LockedError, PushError, drop_copies, live_version, reapply, rollback, status, switch, versions
from nudge_rag.common.lock import locked
from nudge_rag.journal.journal import nudged_ids, original_vectors
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore
from nudge_rag.stores.base import SideBySideStore
from tests.support.two_tables import FIRST, IDS, MOVED, ORIGINALS, SECOND, holds, nudged, push, states, two_tables


@pytest.fixture
def store():
    return two_tables()


def test_a_store_that_switches_in_several_steps_is_switched_only_where_the_gap_is_accepted(store, tmp_path):
    store._capabilities = replace(store.capabilities, atomic_switch=False)
    push(store, tmp_path)
    with pytest.raises(ValueError, match="accept_gap=True"):
        switch(store, tmp_path)
    assert holds(store, ORIGINALS)
    assert states(store, tmp_path) == ["committed"]
    switch(store, tmp_path, accept_gap=True)
    assert holds(store, nudged())


def test_push_switch_and_back(store, tmp_path):
    assert isinstance(store, SideBySideStore)
    receipt = push(store, tmp_path, solver="nudge-n", gamma=0.5)
    assert (receipt.pushed, receipt.written, receipt.version) == (True, 4, "0001")
    assert receipt.reason == "pushed as version 0001 beside the live version, for switch() to make live"
    assert holds(store, ORIGINALS)
    assert str(versions(store, tmp_path)[0]).startswith("0001: ready beside, 20")
    assert str(status(store, tmp_path)) == "nothing is pushed; version 0001 is ready beside"
    assert nudged_ids(store, tmp_path) == ()
    assert live_version(store, tmp_path) is None
    assert rollback(store, tmp_path).restored == 0, "nothing is live that could be undone"

    done = switch(store, tmp_path)
    assert (done.version, done.nodes) == ("0001", 4)
    assert holds(store, nudged())
    assert states(store, tmp_path) == ["switched"]
    assert live_version(store, tmp_path) == "0001"
    assert str(status(store, tmp_path)) == "version 0001 (switched): 4 nudged, 0 lost, 0 changed, 0 missing"
    assert nudged_ids(store, tmp_path) == tuple(IDS[MOVED])
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()

    undone = rollback(store, tmp_path)
    assert (undone.restored, undone.version, undone.exact, undone.changed_since) == (4, "0001", True, ())
    assert holds(store, ORIGINALS)
    switch(store, tmp_path)  # it waits beside again
    assert holds(store, nudged())
    rollback(store, tmp_path, version="0001")
    assert drop_copies(store, tmp_path) == ("0001",)
    assert store.copy_labels() == []
    assert states(store, tmp_path) == ["rolled back"]
    with pytest.raises(PushError, match=r"nothing waits beside test: push\(mode='side-by-side'\) first"):
        switch(store, tmp_path)


def test_a_store_without_is_refused_before_anything_is_written(tmp_path):
    plain = MappingStore(dict(zip(IDS, ORIGINALS.tolist(), strict=True)), key="plain")
    for action in (
        lambda: push(plain, tmp_path),
        lambda: switch(plain, tmp_path),
        lambda: drop_copies(plain, tmp_path),
    ):
        with pytest.raises(ValueError, match=r"this mapping store does not hold two versions.*works on Simple"):
            action()
    with pytest.raises(ValueError, match="mode must be 'in-place' or 'side-by-side', got 'beside'"):
        push(plain, tmp_path, mode="beside")
    assert not list(tmp_path.iterdir())


def test_a_later_push_replaces_the_one_that_waits(store, tmp_path):
    push(store, tmp_path)
    push(store, tmp_path, SECOND)
    assert len(store.copy_labels()) == 1
    assert states(store, tmp_path) == ["rolled back", "committed"]
    switch(store, tmp_path)
    assert holds(store, nudged(SECOND))


def test_nothing_is_pushed_over_a_switched_version_until_it_is_kept(store, tmp_path):
    push(store, tmp_path)
    switch(store, tmp_path)
    for mode in ("in-place", "side-by-side"):
        with pytest.raises(PushError, match=r"0001 was made live by switch\(\): undo it with rollback\(\), or keep it"):
            push(store, tmp_path, SECOND, mode=mode)
    with pytest.raises(PushError, match="0001 was made live"):
        switch(store, tmp_path)
    assert holds(store, nudged())
    assert drop_copies(store, tmp_path) == ("0001",)
    assert holds(store, nudged())
    assert str(status(store, tmp_path)).startswith("version 0001 (committed): 4 nudged")
    push(store, tmp_path, SECOND, slice(2, 6))
    switch(store, tmp_path)
    assert holds(store, nudged(SECOND, slice(2, 6))), "nodes of the push before that are not in this one are originals"
    rollback(store, tmp_path, version="0002")
    assert holds(store, nudged())
    assert rollback(store, tmp_path).exact
    assert holds(store, ORIGINALS)


def test_beside_a_push_in_place(store, tmp_path):
    push(store, tmp_path, FIRST, slice(0, 3), mode="in-place")
    push(store, tmp_path, SECOND, slice(2, 6))
    assert holds(store, nudged(FIRST, slice(0, 3)))
    switch(store, tmp_path)
    assert holds(store, nudged(SECOND, slice(2, 6)))
    rollback(store, tmp_path, version="0002")
    assert holds(store, nudged(FIRST, slice(0, 3)))
    switch(store, tmp_path)
    receipt = rollback(store, tmp_path)
    assert (receipt.restored, receipt.version) == (6, "0001")
    assert holds(store, ORIGINALS)


def test_a_push_in_place_while_another_waits_makes_it_stale(store, tmp_path):
    push(store, tmp_path)
    push(store, tmp_path, SECOND, mode="in-place")
    with pytest.raises(PushError, match=r"no longer what version 0001 was made from \(4 node\(s\) changed: 'n0'"):
        switch(store, tmp_path)
    assert holds(store, nudged(SECOND))
    assert rollback(store, tmp_path).exact
    switch(store, tmp_path)
    assert holds(store, nudged())


CHANGES = {
    "added": (lambda table: table.update(new=[1.0, 2.0, 3.0]), r"1 node\(s\) only in the live version: 'new'"),
    "deleted": (lambda table: table.pop("n5"), r"1 node\(s\) only in the copy beside it: 'n5'"),
    "embedded again": (lambda table: table.update(n5=[9.0, 9.0, 9.0]), r"1 node\(s\) changed: 'n5'"),
    "moved, embedded again": (lambda table: table.update(n0=[9.0, 9.0, 9.0]), r"1 node\(s\) changed: 'n0'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_between_the_push_and_the_switch_are_not_lost(store, tmp_path, change):
    push(store, tmp_path)
    make, message = CHANGES[change]
    make(store.tables[None])
    expected = copy.deepcopy(store.tables[None])
    with pytest.raises(PushError, match=message):
        switch(store, tmp_path)
    assert store.tables[None] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the nodes left alone
        push(store, tmp_path)
    switch(store, tmp_path)
    assert set(store.tables[None]) == set(expected)
    assert store.tables[None]["n1"] == FIRST[1].tolist()


@pytest.mark.parametrize("change", CHANGES)
def test_changes_since_the_switch_survive_a_rollback(store, tmp_path, change):
    push(store, tmp_path)
    switch(store, tmp_path)
    make, message = CHANGES[change]
    make(store.tables[None])
    expected = {node: dict(zip(IDS, ORIGINALS.tolist(), strict=True)).get(node) for node in store.tables[None]}
    expected |= {node: store.tables[None][node] for node in ("new", "n0", "n5") if node in store.tables[None]}
    if change != "moved, embedded again":
        expected["n0"] = ORIGINALS[0].tolist()
    with pytest.warns(UserWarning, match=f"cannot be switched back without a loss .{message}"):
        receipt = rollback(store, tmp_path)
    assert receipt.exact
    assert store.tables[None] == expected
    assert states(store, tmp_path) == ["rolled back"]
    assert drop_copies(store, tmp_path) == ("0001",)
    assert store.copy_labels() == []
    assert store.tables[None] == expected


def test_a_nudge_that_was_lost_is_put_back_in_a_switched_version(store, tmp_path):
    push(store, tmp_path)
    switch(store, tmp_path)
    store.tables[None]["n1"] = ORIGINALS[1].tolist()
    assert status(store, tmp_path).lost == ("n1",)
    assert reapply(store, tmp_path) == ("n1",)
    assert holds(store, nudged())
    assert rollback(store, tmp_path).exact
    assert holds(store, ORIGINALS)


def test_two_journals_do_not_take_each_others_copies(store, tmp_path):
    push(store, tmp_path / "a")
    switch(store, tmp_path / "a")
    push_vectors(store, IDS, nudged(), SECOND, versions=tmp_path / "b", mode="side-by-side")
    assert len(store.copy_labels()) == 2
    rollback(store, tmp_path / "a")
    assert holds(store, ORIGINALS)


def test_a_switch_waits_for_the_lock(store, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.common.lock.SECONDS_TO_WAIT", 0.1)
    push(store, tmp_path)
    with locked(tmp_path / "test", "test"):
        for action in (switch, drop_copies, rollback):
            with pytest.raises(LockedError):
                action(store, tmp_path)
    assert holds(store, ORIGINALS)
