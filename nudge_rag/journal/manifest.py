"""The states that a push goes through, its two modes, and the rules for its manifest and arrays."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from nudge_rag.stores.checks import check_label

__all__ = [
    "ARRAY_NAMES",
    "BASE",
    "BLOCKS",
    "COMMITTED",
    "IN_PLACE",
    "LIVE",
    "PREPARED",
    "REBUILT",
    "ROLLED_BACK",
    "SIDE_BY_SIDE",
    "STREAMED",
    "SUPERSEDED",
    "SWITCHED",
    "SWITCHING",
    "THINNED",
    "VERIFIED",
    "WAS_LIVE",
    "WRITING",
    "wrong_array",
    "wrong_manifest",
]

IN_PLACE, SIDE_BY_SIDE = "in-place", "side-by-side"
PREPARED, WRITING, VERIFIED, COMMITTED = "prepared", "writing", "verified", "committed"
SUPERSEDED, ROLLED_BACK = "superseded", "rolled back"
# Of a version that is a copy: committed means that it waits, switched that it is live.
SWITCHING, SWITCHED = "switching", "switched"
# States in which the store may hold vectors that a push in place wrote.
LIVE = (PREPARED, WRITING, VERIFIED, COMMITTED)
STATES = {
    IN_PLACE: (*LIVE, SUPERSEDED, ROLLED_BACK),
    SIDE_BY_SIDE: (*LIVE, SWITCHING, SWITCHED, ROLLED_BACK),
}
ARRAY_NAMES = ("originals", "before", "after")
KINDS = {"state": str, "created": str, "store": dict, "dimension": int, "details": dict}
# Set if a version that is a copy was live by a switch.
WAS_LIVE = "was_live"
# Set if only the manifest of a version is left.
THINNED = "thinned"
# Set if a version is live again whose own record was not kept: what it had found is not known.
REBUILT = "rebuilt"
# The version that this one is stored as a difference to.
BASE = "base"
# Set if a push wrote all nodes of the store, a block at a time; and how many blocks there are, once all are recorded.
STREAMED, BLOCKS = "streamed", "blocks"
NAME = "[0-9]{1,9}"


def wrong_manifest(manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the manifest, or None if it is valid."""
    for name, kind in KINDS.items():
        value = manifest.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{name} is {type(value).__name__}, not {kind.__name__}"
    gamma = manifest["details"].get("gamma", 0.0)
    if not isinstance(gamma, int | float) or not abs(gamma) <= sys.float_info.max:
        return "gamma is not a finite number"
    if not isinstance(manifest["details"].get("text_hashes", {}), dict):
        return "text_hashes is no object"
    previous = manifest.get("previous", "0")
    if not isinstance(previous, str) or not re.fullmatch(NAME, previous):
        return f"the version before it is {previous!r}"
    lost = manifest.get("details_lost", [])
    if not isinstance(lost, list) or not all(isinstance(name, str) for name in lost):
        return "details_lost is no list of names"
    return _wrong_ids(manifest) or _wrong_mode(manifest) or _wrong_blocks(manifest)


def _wrong_blocks(manifest: Mapping[str, Any]) -> str | None:
    if STREAMED not in manifest:
        return None
    if manifest[STREAMED] is not True:
        return f"streamed is {manifest[STREAMED]!r}"
    for name in (BLOCKS, "n_nodes"):
        count = manifest.get(name, 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            return f"{name} is {count!r}"
    return None


def _wrong_ids(manifest: Mapping[str, Any]) -> str | None:
    ids, base = manifest.get("ids"), manifest.get(BASE)
    if THINNED in manifest or (base is not None and ids is None):
        n_nodes = manifest.get("n_nodes")
        if isinstance(n_nodes, bool) or not isinstance(n_nodes, int) or n_nodes < 0:
            return f"n_nodes is {n_nodes!r}"
        if THINNED in manifest and (manifest[THINNED] is not True or manifest["state"] in (*LIVE, SWITCHING, SWITCHED)):
            return "it is thinned out, and may still be in the store"
        if base is None:
            return None
    if base is not None and (not isinstance(base, str) or not re.fullmatch(NAME, base)):
        return f"its base is {base!r}"
    if ids is None and base is not None:
        return None
    if not isinstance(ids, list):
        return f"ids is {type(ids).__name__}, not list"
    if not all(isinstance(node_id, str) for node_id in ids):
        return "node ids are strings"
    return "a node id is there twice" if len(set(ids)) != len(ids) else None


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


def wrong_array(arrays: Mapping[str, np.ndarray[Any, Any]], name: str, shape: tuple[int, int]) -> str | None:
    """Say why an array is not as a push writes it; None if all is well."""
    part = arrays.get(name)
    if part is None:
        return f"it has no array {name!r}"
    if part.dtype not in (np.float32, np.float64) or part.shape != shape:
        return f"{name} is {part.dtype} of shape {part.shape}, expected float32 or float64 of shape {shape}"
    return None if np.isfinite(part).all() else f"{name} holds NaN or infinite values"
