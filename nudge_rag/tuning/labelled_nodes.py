"""Read the labelled nodes, leave out the labels of unknown ones, and divide the queries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.common.caller import warn_caller
from nudge_rag.feedback.pairs import LabeledPairs, Split
from nudge_rag.journal.journal import Journal, nudged_ids, original_vectors
from nudge_rag.stores.access import reading
from nudge_rag.stores.base import EmbeddingStore
from nudge_rag.tuning.gate import find_seen, live_queries
from nudge_rag.tuning.generated import refuse_generated
from nudge_rag.tuning.label_matching import describe_strangers, example_ids
from nudge_rag.tuning.options import TuneSettings

__all__ = ["LabelledNodes", "find_unanswerable", "read_nodes", "require_validation", "split_known"]


@dataclass(frozen=True)
class LabelledNodes:
    """The nodes that have a label or were nudged before.

    Attributes:
        ids: sorted, so that the order of the pairs does not decide between nodes that tie.
        current: (len(ids), d), what the store holds.
        originals: (len(ids), d), what it held before any nudge.
    """

    ids: list[str]
    current: FloatArray
    originals: FloatArray


def read_nodes(store: EmbeddingStore, pairs: LabeledPairs | Split, versions: Path | None) -> LabelledNodes:
    """Read the labelled nodes and those that an earlier push moved: no others can differ from the store's."""
    refuse_generated(pairs)
    labelled = list(dict.fromkeys(node for part in _parts(pairs) for node in part.node_ids))
    with reading(store, "the labelled nodes were read"):
        if not store.count():
            raise ValueError(f"{store.name} holds no nodes: add them before tuning")
        wanted = list(dict.fromkeys([*labelled, *nudged_ids(store, versions)]))
        present = store.matching(wanted, None)
        ids = sorted(present)
        if not present.intersection(labelled):
            warn_caller(f"none of the {len(labelled)} labelled node ids is in {store.name}")
            raise ValueError(describe_strangers(labelled, store))
        current = store.read(ids)
    originals = original_vectors(store, ids, current, versions)
    bad = ~np.isfinite(originals).all(axis=1)
    if bad.any():
        raise ValueError(f"the vector of node {ids[int(bad.argmax())]!r} holds NaN or infinite values")
    return LabelledNodes(ids, current, originals)


def split_known(
    pairs: LabeledPairs | Split, nodes: LabelledNodes, settings: TuneSettings, store: EmbeddingStore
) -> Split:
    """Leave out pairs of unknown nodes, with a warning, and divide the others unless they are divided already.

    Queries that the live version was made from are learned from again, and never judge what is to follow it.
    """
    known_parts = []
    for part in _parts(pairs):
        known, unknown = part.restrict_to(nodes.ids)
        if unknown:
            warn_caller(f"{unknown}. Ids of {store.name} are such as {example_ids(store)}")
        known_parts.append(known)
    if isinstance(pairs, LabeledPairs):
        live = Journal.open(store, settings.versions).live
        known_hashes = set() if live is None else live_queries(live.manifest["details"])
        texts = known_parts[0].queries
        learned = [texts[query] for query in find_seen(texts, known_hashes)]
        return known_parts[0].split(*settings.split, seed=settings.seed, learned=learned)
    return Split(*known_parts)


def require_validation(split: Split, settings: TuneSettings) -> None:
    """Refuse labels too few to choose by; a solver that is given as an object may need none."""
    if isinstance(settings.solver, str) and not split.val.n_queries:
        train, _, test = (part.n_queries for part in split)
        raise ValueError(
            f"{train + test} labelled queries leave none to validate on ({train} for training, {test} for testing):"
            " label more, pass split= with a larger part for validation, or a Split of your own"
        )


def find_unanswerable(pairs: LabeledPairs | Split, nodes: LabelledNodes) -> list[str]:
    """Return the queries to learn from whose nodes are not in the store: no push forgets them."""
    known = set(nodes.ids)
    return [
        part.queries[query]
        for part in _parts(pairs)[:2]
        for query, grades in part.qrels.items()
        if not known & grades.keys()
    ]


def _parts(pairs: LabeledPairs | Split) -> list[LabeledPairs]:
    return [pairs] if isinstance(pairs, LabeledPairs) else list(pairs)
