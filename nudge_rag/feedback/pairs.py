"""Labelled pairs: which nodes answer which queries."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from nudge_rag.feedback import formats

__all__ = ["LabeledPairs", "Split", "UnknownNodes"]

Qrels = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class UnknownNodes:
    """Node ids that labels name and a store does not hold.

    Attributes:
        pairs: number of labels lost per unknown node id.
        queries_left_empty: ids of the queries that have no known node left, and were dropped.
    """

    pairs: Mapping[str, int]
    queries_left_empty: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __str__(self) -> str:
        shown = ", ".join(f"{node!r} ({count})" for node, count in list(self.pairs.items())[:5])
        more = f" and {len(self.pairs) - 5} more" if len(self.pairs) > 5 else ""
        return (
            f"{len(self.pairs)} labelled node id(s) are not in the store, in {sum(self.pairs.values())} pair(s): "
            f"{shown}{more}; {len(self.queries_left_empty)} of the queries have no other answer and are left out"
        )


@dataclass(frozen=True)
class LabeledPairs:
    """Queries and the nodes that answer them.

    A pair given twice is one pair, with the higher of its grades. A grade of 0 or less says that the node was judged
    and does not answer the query.

    Attributes:
        queries: query id to query text.
        qrels: query id to {node id: grade}; every query has an entry, none is empty.

    Raises:
        TypeError: ids or texts that are not strings, grades that are not numbers.
        ValueError: an empty id or text, a grade that is not finite, a query without nodes, qrels for an unknown query.

    Example:
        >>> pairs = LabeledPairs.from_pairs([("reset my password", "doc-7"), ("reset my password", "doc-9", 2)])
        >>> len(pairs), pairs.n_queries, pairs.node_ids
        (2, 1, ('doc-7', 'doc-9'))
    """

    queries: Mapping[str, str]
    qrels: Qrels = field(repr=False)

    def __post_init__(self) -> None:
        for query, text in self.queries.items():
            _check_text(query, "query id")
            _check_text(text, f"text of query {query!r}")
        unknown = [query for query in self.qrels if query not in self.queries]
        if unknown:
            raise ValueError(f"{len(unknown)} query id(s) in the qrels have no text, such as {unknown[0]!r}")
        checked = {query: MappingProxyType(_checked_grades(query, self.qrels.get(query, {}))) for query in self.queries}
        object.__setattr__(self, "queries", MappingProxyType(dict(self.queries)))
        object.__setattr__(self, "qrels", MappingProxyType(checked))

    def __len__(self) -> int:
        return sum(len(grades) for grades in self.qrels.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabeledPairs):
            return NotImplemented
        return dict(self.queries) == dict(other.queries) and _plain(self.qrels) == _plain(other.qrels)

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.queries)

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Distinct node ids, in order of appearance."""
        return tuple(dict.fromkeys(node for grades in self.qrels.values() for node in grades))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str] | tuple[str, str, float]]) -> LabeledPairs:
        """From (query text, node id) or (query text, node id, grade); identical texts are one query.

        Query ids are ``q0``, ``q1``, ... in order of appearance.
        """
        rows = []
        for number, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) not in (2, 3):
                raise ValueError(f"pair {number} must be (query, node id) or (query, node id, grade), got {pair!r}")
            rows.append({"query": pair[0], "node_id": pair[1], "grade": pair[2] if len(pair) == 3 else 1.0})
        return cls._from_rows(rows)

    @classmethod
    def _from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> LabeledPairs:
        """From dictionaries with query, node_id, grade and, or not, query_id."""
        queries: dict[str, str] = {}
        qrels: dict[str, dict[str, float]] = {}
        id_of_text: dict[str, str] = {}
        for row in rows:
            text = row["query"]
            query = row.get("query_id")
            if query is None:
                _check_text(text, "query text")
                query = id_of_text.setdefault(text, f"q{len(id_of_text)}")
            if queries.setdefault(query, text) != text:
                raise ValueError(f"query id {query!r} has two texts: {queries[query]!r} and {text!r}")
            grades = qrels.setdefault(query, {})
            grade = _checked_grade(query, row["node_id"], row["grade"])
            grades[row["node_id"]] = max(grade, grades.get(row["node_id"], -math.inf))
        return cls(queries, qrels)

    def _rows(self) -> Iterable[dict[str, Any]]:
        for query, grades in self.qrels.items():
            for node, grade in grades.items():
                yield {"query": self.queries[query], "node_id": node, "grade": grade, "query_id": query}

    @classmethod
    def from_jsonl(cls, path: str | Path) -> LabeledPairs:
        """From a file of JSON objects, one a line: ``query``, ``node_id`` and, or not, ``grade``, ``query_id``."""
        return cls._from_rows(formats.read_jsonl(Path(path)))

    def to_jsonl(self, path: str | Path) -> None:
        """Write what `from_jsonl` reads."""
        formats.write_jsonl(Path(path), self._rows())

    @classmethod
    def from_csv(cls, path: str | Path) -> LabeledPairs:
        """From a CSV file with the columns ``query``, ``node_id`` and, or not, ``grade``, ``query_id``."""
        return cls._from_rows(formats.read_csv(Path(path)))

    def to_csv(self, path: str | Path) -> None:
        """Write what `from_csv` reads."""
        formats.write_csv(Path(path), self._rows())

    @classmethod
    def from_beir(cls, folder: str | Path, split: str = "train") -> LabeledPairs:
        """From a BEIR folder: ``queries.jsonl`` and ``qrels/<split>.tsv``."""
        return cls(*formats.read_beir(Path(folder), split))

    def to_beir(self, folder: str | Path, split: str = "train") -> None:
        """Write ``qrels/<split>.tsv`` and add the queries to ``queries.jsonl``; other splits stay as they are.

        Raises ValueError where a query id is there already with another text.
        """
        formats.write_beir(Path(folder), split, self.queries, self.qrels)

    @classmethod
    def from_finetune_dataset(cls, dataset: Any) -> LabeledPairs:
        """From LlamaIndex's ``EmbeddingQAFinetuneDataset``, recognised by its shape, or from its JSON file.

        Args:
            dataset: an object with ``queries`` and ``relevant_docs``, a mapping with these keys, or the file's path.
        """
        return cls(*formats.read_finetune_dataset(dataset))

    def subset(self, query_ids: Iterable[str]) -> LabeledPairs:
        """Only the queries named, in that order. Raises ValueError for an unknown one."""
        wanted = list(dict.fromkeys(query_ids))
        unknown = [query for query in wanted if query not in self.queries]
        if unknown:
            raise ValueError(f"{len(unknown)} query id(s) are not among the pairs, such as {unknown[0]!r}")
        return LabeledPairs({q: self.queries[q] for q in wanted}, {q: self.qrels[q] for q in wanted})

    def restrict_to(self, known_ids: Collection[str]) -> tuple[LabeledPairs, UnknownNodes]:
        """Only the pairs whose node is known, and a report of the others; queries left without nodes are dropped."""
        known = set(known_ids)
        lost: dict[str, int] = {}
        kept: dict[str, dict[str, float]] = {}
        for query, grades in self.qrels.items():
            kept[query] = {node: grade for node, grade in grades.items() if node in known}
            for node in grades.keys() - known:
                lost[node] = lost.get(node, 0) + 1
        empty = tuple(query for query, grades in kept.items() if not grades)
        left = {query: grades for query, grades in kept.items() if grades}
        return LabeledPairs({q: self.queries[q] for q in left}, left), UnknownNodes(dict(sorted(lost.items())), empty)

    def split(self, train: float = 0.7, val: float = 0.1, test: float = 0.2, *, seed: int = 0) -> Split:
        """Divide by query into three parts.

        The same texts, whatever their order or ids, fall into the same parts for the same seed; queries with identical
        texts stay together.

        Args:
            train, val, test: fractions of the distinct query texts, summing to 1.
            seed: of the shuffle.
        """
        fractions = (train, val, test)
        if not all(math.isfinite(part) and part >= 0 for part in fractions) or abs(sum(fractions) - 1) > 1e-9:
            raise ValueError(f"train, val and test must be fractions that sum to 1, got {fractions}")
        texts = sorted(set(self.queries.values()))
        shuffled = np.random.default_rng(seed).permutation(len(texts))
        cuts = np.round(np.cumsum(fractions) * len(texts)).astype(int)
        part_of = {texts[at]: int(np.searchsorted(cuts, place, side="right")) for place, at in enumerate(shuffled)}
        parts: list[list[str]] = [[], [], []]
        for query, text in self.queries.items():
            parts[min(part_of[text], 2)].append(query)
        return Split(*(self.subset(part) for part in parts))


class Split(NamedTuple):
    """Pairs to learn from, to choose the step by, and to measure on."""

    train: LabeledPairs
    val: LabeledPairs
    test: LabeledPairs


def _check_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {value!r}")
    if not value.strip():
        raise ValueError(f"{what} is empty")


def _checked_grades(query: str, grades: Mapping[str, float]) -> dict[str, float]:
    if not grades:
        raise ValueError(f"query {query!r} has no nodes")
    return {node: _checked_grade(query, node, grade) for node, grade in grades.items()}


def _checked_grade(query: str, node: object, grade: object) -> float:
    _check_text(node, f"a node id of query {query!r}")
    if isinstance(grade, bool) or not isinstance(grade, int | float | np.integer | np.floating):
        raise TypeError(f"grade of query {query!r} and node {node!r} must be a number, got {grade!r}")
    if not math.isfinite(grade):
        raise ValueError(f"grade of query {query!r} and node {node!r} must be finite, got {grade!r}")
    return float(grade)


def _plain(qrels: Qrels) -> dict[str, dict[str, float]]:
    return {query: dict(grades) for query, grades in qrels.items()}
