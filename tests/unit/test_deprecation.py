"""Old names go on working, and say on the caller's line what they are called now."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledQueries


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
