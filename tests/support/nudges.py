"""Nudges that are made, not tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nudge_rag import Nudge
from nudge_rag.solvers import ValidationCurve

__all__ = ["overlapping", "swapped"]


def swapped(store: Any, ids: Sequence[str], originals: Any) -> Nudge:
    """A nudge that gives every one of these nodes the original of the next one."""
    vectors = np.roll(np.asarray(originals), 1, axis=0)
    curve = ValidationCurve(np.zeros(1), np.zeros(1), "nDCG@10")
    return Nudge(store, tuple(ids), vectors, np.asarray(originals), 0.1, curve, True, "swapped", "none")


def overlapping(store: Any) -> tuple[Nudge, Nudge]:
    """Two nudges that share two of their nodes; each has some of its own."""
    names = [node for part, _ in store.scan() for node in part][:12]
    originals = store.read(names)
    first, second = (swapped(store, names[part], originals[part]) for part in (slice(8), slice(6, 12)))
    return first, second
