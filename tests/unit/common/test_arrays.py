"""normalize_rows: each row by itself, whatever block and thread it falls into."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.common import arrays
from nudge_rag.common.arrays import normalize_rows

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_rows_are_divided_in_float64(monkeypatch, dtype, n_threads):
    monkeypatch.setattr(arrays, "NUMBERS_IN_CACHE", 30)
    monkeypatch.setattr(arrays, "count_threads", lambda multiplications: n_threads)
    rows = RNG.normal(size=(50, 8)).astype(dtype)
    before = rows.copy()
    units = normalize_rows(rows, "rows")
    for row, unit in zip(rows, units, strict=True):
        length = np.sqrt(float(np.einsum("i,i->", row, row)))
        assert unit.tolist() == [dtype(float(number) / length) for number in row]
    assert units.dtype == dtype
    assert (rows == before).all()
    assert normalize_rows(rows[:0], "rows").shape == (0, 8)


def test_a_row_without_direction_is_named_by_its_number_in_all(monkeypatch):
    monkeypatch.setattr(arrays, "NUMBERS_IN_CACHE", 4)
    rows = np.ones((9, 2))
    rows[7] = 0
    with pytest.raises(ValueError, match="rows row 7 is a zero vector"):
        normalize_rows(rows, "rows")
