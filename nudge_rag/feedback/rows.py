"""Rows of (query, node, grade) summed up to queries and grades."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from nudge_rag.feedback.reading import RowLog, checked_id, checked_text, parsed_grade
from nudge_rag.feedback.votes import VoteColumns

__all__ = ["COLUMNS", "LabelSet", "Labels", "Qrels", "fold", "gather_rows", "normalise", "tuple_rows"]

COLUMNS = ("query", "node_id", "grade", "query_id", "synthetic")
# Marks as keyboards have them; those that end a sentence in other scripts, and those that begin one in Spanish.
KEYBOARD = str.maketrans(dict.fromkeys("\u2018\u2019\u201a\u201b\u2032`\u00b4", "'"))
KEYBOARD |= str.maketrans(dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'))
KEYBOARD |= str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"))
CLOSING, OPENING = " ?!.,;:\u3002\u3001\u061f\u060c\u061b\u06d4\u0964", "\u00bf\u00a1 "
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")

Qrels = Mapping[str, Mapping[str, float]]
Numbered = tuple[int | None, Mapping[str, Any]]


class LabelSet(Protocol):
    """Queries with their grades and the ids of those that were generated: `LabeledPairs` or `Labels`."""

    @property
    def queries(self) -> Mapping[str, str]:
        """Query id to text."""

    @property
    def qrels(self) -> Qrels:
        """Query id to {node id: grade}."""

    @property
    def synthetic(self) -> Set[str]:
        """Ids of generated queries."""


@dataclass(frozen=True)
class Labels:
    """What `LabeledPairs` is made of, checked."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]
    synthetic: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Row:
    query_id: str | None
    text: str
    node_id: str
    grade: float
    synthetic: bool


def gather_rows(rows: Iterable[Numbered], log: RowLog) -> Labels:
    """Sum the grades of each pair; ``log`` decides what a bad row does.

    Rows without a query id are told apart by their text. So are all rows if one id has two texts: ids such as ``q0``
    are then those of several files, written one behind the other.

    Raises:
        ValueError: a bad row, if ``log`` says so; votes or grades under a name that is not read.
    """
    checked: list[_Row] = []
    votes = VoteColumns(COLUMNS)
    for line, row in rows:
        log.n_rows += 1
        for name in row.keys() - set(COLUMNS):
            log.ignored[name] += 1
        votes.look(row)
        try:
            checked.append(_checked(row))
        except (TypeError, ValueError) as error:
            log.bad(line, str(error), type(error))
    votes.refuse(log.source)
    return _summed(checked, _query_ids(checked))


def tuple_rows(pairs: Iterable[Any], log: RowLog) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number tuples of (query, node id) or (query, node id, grade) and name their columns; others are bad rows."""
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) not in (2, 3):
            log.n_rows += 1
            log.bad(number, f"must be (query, node id) or (query, node id, grade), got {pair!r:.200}")
        else:
            yield number, dict(zip(("query", "node_id", "grade"), pair, strict=False))


def fold(text: str) -> str:
    """Reduce a text to its words: NFKC, case folded, one space between them, without characters that show nothing.

    Those are zero-width spaces, soft hyphens, byte order marks (category Cf), and the dot that case folding leaves of a
    Turkish capital.

    Example:
        >>> fold(" Can\u00adcel   MY plan? ")
        'cancel my plan?'
    """
    if text.isascii():
        return " ".join(text.lower().split())
    shown = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().replace("i\u0307", "i").split())


def normalise(text: str) -> str:
    """Reduce a text to what tells it apart: its words as `fold` gives them, without punctuation at the ends.

    Quotation marks and dashes of a word processor or a telephone are those of a keyboard.

    Example:
        >>> normalise("  Cancel  my plan? ") == normalise("cancel my plan")
        True
        >>> normalise("What\u2019s new?") == normalise("what's new")
        True
    """
    words = fold(text).translate(KEYBOARD)
    return words.rstrip(CLOSING).lstrip(OPENING) or words


def _checked(row: Mapping[str, Any]) -> _Row:
    missing = [name for name in COLUMNS[:2] if name not in row]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")
    query_id = row.get("query_id")
    return _Row(
        query_id=None if query_id is None or query_id == "" else checked_id(query_id, "query_id"),
        text=checked_text(row["query"], "query"),
        node_id=checked_id(row["node_id"], "node_id"),
        grade=parsed_grade(row.get("grade", 1.0), "grade"),
        synthetic=_flag(row.get("synthetic", False)),
    )


def _flag(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower()
    if word not in TRUE + FALSE:
        raise ValueError(f"synthetic must be true or false, got {value!r:.200}")
    return word in TRUE


def _query_ids(rows: list[_Row]) -> list[str]:
    """The query id of each row."""
    text_of: dict[str, str] = {}
    trusted = all(row.query_id is None or text_of.setdefault(row.query_id, row.text) == row.text for row in rows)
    taken = {row.query_id for row in rows if row.query_id is not None}
    id_of: dict[str, str] = {}
    used: set[str] = set()
    free = 0
    ids = []
    for row in rows:
        if trusted and row.query_id is not None:
            ids.append(row.query_id)
            continue
        if row.text not in id_of:
            query_id = row.query_id
            if query_id is None or query_id in used:
                while f"q{free}" in taken or f"q{free}" in used:
                    free += 1
                query_id = f"q{free}"
            id_of[row.text] = query_id
            used.add(query_id)
        ids.append(id_of[row.text])
    return ids


def _summed(rows: list[_Row], ids: list[str]) -> Labels:
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, float]] = {}
    real: set[str] = set()
    for row, query_id in zip(rows, ids, strict=True):
        queries[query_id] = row.text
        grades = qrels.setdefault(query_id, {})
        grades[row.node_id] = grades.get(row.node_id, 0.0) + row.grade
        if not row.synthetic:
            real.add(query_id)
    return Labels(queries, qrels, frozenset(queries.keys() - real))
