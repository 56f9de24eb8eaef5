"""The states that a push goes through, its two modes, and what its manifest and arrays must be."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from nudge_rag.stores.checks import check_label

__all__ = [
    "ARRAY_NAMES",
    "COMMITTED",
    "IN_PLACE",
    "LIVE",
    "PREPARED",
    "ROLLED_BACK",
    "SIDE_BY_SIDE",
    "SUPERSEDED",
    "SWITCHED",
    "SWITCHING",
    "VERIFIED",
    "WRITING",
    "wrong_arrays",
    "wrong_manifest",
]

IN_PLACE, SIDE_BY_SIDE = "in-place", "side-by-side"
PREPARED, WRITING, VERIFIED, COMMITTED = "prepared", "writing", "verified", "committed"
SUPERSEDED, ROLLED_BACK = "superseded", "rolled back"
# Of a version beside the live one: committed means that it waits there, switched that it is the live one.
SWITCHING, SWITCHED = "switching", "switched"
# States in which the store may hold what a push in place wrote.
LIVE = (PREPARED, WRITING, VERIFIED, COMMITTED)
STATES = {
    IN_PLACE: (*LIVE, SUPERSEDED, ROLLED_BACK),
    SIDE_BY_SIDE: (*LIVE, SWITCHING, SWITCHED, ROLLED_BACK),
}
ARRAY_NAMES = ("originals", "before", "after")
KINDS = {"state": str, "created": str, "store": dict, "dimension": int, "details": dict, "ids": list}


def wrong_manifest(manifest: Mapping[str, Any]) -> str | None:
    """What is not as a push writes it; None where all is well."""
    for name, kind in KINDS.items():
        if not isinstance(manifest.get(name), kind):
            return f"{name} is {type(manifest.get(name)).__name__}, not {kind.__name__}"
    if not all(isinstance(node_id, str) for node_id in manifest["ids"]):
        return "node ids are strings"
    if len(set(manifest["ids"])) != len(manifest["ids"]):
        return "a node id is there twice"
    gamma = manifest["details"].get("gamma", 0.0)
    if not isinstance(gamma, int | float) or not abs(gamma) <= sys.float_info.max:
        return "gamma is not a finite number"
    if not isinstance(manifest["details"].get("text_hashes", {}), dict):
        return "text_hashes is no object"
    return _wrong_mode(manifest)


def _wrong_mode(manifest: Mapping[str, Any]) -> str | None:
    mode = manifest.get("mode", IN_PLACE)
    if not isinstance(mode, str) or mode not in STATES:
        return f"its mode is {mode!r}"
    if manifest["state"] not in STATES[mode]:
        return f"its state is {manifest['state']!r}, which no push {mode} has"
    # A version that was kept after a switch counts as pushed in place, and its copy may still be there.
    if mode == SIDE_BY_SIDE or "label" in manifest:
        try:
            check_label(manifest.get("label"))
        except ValueError:
            return f"its label is {manifest.get('label')!r}"
    return None


def wrong_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], shape: tuple[int, int]) -> str | None:
    """What is not as a push writes it; None where all is well."""
    for name in ARRAY_NAMES:
        part = arrays.get(name)
        if part is None:
            return f"it has no array {name!r}"
        if part.dtype not in (np.float32, np.float64) or part.shape != shape:
            return f"{name} is {part.dtype} of shape {part.shape}, expected float32 or float64 of shape {shape}"
        if not np.isfinite(part).all():
            return f"{name} holds NaN or infinite values"
    return None
