"""``solver="auto"`` with few settings on few folds, for tests of what is done with what it chooses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from nudge_rag.solvers.linear_map.solver import LinearMap

__all__ = ["little_auto", "try_little"]

AUTO = "nudge_rag.solvers.auto"
FEWER = {
    "folds.FOLDS": 3,
    "trials.OFFSETS": (0.0, 0.03),
    "trials.HALVINGS": 0,
    "trials.FEW_TAUS": (0.05,),
    "trials.FEW_STRENGTHS": (3.0,),
    "trials.ROUGH_FOLDS": 2,
    "trials.LinearMap": partial(LinearMap, taus=(0.03,), ridges=(0.1, 0.03)),
}


def try_little(patch: pytest.MonkeyPatch) -> None:
    """Every solver is tried all the same, and nodes are held out: a fifth of the work."""
    for name, value in FEWER.items():
        patch.setattr(f"{AUTO}.{name}", value)


@pytest.fixture(scope="module")
def little_auto() -> Iterator[None]:
    """For a module whose tests ask for it, and what its fixtures tune."""
    with pytest.MonkeyPatch.context() as patch:
        try_little(patch)
        yield
