"""Student's t quantile against a table and against SciPy."""

from __future__ import annotations

import pytest

from nudge_rag.evaluation.student import students_t

# Student, quantiles at 0.975, as printed in Fisher and Yates, Statistical Tables, table III.
TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    10: 2.228,
    19: 2.093,
    20: 2.086,
    30: 2.042,
    60: 2.0,
    120: 1.98,
}


@pytest.mark.parametrize("degrees", sorted(TABLE))
def test_it_is_as_printed(degrees):
    assert round(students_t(degrees), 3) == TABLE[degrees]


def test_it_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in [*range(1, 250), 1_000, 10_000, 1_000_000]:
        assert students_t(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-6), degrees


def test_one_observation_has_none():
    with pytest.raises(ValueError, match="at least one degree of freedom, got 0"):
        students_t(0)
