"""Originals, live and new vectors on the same queries, as a table that can be read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nudge_rag.common.archive import is_number
from nudge_rag.common.arrays import Float64Array
from nudge_rag.common.blas_threads import count_threads, map_in_threads
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.evaluation.significance import bootstrap_interval, randomization_p_value

__all__ = ["Comparison", "ComparisonRow", "compare"]

HEADER = ("queries", "n", "metric", "before", "after", "change", "95% interval", "p")
HEADER_LIVE = ("queries", "n", "metric", "originals", "live", "new", "change", "95% interval", "p")
CHANGE_IS = "change, interval and p: of new against live"
# The group of queries that the live version was not made from.
UNSEEN = "unseen"
# Of a terminal; a wider table is set closer.
WIDTH = 80
# A query costs an interval and a p-value of many rounds about so many multiplications.
ROUNDS = 20_000
# Fewer queries than this cannot reach p < 0.05 in a randomization test, whatever the differences.
TOO_FEW = 6


@dataclass(frozen=True)
class ComparisonRow:
    """One metric on one group of queries; the numbers are None if the group is empty.

    Attributes:
        group: name of the group.
        metric: name of the metric.
        n_queries: number of queries.
        before: mean with the original vectors.
        after: mean with the new ones.
        difference: ``after - before``.
        p_value: of that difference.
        low: lower end of its 95 % interval.
        high: upper end of it.
        live: mean with the vectors that are live; None if an earlier push moved none.
        live_difference: ``after - live``.
        live_p_value: of that difference.
        live_low: lower end of its 95 % interval.
        live_high: upper end of it.
    """

    group: str
    metric: str
    n_queries: int
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    p_value: float | None = None
    low: float | None = None
    high: float | None = None
    live: float | None = None
    live_difference: float | None = None
    live_p_value: float | None = None
    live_low: float | None = None
    live_high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Rows of a table of originals and new vectors, and of live ones if there are any; ``str`` gives the table.

    Attributes:
        rows: one a group and metric.
        seen: number of the queries that the live version was made from, on which it looks better than it is.
    """

    rows: tuple[ComparisonRow, ...]
    seen: int = 0

    @property
    def has_live(self) -> bool:
        """Whether vectors that are live were compared too."""
        return any(row.live is not None for row in self.rows)

    def row(self, metric: object, group: str = "all") -> ComparisonRow:
        """The row of one metric and group."""
        for row in self.rows:
            if (row.group, row.metric) == (group, str(metric)):
                return row
        raise ValueError(f"no row for {metric!s} in group {group!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {"rows": [asdict(row) for row in self.rows], "seen": self.seen}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        """Return the comparison that `to_dict` wrote.

        Raises:
            ValueError: something else.
        """
        try:
            rows = tuple(ComparisonRow(**row) for row in plain["rows"])
            seen = plain.get("seen", 0)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a comparison as to_dict writes it: {error}") from error
        wrong = next((row for row in rows if not _is_row(row)), None)
        if wrong is not None or isinstance(seen, bool) or not isinstance(seen, int):
            raise ValueError(f"not a comparison as to_dict writes it: {wrong or seen!r}")
        return cls(rows, seen)

    def __str__(self) -> str:
        live = self.has_live
        lines = [HEADER_LIVE if live else HEADER, *(_cells(row, live) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
        table = [_aligned(line, widths, gap) for line in lines]
        table.insert(1, gap.join("-" * width for width in widths))
        few = sorted({f"{row.group} ({row.n_queries})" for row in self.rows if 0 < row.n_queries < TOO_FEW})
        if few:
            table.append(f"too few queries to tell: {', '.join(few)}")
        table += [CHANGE_IS] if live else []
        table += [] if (note := self.seen_note()) is None else [note]
        return "\n".join(table)

    def seen_note(self) -> str | None:
        """Say that the live version was made from some of the queries; None if it was made from none."""
        if not self.seen:
            return None
        return f"live was made from {self.seen:,} of these queries: there it looks better than it is"


def compare(
    before: Evaluation,
    after: Evaluation,
    groups: Mapping[str, Sequence[str]],
    *,
    live: Evaluation | None = None,
    seen: Collection[str] = (),
) -> Comparison:
    """Compare evaluations of the same queries, group by group.

    Args:
        before: evaluation of the store as it was.
        after: evaluation of the same queries with the same metrics.
        groups: name to query ids; empty groups are shown as such.
        live: evaluation of what is live, if an earlier push is.
        seen: queries that the live version was made from; the others are shown as a group of their own.

    Raises:
        ValueError: evaluations of other queries or metrics.

    Example:
        >>> from nudge_rag.evaluation.runs import evaluate_run
        >>> runs = [{"q": ["b", "c", "a"]}, {"q": ["b", "a"]}, {"q": ["a"]}]
        >>> before, live, after = (evaluate_run({"q": {"a": 1}}, run, ["MRR@3"]) for run in runs)
        >>> row = compare(before, after, {"all": ["q"]}, live=live).rows[0]
        >>> round(row.before, 3), row.live, row.after, row.live_difference
        (0.333, 0.5, 1.0, 0.5)
    """
    for other in (after, live):
        if other is not None and (before.query_ids != other.query_ids or list(before.values) != list(other.values)):
            raise ValueError("before, live and after must hold the same queries and metrics")
    seen = set(seen).intersection(before.query_ids) if live is not None else set()
    if seen and len(seen) < len(before.query_ids):
        groups = {**groups, UNSEEN: [query for query in before.query_ids if query not in seen]}
    place_of = {query: place for place, query in enumerate(before.query_ids)}
    places = {
        group: np.array([place_of[query] for query in queries], dtype=np.int64) for group, queries in groups.items()
    }
    asked = [(group, metric) for group in groups for metric in before.values]

    def row_of(one: tuple[str, Metric]) -> ComparisonRow:
        group, metric = one
        at = places[group]
        if not len(at):
            return ComparisonRow(group, str(metric), 0)
        row = ComparisonRow(group, str(metric), len(at), **_change(before.values[metric][at], after.values[metric][at]))
        if live is None:
            return row
        change = _change(live.values[metric][at], after.values[metric][at])
        return replace(
            row,
            live=change["before"],
            live_difference=change["difference"],
            live_p_value=change["p_value"],
            live_low=change["low"],
            live_high=change["high"],
        )

    work = ROUNDS * len(before.query_ids) * len(asked)
    return Comparison(tuple(map_in_threads(row_of, asked, count_threads(work))), len(seen))


def _change(old: Float64Array, new: Float64Array) -> dict[str, float]:
    """Compare values of the same queries: means, difference, interval and p-value."""
    low, high = bootstrap_interval(old, new)
    return {
        "before": float(old.mean()),
        "after": float(new.mean()),
        "difference": float((new - old).mean()),
        "p_value": randomization_p_value(old, new),
        "low": low,
        "high": high,
    }


def _is_row(row: ComparisonRow) -> bool:
    """Whether a row that was read holds values of the right types, and of each kind all or none."""
    kinds = (
        (row.before, row.after, row.difference, row.p_value, row.low, row.high),
        (row.live, row.live_difference, row.live_p_value, row.live_low, row.live_high),
    )
    return (
        isinstance(row.group, str)
        and isinstance(row.metric, str)
        and isinstance(row.n_queries, int)
        and all(all(value is None for value in kind) or all(map(is_number, kind)) for kind in kinds)
    )


def _cells(row: ComparisonRow, live: bool) -> tuple[str, ...]:
    name = (row.group, str(row.n_queries), row.metric)
    numbers = (
        (row.before, row.live, row.after, row.live_difference, row.live_low, row.live_high, row.live_p_value)
        if live
        else (row.before, row.after, row.difference, row.low, row.high, row.p_value)
    )
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return (*name, *("-" for _ in numbers[1:]))
    *means, difference, low, high, p_value = known
    shown = f"{p_value:.4f}" if p_value >= 0.0001 else "<0.0001"
    return (*name, *(f"{mean:.3f}" for mean in means), f"{difference:+.3f}", f"{low:+.3f} .. {high:+.3f}", shown)


def _aligned(line: Sequence[str], widths: Sequence[int], gap: str) -> str:
    left = {0, 2}
    cells = [
        text.ljust(width) if column in left else text.rjust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return gap.join(cells).rstrip()
