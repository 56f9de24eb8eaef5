"""Running totals of the labels: per-node sums of training queries that grow and shrink, and the held-out queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.common.arrays import FloatArray
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.solvers.targets import summable_queries
from nudge_rag.tuning.gate import hash_query
from nudge_rag.tuning.incremental.held_out import HeldOutQuery

__all__ = ["PARTS", "RunningLabels", "TrainingQuery"]

PARTS = ("train", "val", "test")
KIND = "tuning state"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class TrainingQuery:
    """A training query: its embedding (d,) and the grades of its nodes."""

    vector: FloatArray
    grades: dict[str, float] = field(default_factory=dict)


@dataclass
class RunningLabels:
    """All that a solve needs, kept up to date pair by pair.

    Attributes:
        nodes: known node id to original vector (d,).
        sums: node id with a training query to the sum of its unit training queries (d,), float64, exact.
        counts: node id to the number of those queries.
        train: text to training query.
        watched: part (``val``, ``test``) to text to held-out query.
        hashes: node id to the hash of its text, if it is known.
        unanswerable: hashes of queries that were given, and whose nodes are not in the store.
    """

    nodes: dict[str, FloatArray] = field(default_factory=dict)
    sums: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    train: dict[str, TrainingQuery] = field(default_factory=dict)
    watched: dict[str, dict[str, HeldOutQuery]] = field(default_factory=lambda: {"val": {}, "test": {}})
    hashes: dict[str, str] = field(default_factory=dict)
    unanswerable: set[str] = field(default_factory=set)

    def part_of(self, text: str) -> str | None:
        """Return the part that a query is in, or None if it is not there."""
        return next((part for part in PARTS if text in self.of(part)), None)

    def of(self, part: str) -> Mapping[str, TrainingQuery | HeldOutQuery]:
        """Return the queries of a part, by text."""
        return self.train if part == "train" else self.watched[part]

    def held_out(self) -> Iterator[HeldOutQuery]:
        """Iterate over every validation and test query."""
        for part in self.watched.values():
            yield from part.values()

    def add(self, part: str, text: str, grades: Mapping[str, float], *, replace: bool = False) -> None:
        """Fold in pairs of a query that is there; grades of a pair add up, unless the new one is to replace them."""
        query = self.of(part)[text]
        for node_id, grade in grades.items():
            before = query.grades.get(node_id, 0.0)
            after = query.grades[node_id] = grade if replace else before + grade
            if part == "train" and (after > 0) != (before > 0):
                self._count(node_id, query.vector, 1 if after > 0 else -1)

    def remove(self, text: str, node_ids: list[str]) -> None:
        """Take pairs out; a query without pairs goes too."""
        part = self.part_of(text)
        if part is None:
            return
        query = self.of(part)[text]
        for node_id in node_ids:
            grade = query.grades.pop(node_id, 0.0)
            if part == "train" and grade > 0:
                self._count(node_id, query.vector, -1)
        if not query.grades:
            self.train.pop(text, None) if part == "train" else self.watched[part].pop(text)

    def give_up(self, texts: Iterable[str]) -> None:
        """Remember queries whose nodes are not in the store: they are not forgotten, they cannot be learned."""
        self.unanswerable.update(hash_query(text) for text in texts if self.part_of(text) is None)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give what is known of nodes to the ids that they have now; lists of unlabelled nodes begin anew.

        Hashes of texts stay with the old ids too: labels may go on to name these.
        """
        for known in (self.nodes, self.sums, self.counts):
            _rename(known, names)
        self.hashes |= {new: self.hashes[old] for old, new in names.items() if old in self.hashes}
        for part in PARTS:
            for query in self.of(part).values():
                _rename(query.grades, names)
        for watched in self.held_out():
            watched.fill([], [], 0)
            watched.complete = False

    def _count(self, node_id: str, vector: FloatArray, sign: int) -> None:
        unit = summable_queries(vector[None])[0]
        self.counts[node_id] = self.counts.get(node_id, 0) + sign
        if self.counts[node_id]:
            self.sums[node_id] = self.sums.get(node_id, 0.0) + sign * unit
        else:
            del self.counts[node_id], self.sums[node_id]

    def pack(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return a manifest and arrays that hold everything; `unpack` reads them."""
        queries = {part: self.of(part) for part in PARTS}
        lists = list(self.held_out())
        manifest = {
            "kind": KIND,
            "nodes": list(self.nodes),
            "counts": self.counts,
            "grades": {part: {text: query.grades for text, query in found.items()} for part, found in queries.items()},
            "lists": [query.ids for query in lists],
            "complete": [query.complete for query in lists],
        }
        arrays = {part: _stacked([query.vector for query in found.values()]) for part, found in queries.items()}
        arrays |= {"nodes": _stacked(list(self.nodes.values())), "sums": _stacked(list(self.sums.values()))}
        arrays["scores"] = np.array([score for query in lists for score in query.scores], dtype=np.float64)
        manifest |= {"summed": list(self.sums), "unanswerable": sorted(self.unanswerable), "hashes": self.hashes}
        return manifest, arrays

    @classmethod
    def unpack(cls, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> RunningLabels:
        """Read what `pack` returned.

        Raises:
            CorruptArchiveError: the manifest and the arrays are something else, or do not agree.
        """
        if manifest.get("kind") != KIND:
            raise CorruptArchiveError("the folder does not hold a tuning state")
        try:
            return cls._unpacked(manifest, arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptArchiveError(f"the parts of the tuning state do not agree: {error}") from error

    @classmethod
    def _unpacked(cls, manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> RunningLabels:
        names = {name: _strings(manifest[name]) for name in ("nodes", "summed")}
        gone = _strings(manifest.get("unanswerable", []))
        rows = {name: _matrix(arrays[name], name) for name in ("nodes", "sums", *PARTS)}
        if len({part.shape[1] for part in rows.values() if len(part)}) > 1:
            raise ValueError("vectors of several dimensions")
        labels = cls(
            nodes=dict(zip(names["nodes"], rows["nodes"], strict=True)),
            sums=dict(zip(names["summed"], rows["sums"], strict=True)),
            counts={node_id: _count_of(count) for node_id, count in manifest["counts"].items()},
            hashes=_checked_hashes(manifest.get("hashes", {})),
            unanswerable=set(gone),
        )
        if labels.counts.keys() != labels.sums.keys() or not labels.counts.keys() <= labels.nodes.keys():
            raise ValueError("sums, counts and nodes name other ids")
        for part in PARTS:
            _check_grades(manifest["grades"][part], labels.nodes)
            for (text, grades), vector in zip(manifest["grades"][part].items(), rows[part], strict=True):
                if part == "train":
                    labels.train[text] = TrainingQuery(vector, dict(grades))
                else:
                    labels.watched[part][text] = HeldOutQuery(vector, dict(grades))
        scores = arrays["scores"]
        bounds = np.cumsum([0, *(len(_strings(ids)) for ids in manifest["lists"])])
        if scores.dtype != np.float64 or scores.shape != (bounds[-1],) or np.isnan(scores).any():
            raise ValueError(f"{bounds[-1]} ids, but scores are {scores.dtype} of shape {scores.shape}")
        held_out = zip(labels.held_out(), manifest["lists"], manifest["complete"], strict=True)
        for row, (query, ids, complete) in enumerate(held_out):
            query.ids, query.complete = list(ids), bool(complete)
            query.scores = scores[bounds[row] : bounds[row + 1]].tolist()
        return labels


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of ids holds something else than strings")
    if len(set(values)) != len(values):
        raise ValueError("an id is there twice")
    return values


def _rename(known: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename the keys of ``known``, in their order."""
    renamed = {names.get(node_id, node_id): value for node_id, value in known.items()}
    known.clear()
    known.update(renamed)


def _checked_hashes(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise TypeError("hashes are something else than texts by node id")
    return values


def _matrix(array: Array, name: str) -> Array:
    if array.ndim != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError(f"{name} is no matrix of finite numbers")
    return array


def _count_of(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TypeError(f"a node has {value!r} training queries")
    return value


def _check_grades(grades: Mapping[str, Mapping[str, float]], nodes: Mapping[str, Any]) -> None:
    """Raise unless the grades of a part are labelled pairs of known nodes."""
    pairs = LabeledPairs({text: text for text in grades}, grades)
    unknown = set(pairs.node_ids) - nodes.keys()
    if unknown:
        raise ValueError(f"grades name {min(unknown)!r}, which is no node of the state")


def _stacked(rows: list[Any]) -> Array:
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
