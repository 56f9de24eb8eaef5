"""Plan a push to some nodes: what is written to each, and which are left alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.journal import Journal
from nudge_rag.journal.returned import among, match_over
from nudge_rag.journal.versions import Version
from nudge_rag.stores.access import read_present, same_vectors
from nudge_rag.stores.base import EmbeddingStore

__all__ = ["PushPlan", "plan_push"]


@dataclass(frozen=True)
class PushPlan:
    """The nodes that a push is to write, and those it leaves alone.

    Attributes:
        ids: nodes that are written.
        vectors: of these nodes.
        changed: nodes that somebody else has changed since they were read.
        missing: nodes that are no longer in the store.
        away: nodes of the live version that are not in the store: id, nudged vector, original.
        back: nodes that had been away and are there again.
    """

    ids: list[str]
    vectors: Vectors
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    away: list[tuple[str, FloatArray, FloatArray]]
    back: list[str]


def plan_push(journal: Journal, ids: Sequence[str], originals: FloatArray, vectors: FloatArray) -> PushPlan:
    """Compare the nodes of a push, and those of the one that is live, with what the store holds.

    Args:
        journal: of the store.
        ids: of the nodes.
        originals: (len(ids), d) their vectors before any nudge.
        vectors: (len(ids), d) their moved vectors.

    Raises:
        CorruptArchiveError: the record of an earlier push is damaged.
    """
    store, live = journal.store, journal.live
    dtype = np.dtype(store.capabilities.dtype)
    targets = {n: (o, v) for n, o, v in zip(ids, originals.astype(dtype), store.as_stored(vectors), strict=True)}
    live_at = {} if live is None else {node_id: at for at, node_id in enumerate(live.ids)}
    asked = dict.fromkeys([*targets, *live_at, *journal.away.vectors])
    current, gone = read_present(store, list(asked))
    known = {} if live is None else _originals_of_held(store, live, live_at, current)
    for node_id, (_, original) in journal.away.vectors.items():
        if node_id in current and node_id not in known and journal.away.is_back(store, node_id, current[node_id]):
            known[node_id] = original.astype(dtype)
    known |= _originals_of_mapped(journal, {name: now for name, now in current.items() if name not in known}, dtype)
    returned = _find_returned(journal, current, targets, {*asked} - {*known})
    rows, changed = [], []
    for node_id, now in {**current, **returned.vectors}.items():
        ours = node_id in known or node_id in returned.originals
        original = known.get(node_id, returned.originals.get(node_id, now))
        wanted = targets.get(node_id)
        if wanted is None:
            # Nudged by an earlier push and by this one no longer: back to its original.
            if ours:
                rows.append((node_id, original, now, original))
        elif same_vectors(store, original, wanted[0]):
            rows.append((node_id, original, now, wanted[1]))
        else:
            changed.append(node_id)
    away = []
    if live is not None:
        away = [(n, live.after[live_at[n]], live.originals[live_at[n]]) for n in gone if n in live_at]
    back = [node_id for node_id in journal.away.vectors if node_id in current]
    parts = [np.array([row[part] for row in rows], dtype=dtype) for part in (1, 2, 3)]
    missing = tuple(node_id for node_id in gone if node_id in targets)
    return PushPlan([row[0] for row in rows], Vectors(*parts), tuple(changed), missing, away, back)


def _originals_of_held(
    store: EmbeddingStore, live: Version, live_at: Mapping[str, int], current: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Originals of the nodes that hold what the live version wrote or found."""
    return {
        node_id: live.originals[live_at[node_id]]
        for node_id, now in current.items()
        if node_id in live_at and live.holds(store, now, live_at[node_id])
    }


def _originals_of_mapped(
    journal: Journal, doubtful: Mapping[str, FloatArray], dtype: np.dtype[Any]
) -> dict[str, FloatArray]:
    """Originals of the nodes that were mapped before they were added."""
    if not journal.ingested or not doubtful:
        return {}
    names, found = list(doubtful), np.array(list(doubtful.values()), dtype=dtype)
    rows, originals = journal.ingested.originals_of(found)
    return dict(zip([names[row] for row in rows], originals, strict=True))


def _find_returned(
    journal: Journal,
    current: Mapping[str, FloatArray],
    targets: Mapping[str, tuple[FloatArray, FloatArray]],
    doubtful: Collection[str],
) -> _Returned:
    """Nodes that hold a nudge again whose version is over; among ``current`` those that are ``doubtful``."""
    store, over = journal.store, journal.over(journal.live)
    dtype, found = store.capabilities.dtype, _Returned({}, {})
    if not over:
        return found
    for part in journal.find_returned(among(current)):
        found.vectors.update(zip(part.ids, part.found, strict=True))
        found.originals.update(zip(part.ids, part.originals.astype(dtype), strict=True))
    names = [
        node_id
        for node_id in doubtful
        if node_id in current
        and not (node_id in targets and same_vectors(store, current[node_id], targets[node_id][0]))
    ]
    if names:
        vectors = np.array([current[node_id] for node_id in names])
        for _, places, before in match_over(store, over, names, vectors):
            found.originals.update(zip([names[place] for place in places], before.astype(dtype), strict=True))
    return found


@dataclass(frozen=True)
class _Returned:
    """Nodes that hold a nudge again: vectors of those that were read besides others, and originals of all."""

    vectors: dict[str, FloatArray]
    originals: dict[str, FloatArray]
