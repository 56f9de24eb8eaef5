"""Pushes beside the live version that fail or die: both versions stay whole, and the next call puts things right."""

from __future__ import annotations

import warnings

import pytest

from nudge_rag import PushError, drop_copies, reapply, rollback, switch, versions
from nudge_rag.journal.journal import original_vectors
from tests.support.full_disk import fills_up
from tests.support.two_tables import IDS, ORIGINALS, holds, nudged, push, states, two_tables


@pytest.fixture
def store():
    return two_tables()


class Dies(Exception):
    pass


def failing(store, name, *, after=False):
    """Let a method raise, before or after it has done its work."""
    method = getattr(store, name)

    def fail(*args):
        if after:
            method(*args)
        raise Dies

    setattr(store, name, fail)


@pytest.mark.parametrize("name", ["create_copy", "open_copy"])
def test_a_copy_that_fails_is_dropped_and_the_live_version_stays(store, tmp_path, name):
    failing(store, name, after=True)
    with pytest.raises(
        PushError, match=r"failed while a copy was written \(\): the live version is as it was, the copy is"
    ):
        push(store, tmp_path)
    assert holds(store, ORIGINALS)
    assert store.copy_labels() == []
    assert states(store, tmp_path) == ["rolled back"]


def test_a_store_that_changes_while_it_is_copied(store, tmp_path):
    create = store.create_copy

    def create_and_change(label):
        made = create(label)
        store.tables[None]["new"] = [1.0, 2.0, 3.0]
        return made

    store.create_copy = create_and_change
    with pytest.raises(PushError, match=r"only in the live version: 'new'.*push again"):
        push(store, tmp_path)
    del store.create_copy
    assert "new" in store.tables[None]
    assert push(store, tmp_path).pushed


@pytest.mark.parametrize("after", [False, True])
def test_a_switch_that_fails_is_told_from_the_vectors(store, tmp_path, after):
    push(store, tmp_path)
    failing(store, "switch", after=after)
    if after:
        switch(store, tmp_path)
    else:
        with pytest.raises(PushError, match="mapping did not switch"):
            switch(store, tmp_path)
    assert holds(store, nudged() if after else ORIGINALS)
    assert states(store, tmp_path) == ["switched" if after else "committed"]


UNFINISHED = {
    "prepared": ("prepared", False, "its copy was not complete: it is dropped", "rolled back"),
    "writing": ("writing", False, "its copy was not complete: it is dropped", "rolled back"),
    "verified": ("verified", False, "it is ready beside the live version", "committed"),
    "switching, not switched": ("switching", False, "the store shows that the version before is live", "committed"),
    "switching, switched": ("switching", True, "the store shows that it is live", "switched"),
}


@pytest.mark.parametrize("case", UNFINISHED)
@pytest.mark.parametrize("action", [reapply, drop_copies, rollback])
def test_the_next_call_puts_right_what_died(store, tmp_path, case, action):
    state, switched, message, becomes = UNFINISHED[case]
    push(store, tmp_path)
    version = versions(store, tmp_path)[0]
    if switched:
        store.switch(version.label)
    version.set_state(state)
    assert original_vectors(store, IDS, store.read(IDS), tmp_path).tobytes() == ORIGINALS.tobytes()
    with pytest.warns(UserWarning, match=f"push 0001 beside test had not finished; .*{message}"):
        action(store, tmp_path)
    if action is reapply:
        assert states(store, tmp_path) == [becomes]
    assert holds(store, nudged() if switched and action is not rollback else ORIGINALS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollback(store, tmp_path)
        drop_copies(store, tmp_path)
    assert holds(store, ORIGINALS)
    assert store.copy_labels() == []


@pytest.mark.parametrize("switched", [False, True])
def test_a_copy_that_somebody_else_dropped(store, tmp_path, switched):
    push(store, tmp_path)
    label = versions(store, tmp_path)[0].label
    if switched:
        switch(store, tmp_path)
    store.drop_copy(label)
    with pytest.warns(UserWarning, match="no longer"):
        reapply(store, tmp_path)
    assert holds(store, nudged() if switched else ORIGINALS)
    assert states(store, tmp_path) == ["committed" if switched else "rolled back"]
    rollback(store, tmp_path)
    assert holds(store, ORIGINALS)


@pytest.mark.parametrize("action", ["push", "push again", "switch", "rollback", "drop", "keep"])
@pytest.mark.parametrize("failing", range(8))
def test_a_journal_that_fails_at_its_nth_write(store, tmp_path, monkeypatch, action, failing):
    """From the n-th write on nothing can be written, as on a disk that fills up; then there is space again."""
    if action != "push":
        push(store, tmp_path)
    if action in ("rollback", "keep"):
        switch(store, tmp_path)
    actions = {"push": push, "push again": push, "drop": drop_copies, "keep": drop_copies}
    actions |= {"switch": switch, "rollback": rollback}
    left = fills_up(monkeypatch, failing)
    failed = False
    try:
        actions[action](store, tmp_path)
    except PushError as error:
        failed = True
        assert "the journal cannot be written to" in str(error)
        assert "No space left" in str(error)
    monkeypatch.undo()
    assert failed == (left[0] < 0), "what cannot be recorded is told"
    may_be = {"push": [ORIGINALS], "push again": [ORIGINALS], "drop": [ORIGINALS], "keep": [nudged()]}
    assert any(holds(store, one) for one in may_be.get(action, [ORIGINALS, nudged()]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reapply(store, tmp_path)
        assert holds(store, nudged()) or holds(store, ORIGINALS)
        assert rollback(store, tmp_path).exact
        assert holds(store, ORIGINALS)
        drop_copies(store, tmp_path)
    assert store.copy_labels() == []
    assert set(states(store, tmp_path)) <= {"rolled back"}
