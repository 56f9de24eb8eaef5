"""Make a version live again of which only the manifest was kept, from the record of the next one."""

from __future__ import annotations

from typing import Any

import numpy as np

from nudge_rag.journal.coding import Vectors
from nudge_rag.journal.fingerprints import FINGERPRINT
from nudge_rag.journal.learned_queries import LIVE_QUERIES, queries_before
from nudge_rag.journal.manifest import COMMITTED, REBUILT
from nudge_rag.journal.versions import LOST, Version

__all__ = ["rebuild"]


def rebuild(version: Version, next_one: Version) -> None:
    """Make a version whose vectors are not kept live again, from the vectors that the one after it had found.

    What it had found itself stays unknown: it cannot be undone by itself any more.

    Raises:
        JournalError: the journal cannot be written to.
    """
    ids: list[str] = []
    originals, before = [], []
    for block in next_one.parts():
        vectors = block.vectors
        rows = np.flatnonzero((vectors.before != vectors.originals).any(axis=1))
        ids += [block.ids[row] for row in rows]
        originals.append(vectors.originals[rows])
        before.append(vectors.before[rows])
    unmoved = np.concatenate(originals)
    details = _lost_details(version, next_one, ids)
    lost = [name for name in version.manifest.get(LOST, ()) if name not in details]
    version.manifest |= {REBUILT: True, LOST: lost, "details": version.manifest["details"] | details}
    version.rebuild(ids, Vectors(unmoved, unmoved, np.concatenate(before)), COMMITTED)


def _lost_details(version: Version, next_one: Version, ids: list[str]) -> dict[str, Any]:
    """Those of the details that were not kept of ``version`` that the record of the next one tells."""
    lost, known = version.manifest.get(LOST, ()), next_one.manifest["details"]
    details: dict[str, Any] = {}
    queries = queries_before(next_one.manifest)
    if LIVE_QUERIES in lost and queries is not None:
        details[LIVE_QUERIES] = queries
    # A push over a version of another model is refused.
    if FINGERPRINT in lost and FINGERPRINT in known:
        details[FINGERPRINT] = known[FINGERPRINT]
    if "text_hashes" in lost:
        texts, own = next_one.text_hashes, set(ids)
        details["text_hashes"] = {node_id: hashed for node_id, hashed in texts.items() if node_id in own}
    return details
