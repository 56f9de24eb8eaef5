"""Check what was read of a saved nudge: an archive written by somebody else is data, and may be damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import UnionType
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError, is_number
from nudge_rag.evaluation.comparison import Comparison
from nudge_rag.journal.fingerprints import FINGERPRINT, Fingerprint
from nudge_rag.journal.node_map import NODE_MAP
from nudge_rag.solvers import Candidate, QueryAdapter, ValidationCurve
from nudge_rag.tuning.adapters import ADAPTER
from nudge_rag.tuning.gate import LABEL_HASHES, LIVE_QUERIES, LiveComparison
from nudge_rag.tuning.held_out import HELD_OUT, HeldOutQueries
from nudge_rag.tuning.judge import Judgement
from nudge_rag.tuning.judged_archive import JUDGED, unpack_evaluation

__all__ = ["KIND", "parse_nudge"]

KIND = "nudge"
Array = np.ndarray[Any, np.dtype[Any]]


def parse_nudge(place: object, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return the fields of a nudge, but for its store, checked.

    Args:
        place: the folder, for messages.
        manifest: what was read.
        arrays: what was read.

    Raises:
        CorruptArchiveError: it is not what ``Nudge.save`` writes.
    """
    if manifest.get("kind") != KIND:
        raise CorruptArchiveError(f"{place} does not hold a nudge")
    try:
        return _parse(manifest, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CorruptArchiveError(f"{place} is not what Nudge.save writes: {what}") from error


def _parse(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    ids = tuple(_texts(manifest["ids"], "ids"))
    if len(set(ids)) != len(ids):
        raise ValueError("a node id is there twice")
    vectors, originals = (_rows(arrays[name], name) for name in ("vectors", "originals"))
    if vectors.shape != originals.shape or len(vectors) != len(ids):
        raise ValueError(f"{len(ids)} ids, vectors of shape {vectors.shape}, originals of shape {originals.shape}")
    curve = ValidationCurve(
        _line(arrays["gammas"], "gammas"), _line(arrays["values"], "values"), _of(manifest, "metric", str)
    )
    if curve.gammas.shape != curve.values.shape:
        raise ValueError(f"{len(curve.gammas)} gammas, {len(curve.values)} values")
    _of(manifest, "store", str)
    comparison, live, judged = (manifest.get(name) for name in ("comparison", "against_live", "judgement"))
    return {
        "ids": ids,
        "vectors": vectors,
        "originals": originals,
        "gamma": _number(manifest["gamma"], "gamma"),
        "curve": curve,
        "improves": _of(manifest, "improves", bool),
        "summary": _of(manifest, "summary", str),
        "comparison": None if comparison is None else Comparison.from_dict(comparison),
        "against_live": None if live is None else LiveComparison.from_dict(live),
        "judgement": None if judged is None else _judgement(judged, manifest, arrays),
        "solver": _of(manifest, "solver", str),
        "model": _of(manifest, "model", str | None, None),
        "settings": _of(manifest, "settings", dict, {}),
        "text_hashes": _hashes(_of(manifest, "text_hashes", dict, {})),
        "label_hashes": _hashes(_of(manifest, LABEL_HASHES, dict, {})),
        "query_hashes": tuple(_texts(manifest.get(LIVE_QUERIES, []), LIVE_QUERIES)),
        "fingerprint": Fingerprint.unpack(_of(manifest, FINGERPRINT, dict | None, None)),
        "tried": tuple(_candidate(setting) for setting in _of(manifest, "candidates", list, [])),
        "other_reaches": tuple(_candidate(reach) for reach in _of(manifest, "other_reaches", list, [])),
        "adapter": _adapter(arrays, vectors, ADAPTER),
        "node_map": _adapter(arrays, vectors, NODE_MAP),
        "held_out": HeldOutQueries.unpack(manifest[HELD_OUT], arrays[HELD_OUT]) if HELD_OUT in arrays else None,
    }


def _judgement(judged: Any, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Judgement:
    """The judge's decision, with its rankings if they were saved."""
    found = Judgement.from_dict(judged)
    if JUDGED not in arrays:
        return found
    return replace(found, evaluation=unpack_evaluation(_of(manifest, JUDGED, dict), arrays[JUDGED]))


def _of(manifest: Mapping[str, Any], name: str, kind: type | UnionType, *default: Any) -> Any:
    value = manifest.get(name, *default) if default else manifest[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}")
    return value


def _texts(values: Any, name: str) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is no list of strings")
    return values


def _hashes(given: Mapping[str, Any]) -> Mapping[str, str]:
    if not all(isinstance(value, str) for value in given.values()):
        raise TypeError("the hashes of texts hold something else than strings")
    return given


def _number(value: Any, name: str) -> float:
    if not is_number(value):
        raise TypeError(f"{name} is no finite number")
    return float(value)


def _rows(array: Array, name: str) -> Array:
    if array.ndim != 2 or array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
        raise ValueError(f"{name} is no matrix of finite numbers")
    return array


def _line(array: Array, name: str) -> Array:
    if array.ndim != 1 or array.dtype.kind != "f":
        raise ValueError(f"{name} is no row of numbers")
    return array


def _adapter(arrays: Mapping[str, Array], vectors: Array, name: str) -> QueryAdapter | None:
    if name not in arrays:
        return None
    adapter = QueryAdapter(_rows(arrays[name], name))
    if len(vectors) and adapter.dimension != vectors.shape[1]:
        raise ValueError(f"the {name} takes queries of dimension {adapter.dimension}, nodes have {vectors.shape[1]}")
    return adapter


def _candidate(setting: Any) -> Candidate:
    """One setting that was tried; its fields have the types that the class declares."""
    found = Candidate(**setting)
    for field in fields(Candidate):
        value, is_measure = getattr(found, field.name), field.default is None
        kind = str if field.name == "solver" else type(field.default)
        if is_measure or kind is float:
            fits = is_number(value) or (is_measure and value is None)
        else:
            fits = isinstance(value, kind) and (kind is not int or is_number(value))
        if not fits:
            raise TypeError(f"{field.name} of a setting is {type(value).__name__}")
    for measure in (
        (found.uncovered, found.low, found.high),
        (found.new_nodes, found.new_low, found.new_high),
        (found.covered, found.covered_low, found.covered_high),
    ):
        change, low, high = measure
        if (low is None) != (high is None) or (change is None and low is not None):
            raise TypeError("a setting has half an interval, or an interval without a change")
    return found
