"""Old names go on working, and say on the caller's line what they are called now."""

from __future__ import annotations

import numpy as np
import pytest

import nudge_rag
from nudge_rag import LabeledQueries
from nudge_rag.journal.push import push_vectors
from nudge_rag.stores import MappingStore


def test_rivals_are_competitors():
    queries, scores = np.eye(2), [[0.5], [0.25]]
    with pytest.warns(DeprecationWarning, match=r"LabeledQueries\(rivals=\) is deprecated: use competitors=") as caught:
        old = LabeledQueries(queries, [[0], [1]], rivals=scores)
    assert [warning.filename for warning in caught] == [__file__]
    assert old.competitors is scores
    with pytest.warns(DeprecationWarning, match=r"LabeledQueries.rivals is deprecated: use competitors") as caught:
        assert old.rivals is scores
    assert [warning.filename for warning in caught] == [__file__]


def test_an_argument_cannot_be_given_by_both_names():
    with pytest.raises(TypeError, match=r"LabeledQueries\(\) got competitors= and also rivals=, its deprecated name"):
        LabeledQueries(np.eye(1), [[0]], competitors=[[1.0]], rivals=[[1.0]])


@pytest.mark.parametrize("name", ["versions", "status", "reapply", "rollback"])
def test_root_is_versions(tmp_path, name):
    originals, moved = np.eye(3)[:2], np.eye(3)[1:]
    store = MappingStore({"a": originals[0], "b": originals[1]})
    push_vectors(store, ["a", "b"], originals, moved, versions=tmp_path)
    wanted = getattr(nudge_rag, name)
    with pytest.warns(DeprecationWarning, match=rf"{name}\(root=\) is deprecated: use versions=") as caught:
        old = wanted(store, root=tmp_path)
    assert [warning.filename for warning in caught] == [__file__]
    if name == "rollback":
        assert old.restored == 2
    else:
        assert str(old) == str(wanted(store, versions=tmp_path))


def test_drop_beside_is_drop_copies(tmp_path):
    store = MappingStore({"a": [1.0, 0.0]})  # it holds no copies
    with pytest.raises(ValueError, match="mapping store does not hold two versions") as wanted:
        nudge_rag.drop_copies(store, tmp_path)
    with (
        pytest.warns(DeprecationWarning, match=r"drop_beside\(\) is deprecated: use drop_copies\(\)") as caught,
        pytest.raises(ValueError, match="mapping store") as old,
    ):
        nudge_rag.drop_beside(store, tmp_path)
    assert str(old.value) == str(wanted.value)
    assert [warning.filename for warning in caught] == [__file__]
