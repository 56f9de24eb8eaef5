"""Before and after on the same queries, as a table that can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.evaluation.significance import bootstrap_interval, randomization_p_value

__all__ = ["Comparison", "ComparisonRow", "compare"]

HEADER = ("queries", "n", "metric", "before", "after", "change", "95% interval", "p")
# Of a terminal; a wider table is set closer.
WIDTH = 80
# Fewer queries than this cannot reach p < 0.05 in a randomization test, whatever the differences.
TOO_FEW = 6


@dataclass(frozen=True)
class ComparisonRow:
    """One metric on one group of queries; the numbers are None if the group is empty."""

    group: str
    metric: str
    n_queries: int
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    p_value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Rows of a before/after table; ``str`` gives the table."""

    rows: tuple[ComparisonRow, ...]

    def row(self, metric: object, group: str = "all") -> ComparisonRow:
        """The row of one metric and group."""
        for row in self.rows:
            if (row.group, row.metric) == (group, str(metric)):
                return row
        raise ValueError(f"no row for {metric!s} in group {group!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {"rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        """Return the comparison that `to_dict` wrote.

        Raises:
            ValueError: something else.
        """
        try:
            return cls(tuple(ComparisonRow(**row) for row in plain["rows"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a comparison as to_dict writes it: {error}") from error

    def __str__(self) -> str:
        lines = [HEADER, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
        gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
        table = [_aligned(line, widths, gap) for line in lines]
        table.insert(1, gap.join("-" * width for width in widths))
        few = sorted({f"{row.group} ({row.n_queries})" for row in self.rows if 0 < row.n_queries < TOO_FEW})
        if few:
            table.append(f"too few queries to tell: {', '.join(few)}")
        return "\n".join(table)


def compare(before: Evaluation, after: Evaluation, groups: Mapping[str, Sequence[str]]) -> Comparison:
    """Compare two evaluations of the same queries, group by group.

    Args:
        before: evaluation of the store as it was.
        after: evaluation of the same queries with the same metrics.
        groups: name to query ids; empty groups are shown as such.

    Raises:
        ValueError: evaluations of other queries or metrics.
    """
    if before.query_ids != after.query_ids or list(before.values) != list(after.values):
        raise ValueError("before and after must hold the same queries and metrics")
    rows = []
    for group, queries in groups.items():
        for metric in before.values:
            if not queries:
                rows.append(ComparisonRow(group, str(metric), 0))
                continue
            old, new = before.of(metric, queries), after.of(metric, queries)
            low, high = bootstrap_interval(old, new)
            change = float((new - old).mean())
            p_value = randomization_p_value(old, new)
            rows.append(
                ComparisonRow(
                    group, str(metric), len(queries), float(old.mean()), float(new.mean()), change, p_value, low, high
                )
            )
    return Comparison(tuple(rows))


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    name = (row.group, str(row.n_queries), row.metric)
    if row.before is None or row.after is None or row.difference is None or row.p_value is None:
        return (*name, "-", "-", "-", "-", "-")
    interval = f"{row.low:+.3f} .. {row.high:+.3f}"
    p_value = f"{row.p_value:.4f}" if row.p_value >= 0.0001 else "<0.0001"
    return (*name, f"{row.before:.3f}", f"{row.after:.3f}", f"{row.difference:+.3f}", interval, p_value)


def _aligned(line: Sequence[str], widths: Sequence[int], gap: str) -> str:
    left = {0, 2}
    cells = [
        text.ljust(width) if column in left else text.rjust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return gap.join(cells).rstrip()
