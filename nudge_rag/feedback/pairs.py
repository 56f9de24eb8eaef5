"""Labelled pairs: which nodes answer which queries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from nudge_rag.feedback import formats
from nudge_rag.feedback.dividing import divide_queries
from nudge_rag.feedback.merging import merge_labels
from nudge_rag.feedback.reading import Errors, ReadReport, RowLog, checked_grades, checked_text
from nudge_rag.feedback.rows import COLUMNS, Labels, Qrels, gather_rows, tuple_rows
from nudge_rag.feedback.tables import table_rows
from nudge_rag.feedback.unknown import UnknownNodes, drop_unknown_nodes

__all__ = ["LabeledPairs", "Split", "UnknownNodes"]


@dataclass(frozen=True)
class LabeledPairs:
    """Queries and the nodes that answer them.

    Grades add up: a pair that is read from several rows has the sum of their grades, so that 30 thumbs down (-1 each)
    and one up make -29. A grade of 0 says that the node was judged and does not answer the query, one below 0 rejects
    it.

    Every reader takes ``errors``: ``"raise"`` stops at the first bad row and names file and line; ``"skip"`` leaves bad
    rows out, warns, and lists them in ``pairs.report``.

    Attributes:
        queries: query id to query text.
        qrels: query id to {node id: grade}; every query has an entry, none is empty.
        synthetic: ids of generated queries; `split` only trains on them, for they do not show what users ask.
        report: what the reader skipped; empty for pairs that were not read.

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
    synthetic: frozenset[str] = field(default=frozenset(), repr=False)
    report: ReadReport = field(default=ReadReport(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for query, text in self.queries.items():
            checked_text(query, "query id")
            checked_text(text, f"text of query {query!r}")
        unknown = [query for query in (*self.qrels, *self.synthetic) if query not in self.queries]
        if unknown:
            raise ValueError(f"{len(unknown)} query id(s) in the qrels have no text, such as {unknown[0]!r}")
        checked = {query: MappingProxyType(checked_grades(query, self.qrels.get(query, {}))) for query in self.queries}
        object.__setattr__(self, "queries", MappingProxyType(dict(self.queries)))
        object.__setattr__(self, "qrels", MappingProxyType(checked))
        object.__setattr__(self, "synthetic", frozenset(self.synthetic))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only views can be neither pickled nor copied.
        return LabeledPairs, (dict(self.queries), _plain(self.qrels), self.synthetic, self.report)

    def __len__(self) -> int:
        return sum(len(grades) for grades in self.qrels.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabeledPairs):
            return NotImplemented
        same_labels = dict(self.queries) == dict(other.queries) and _plain(self.qrels) == _plain(other.qrels)
        return same_labels and self.synthetic == other.synthetic

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: LabeledPairs) -> LabeledPairs:
        """Labels of both; queries of one text are one query, and the grades of a pair add up.

        Example:
            >>> monday = LabeledPairs.from_pairs([("reset my password", "doc-7", -1)])
            >>> tuesday = LabeledPairs.from_pairs([("reset my password", "doc-7", 1), ("log in", "doc-9")])
            >>> sorted((both := monday + tuesday).queries.values()), both.qrels["q0"]["doc-7"]
            (['log in', 'reset my password'], 0.0)
        """
        return self._merged(other, add=True) if isinstance(other, LabeledPairs) else NotImplemented

    def __or__(self, other: LabeledPairs) -> LabeledPairs:
        """Labels of both; queries of one text are one query, and for a pair in both the grade of ``other`` counts.

        Example:
            >>> monday = LabeledPairs.from_pairs([("reset my password", "doc-7", -1)])
            >>> reviewed = LabeledPairs.from_pairs([("reset my password", "doc-7", 2)])
            >>> (monday | reviewed).qrels["q0"]["doc-7"]
            2.0
        """
        return self._merged(other, add=False) if isinstance(other, LabeledPairs) else NotImplemented

    def _merged(self, other: LabeledPairs, *, add: bool) -> LabeledPairs:
        merged = merge_labels(self, other, add=add)
        return LabeledPairs(merged.queries, merged.qrels, merged.synthetic)

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.queries)

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Distinct node ids, in order of appearance."""
        return tuple(dict.fromkeys(node for grades in self.qrels.values() for node in grades))

    @classmethod
    def from_pairs(
        cls, pairs: Iterable[tuple[str, str] | tuple[str, str, float]], *, errors: Errors = "raise"
    ) -> LabeledPairs:
        """Read (query text, node id) or (query text, node id, grade); identical texts are one query.

        Query ids are ``q0``, ``q1``, ... in order of appearance. Integer node ids become strings.
        """
        log = RowLog("from_pairs", errors, "pair")
        return cls._read(gather_rows(tuple_rows(pairs, log), log), log)

    @classmethod
    def _read(cls, labels: Labels, log: RowLog, known: Collection[str] = ()) -> LabeledPairs:
        report = log.report(known)
        if not labels.queries and report.skipped:
            raise ValueError(f"no row could be read: {report}")
        return cls(labels.queries, labels.qrels, labels.synthetic, report)

    def _rows(self) -> Iterable[dict[str, Any]]:
        for query, grades in self.qrels.items():
            mark = {"synthetic": True} if query in self.synthetic else {}
            for node, grade in grades.items():
                yield {"query": self.queries[query], "node_id": node, "grade": grade, "query_id": query, **mark}

    @classmethod
    def from_jsonl(cls, path: str | Path, *, errors: Errors = "raise", encoding: str | None = None) -> LabeledPairs:
        """Read JSON objects, one a line: ``query``, ``node_id`` and optionally ``grade`` (1 without it), ``query_id``.

        Files of several days may stand one behind the other: if a query id has two texts, texts tell queries apart.

        Args:
            path: the file.
            errors: ``"raise"`` at a bad row, or ``"skip"`` it.
            encoding: that of the file; without it, what its byte order mark says, else UTF-8.

        Raises:
            ValueError: a bad row, with file and line; no row that could be read; votes or grades under a key that
                is not read, in rows without a grade.
            TypeError: a value of the wrong type, with file and line.

        Warns:
            UserWarning: rows that were skipped; other keys that nobody reads.
        """
        log = RowLog(str(path), errors)
        return cls._read(gather_rows(formats.read_jsonl(Path(path), log, encoding), log), log, COLUMNS)

    def to_jsonl(self, path: str | Path) -> None:
        """Write what `from_jsonl` reads."""
        formats.write_jsonl(Path(path), self._rows())

    @classmethod
    def from_csv(
        cls, path: str | Path, *, errors: Errors = "raise", encoding: str | None = None, delimiter: str = ","
    ) -> LabeledPairs:
        """Read a CSV file with the columns ``query``, ``node_id`` and optionally ``grade``, ``query_id``.

        Args:
            path: the file.
            errors: ``"raise"`` at a bad row, or ``"skip"`` it.
            encoding: that of the file; without it, what its byte order mark says, else UTF-8.
            delimiter: between cells.

        Raises:
            ValueError: a bad row, with file and line; a header without query and node_id; no row that could be read;
                votes or grades in a column that is not read, if there is no ``grade``.
            TypeError: a value of the wrong type, with file and line.

        Warns:
            UserWarning: rows that were skipped; other columns that nobody reads.
        """
        log = RowLog(str(path), errors)
        rows = formats.read_csv(Path(path), log, encoding, delimiter)
        return cls._read(gather_rows(rows, log), log, COLUMNS)

    def to_csv(self, path: str | Path) -> None:
        """Write what `from_csv` reads."""
        formats.write_csv(Path(path), self._rows())

    @classmethod
    def from_dataframe(
        cls, frame: Any, columns: Mapping[str, str] | None = None, *, errors: Errors = "raise"
    ) -> LabeledPairs:
        """Read a table of pandas, Polars, Arrow or Hugging Face: ``query``, ``node_id``, maybe ``grade``, ``query_id``.

        Args:
            frame: the table, or a mapping of column names to sequences.
            columns: our names to those of the table, such as ``{"query": "question"}``; other columns are then not
                looked at.
            errors: ``"raise"`` at a bad row, or ``"skip"`` it.

        Raises:
            TypeError: no table, or a value of the wrong type, with its row.
            ValueError: a column that the table lacks; a bad row; no row that could be read; votes or grades in a column
                that is not read, if there is no grade and ``columns`` is not given.

        Example:
            >>> table = {"question": ["reset my password", "log in"], "doc": [7, 9], "rating": [1, -1]}
            >>> names = {"query": "question", "node_id": "doc", "grade": "rating"}
            >>> LabeledPairs.from_dataframe(table, names).qrels["q1"]["9"]
            -1.0
        """
        log = RowLog("table", errors, "row")
        return cls._read(gather_rows(table_rows(frame, columns, COLUMNS), log), log, COLUMNS)

    @classmethod
    def from_beir(
        cls, folder: str | Path, split: str = "train", *, errors: Errors = "raise", encoding: str | None = None
    ) -> LabeledPairs:
        """Read a BEIR folder: ``queries.jsonl`` and ``qrels/<split>.tsv``.

        Scores are judgements: a pair that stands twice with the same score has that score, not twice of it.

        Args:
            folder: the folder.
            split: the name of the file in ``qrels``.
            errors: ``"raise"`` at a bad row, or ``"skip"`` it.
            encoding: that of the files; without it, what the byte order mark says, else UTF-8.

        Raises:
            ValueError: a bad row, with file and line; a split that is not there.
            TypeError: a value of the wrong type, with file and line.
        """
        log = RowLog(str(folder), errors)
        return cls._read(formats.read_beir(Path(folder), split, log, encoding), log)

    def to_beir(self, folder: str | Path, split: str = "train") -> None:
        """Write ``qrels/<split>.tsv`` and add the queries to ``queries.jsonl``; other splits stay as they are.

        Raises:
            ValueError: a query id is there already with another text.
        """
        formats.write_beir(Path(folder), split, self.queries, self.qrels, self.synthetic)

    @classmethod
    def from_finetune_dataset(
        cls, dataset: Any, *, errors: Errors = "raise", encoding: str | None = None
    ) -> LabeledPairs:
        """Read LlamaIndex's ``EmbeddingQAFinetuneDataset``, recognised by its shape, or its JSON file.

        ``relevant_docs`` holds for each query a node id, several, or a mapping of them to grades. Nodes of
        ``negative_docs`` are rejected (grade -1).

        Args:
            dataset: an object with ``queries`` and ``relevant_docs``, a mapping with these keys, or the file's path.
            errors: ``"raise"`` at a bad query, or ``"skip"`` it.
            encoding: that of the file; without it, what its byte order mark says, else UTF-8.

        Raises:
            TypeError: neither of these; a value of the wrong type, with its query.
            ValueError: a bad query, named.
        """
        source = str(dataset) if isinstance(dataset, str | Path) else type(dataset).__name__
        log = RowLog(source, errors)
        return cls._read(formats.read_finetune_dataset(dataset, log, encoding), log)

    def subset(self, query_ids: Iterable[str]) -> LabeledPairs:
        """Keep only the queries named, in that order.

        Raises:
            ValueError: an unknown one.
        """
        wanted = list(dict.fromkeys(query_ids))
        unknown = [query for query in wanted if query not in self.queries]
        if unknown:
            raise ValueError(f"{len(unknown)} query id(s) are not among the pairs, such as {unknown[0]!r}")
        return self._only({q: self.qrels[q] for q in wanted})

    def _only(self, qrels: Qrels) -> LabeledPairs:
        """Some of these pairs; nothing is checked, since all of it was when these were made."""
        part = object.__new__(LabeledPairs)
        checked = {query: MappingProxyType(dict(grades)) for query, grades in qrels.items()}
        object.__setattr__(part, "queries", MappingProxyType({query: self.queries[query] for query in qrels}))
        object.__setattr__(part, "qrels", MappingProxyType(checked))
        object.__setattr__(part, "synthetic", self.synthetic & qrels.keys())
        object.__setattr__(part, "report", ReadReport())
        return part

    def restrict_to(self, known_ids: Collection[str]) -> tuple[LabeledPairs, UnknownNodes]:
        """Only the pairs whose node is known, and a report of the others; queries left without nodes are dropped."""
        left, unknown = drop_unknown_nodes(self.qrels, known_ids)
        return self._only(left), unknown

    def split(
        self,
        train: float = 0.7,
        val: float = 0.1,
        test: float = 0.2,
        *,
        seed: int = 0,
        learned: Collection[str] = (),
    ) -> Split:
        """Divide by query into three parts.

        The same texts, whatever their order or ids, fall into the same parts for the same seed. Queries whose texts
        differ only in case, spacing or closing punctuation stay together; synthetic queries always train.

        Args:
            train: fraction of the distinct query texts to learn from.
            val: fraction to choose the step by.
            test: fraction to measure on; the three sum to 1.
            seed: of the shuffle.
            learned: query texts that something was trained on already; none of them is in the test part, which is
                smaller than asked for if too few others are left.

        Raises:
            ValueError: fractions that do not sum to 1.

        Example:
            >>> pairs = LabeledPairs.from_pairs([("log in", "a"), ("pay", "b"), ("leave", "c"), ("move", "d")])
            >>> parts = pairs.split(0.5, 0.25, 0.25, learned=["log in", "pay", "leave"])
            >>> list(parts.test.queries.values())
            ['move']
        """
        parts = divide_queries(self, (train, val, test), seed, learned)
        return Split(*(self.subset(part) for part in parts))


class Split(NamedTuple):
    """Pairs to learn from, to choose the step by, and to measure on."""

    train: LabeledPairs
    val: LabeledPairs
    test: LabeledPairs


def _plain(qrels: Qrels) -> dict[str, dict[str, float]]:
    return {query: dict(grades) for query, grades in qrels.items()}
