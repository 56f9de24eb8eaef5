"""What reading labels came to: rows that were skipped, with file and line, and the error that names them."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Literal

__all__ = [
    "ROW_ERRORS",
    "Errors",
    "ReadReport",
    "RowLog",
    "SkippedRow",
    "checked_grade",
    "checked_grades",
    "checked_id",
    "checked_text",
]

Errors = Literal["raise", "skip"]
SHOWN = 5
# What the content of a row, whatever it is, may raise while it is read.
ROW_ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, RecursionError)


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out.

    Attributes:
        source: the file, or what else the row was read from.
        line: its line, or its number among the rows (from 1 in files, from 0 in sequences); None if it has none.
        reason: what is wrong with it.
        unit: what ``line`` counts, such as "line" or "row".
    """

    source: str
    line: int | None
    reason: str
    unit: str = "line"

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}, {self.unit} {self.line}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True)
class ReadReport:
    """What was read, and what was not.

    Attributes:
        n_rows: rows that were looked at, the skipped ones included.
        skipped: the rows that were left out, in order.
        ignored: names of columns or keys that nobody reads, with the number of rows that have them.
    """

    n_rows: int = 0
    skipped: tuple[SkippedRow, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.skipped)

    def __add__(self, other: ReadReport) -> ReadReport:
        """What both say, together."""
        if not isinstance(other, ReadReport):
            return NotImplemented
        ignored = dict(Counter(self.ignored) + Counter(other.ignored))
        return ReadReport(self.n_rows + other.n_rows, self.skipped + other.skipped, ignored)

    def __str__(self) -> str:
        if not self.skipped:
            return f"all {self.n_rows} rows were read"
        shown = "; ".join(map(str, self.skipped[:SHOWN]))
        more = f"; and {len(self.skipped) - SHOWN} more" if len(self.skipped) > SHOWN else ""
        return f"{len(self.skipped)} of {self.n_rows} rows were skipped: {shown}{more}"


class RowLog:
    """Keeps count of the rows of one source, and decides what a bad one does.

    Args:
        source: the name that messages give.
        errors: ``"raise"`` stops at the first bad row, ``"skip"`` notes it.
        unit: what a position is called, such as "line" or "row".
    """

    def __init__(self, source: str, errors: Errors = "raise", unit: str = "line") -> None:
        if errors not in ("raise", "skip"):
            raise ValueError(f'errors must be "raise" or "skip", got {errors!r}')
        self.source, self.errors, self.unit = source, errors, unit
        self.n_rows = 0
        self.skipped: list[SkippedRow] = []
        self.ignored: Counter[str] = Counter()

    def bad(self, line: int | None, reason: str, kind: type[Exception] = ValueError, source: str | None = None) -> None:
        """Raise for a bad row or, if errors are skipped, note it."""
        row = SkippedRow(self.source if source is None else source, line, reason, self.unit)
        if self.errors == "raise":
            # Other errors, such as that of a text that cannot be encoded, take other arguments than a message.
            raise (TypeError if issubclass(kind, TypeError) else ValueError)(str(row))
        self.skipped.append(row)

    def note(self, line: int | None, reason: str, source: str | None = None) -> None:
        """Note a row that is left out whatever ``errors`` says, because nothing is wrong with the row itself."""
        self.skipped.append(SkippedRow(self.source if source is None else source, line, reason, self.unit))

    def report(self, known: Collection[str] = ()) -> ReadReport:
        """Return the report, and warn of what was skipped and of columns that nobody reads."""
        report = ReadReport(self.n_rows, tuple(self.skipped), dict(self.ignored))
        if report.skipped:
            _warn(str(report))
        if report.ignored:
            names = ", ".join(f"{name!r} ({count} rows)" for name, count in list(report.ignored.items())[:SHOWN])
            read = f"; the columns read are {', '.join(known)}" if known else ""
            _warn(f"{self.source}: ignored unknown column(s) {names}{read}")
        return report


def checked_text(value: object, what: str) -> str:
    """Return a text that is not blank.

    Raises:
        TypeError: it is not a string.
        ValueError: it is blank, or holds bytes that could not be decoded.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, got {value!r:.200}")
    if not value.strip() or (not value.isascii() and _shows_nothing(value)):
        raise ValueError(f"{what} is empty")
    if not value.isascii() and any("\ud800" <= mark <= "\udfff" for mark in value):
        raise ValueError(
            f"{what} holds bytes that are not of the file's encoding: pass encoding=, such as 'cp1252' "
            "(--encoding on the command line), or save the file as UTF-8"
        )
    return value


def _shows_nothing(text: str) -> bool:
    """Tell a text of spaces and of characters that show nothing, such as zero-width spaces and byte order marks."""
    return all(mark.isspace() or unicodedata.category(mark) == "Cf" for mark in text)


def checked_id(value: object, what: str) -> str:
    """Return an id as a string; integers are written in decimal.

    Raises:
        TypeError: it is neither a string nor an integer.
        ValueError: it is blank.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    return checked_text(value, what)


def checked_grade(value: object, what: str) -> float:
    """Return a finite grade.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number, got {value!r:.200}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, got {value!r:.200}")
    return number


def checked_grades(query: str, grades: Mapping[str, float]) -> dict[str, float]:
    """Return the grades of a query's nodes, each of them checked.

    Raises:
        TypeError: a node id or a grade of the wrong type.
        ValueError: no nodes, an empty node id, a grade that is not finite.
    """
    if not grades:
        raise ValueError(f"query {query!r} has no nodes")
    checked = {}
    for node, grade in grades.items():
        checked_text(node, f"a node id of query {query!r}")
        checked[node] = checked_grade(grade, f"grade of query {query!r} and node {node!r}")
    return checked


def parsed_grade(value: object, what: str) -> float:
    """Return a finite grade, which may be written as text.

    Raises:
        TypeError: it is neither a number nor a text.
        ValueError: it is not a finite number.
    """
    if not isinstance(value, str):
        return checked_grade(value, what)
    try:
        return checked_grade(float(value), what)
    except ValueError:
        reason = "is empty: leave the column out if every row is an answer" if not value.strip() else "must be a number"
        raise ValueError(f"{what} {reason}, got {value!r:.200}") from None


def _warn(message: str) -> None:
    """Warn at the first frame outside the package."""
    import sys

    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("nudge_rag."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
