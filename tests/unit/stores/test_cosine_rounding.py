"""What is written to a cosine space of Chroma, so that it reads back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.stores.chroma import rounding
from nudge_rag.stores.chroma.rounding import read_back, written_to_read_back


@pytest.mark.parametrize("n", [1, 7, 40])
def test_mixtures_that_are_tried_together_are_those_tried_one_by_one(n, monkeypatch):
    rng = np.random.default_rng(n)
    vectors = rng.normal(size=(n, 12)).astype(np.float32)
    # Every other row has come out of such a space, and some of the rest no float gives.
    wanted = np.where(np.arange(n)[:, None] % 2 == 0, read_back(vectors), vectors)
    together = written_to_read_back(wanted)
    monkeypatch.setattr(rounding, "NUMBERS_AT_ONCE", 1)
    assert written_to_read_back(wanted).tobytes() == together.tobytes()
    assert (read_back(together)[::2] == wanted[::2]).all()


def test_few_rows_that_nothing_gives_take_few_steps(monkeypatch):
    # Each coordinate at its own rounding: by this seed, one row in six has no float that comes back as it.
    wanted = np.random.default_rng(6).normal(size=(6, 12)).astype(np.float32)
    assert (read_back(written_to_read_back(wanted)) != wanted).any()
    steps = []
    lengths = rounding._lengths
    monkeypatch.setattr(rounding, "_lengths", lambda vectors: steps.append(1) or lengths(vectors))
    written_to_read_back(wanted)
    assert len(steps) < 10 * len(rounding.LENGTH_ULPS)
