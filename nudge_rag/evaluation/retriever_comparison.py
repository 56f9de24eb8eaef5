"""What an evaluation of several retrievers found: values per query, differences from the baseline, and exports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nudge_rag.common.arrays import Float64Array
from nudge_rag.common.text import write_text
from nudge_rag.errors import MissingPackageError
from nudge_rag.evaluation import tables
from nudge_rag.evaluation.hubs import measure_hubs
from nudge_rag.evaluation.searches import SearchRun
from nudge_rag.evaluation.significance import adjust_p_values, bootstrap_interval, randomization_p_value
from nudge_rag.evaluation.system_row import SystemRow
from nudge_rag.feedback.pairs import LabeledPairs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RetrieverComparison", "compare_systems"]

SCHEMA = "nudge-rag/evaluation/1"
# Values that differ by less are the same, summed in another order.
SAME_VALUE = 1e-12


@dataclass(frozen=True)
class RetrieverComparison:
    """Several retrievers on the same queries; print it for the table.

    Attributes:
        systems: names of the retrievers, in the order given.
        baseline: the one that others are compared with.
        metrics: names of the metrics.
        pairs: the queries that were judged.
        values: system to metric to (n_queries,) float64, in the order of ``pairs.queries``.
        rows: per group, metric and system the mean and the difference from the baseline.
        sources: metric to what computed it.
        rankings: system to query id to node ids, best first.
        failures: system to query id to the error.
        duplicates: system to query id to the number of repeated nodes that were removed.
        overlap: system to the mean Jaccard overlap of its ``depth`` best nodes with the baseline's.
        depth: the largest k of the metrics.
        excluded: ids of the queries that were left out because a retriever failed on them.
    """

    systems: tuple[str, ...]
    baseline: str
    metrics: tuple[str, ...]
    pairs: LabeledPairs = field(repr=False)
    values: Mapping[str, Mapping[str, Float64Array]] = field(repr=False)
    rows: tuple[SystemRow, ...] = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)
    rankings: Mapping[str, Mapping[str, Sequence[str]]] = field(repr=False)
    failures: Mapping[str, Mapping[str, str]] = field(repr=False)
    duplicates: Mapping[str, Mapping[str, int]] = field(repr=False)
    overlap: Mapping[str, float] = field(repr=False)
    depth: int = 10
    excluded: tuple[str, ...] = field(default=(), repr=False)

    @property
    def query_ids(self) -> tuple[str, ...]:
        """Ids of the judged queries."""
        return tuple(self.pairs.queries)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of queries, "all" first."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def row(self, system: str, metric: object, group: str = "all") -> SystemRow:
        """Return the row of one system, metric and group.

        Raises:
            ValueError: there is no such row.
        """
        for row in self.rows:
            if (row.system, row.metric, row.group) == (system, str(metric), group):
                return row
        raise ValueError(f"no row for system {system!r}, metric {metric!s} and group {group!r}")

    def mean(self, system: str, metric: object, group: str = "all") -> float:
        """Return the mean of a metric over a group of queries; NaN if the group is empty.

        Raises:
            ValueError: there is no such system, metric or group.
        """
        found = self.row(system, metric, group).mean
        return float("nan") if found is None else found

    def per_query(self, system: str, metric: object) -> dict[str, float]:
        """Return query id to the value of a metric.

        Raises:
            ValueError: there is no such system or metric.
        """
        if system not in self.values or str(metric) not in self.values[system]:
            raise ValueError(f"no values for system {system!r} and metric {metric!s}")
        return dict(zip(self.query_ids, self.values[system][str(metric)].tolist(), strict=True))

    def changes(self, system: str, metric: object | None = None) -> list[tuple[str, float]]:
        """Return (query id, difference from the baseline), the worst losses first, without ties."""
        name = self.metrics[0] if metric is None else str(metric)
        new, old = self.per_query(system, name), self.per_query(self.baseline, name)
        differences = [(query, new[query] - old[query]) for query in self.query_ids]
        return sorted((pair for pair in differences if abs(pair[1]) > SAME_VALUE), key=lambda pair: (pair[1], pair[0]))

    def __str__(self) -> str:
        return tables.as_text(self)

    def _repr_html_(self) -> str:
        return tables.as_html(self)

    def report(self, path: str | Path, *, title: str = "Evaluation", texts: Mapping[str, str] | None = None) -> Path:
        """Write a report to one HTML file, and `to_dict` as JSON beside it.

        Args:
            path: an .html file; the JSON is called the same with ``.json``.
            title: of the page.
            texts: node id to its text, shown with queries that were won and lost.

        Returns:
            The path of the page.

        Raises:
            MissingPackageError: matplotlib or Jinja2 is not installed (``pip install 'nudge-rag[report]'``).
            ValueError: ``path`` does not end with .html.
        """
        from nudge_rag.evaluation.report.comparison import comparison_document
        from nudge_rag.evaluation.report.render import write_report

        document = comparison_document(self, title=title, texts=texts)
        return write_report(document, path, self.to_dict(per_query=False))

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        return tables.as_markdown(self)

    def to_latex(self) -> str:
        """Return the table in LaTeX, for the package ``booktabs``."""
        return tables.as_latex(self)

    def to_dict(self, *, per_query: bool = True) -> dict[str, Any]:
        """Return plain values, fit for JSON.

        Args:
            per_query: also the values and rankings of every query.
        """
        plain: dict[str, Any] = {
            "schema": SCHEMA,
            "systems": list(self.systems),
            "baseline": self.baseline,
            "metrics": list(self.metrics),
            "sources": dict(self.sources),
            "n_queries": self.pairs.n_queries,
            "rows": [asdict(row) for row in self.rows],
            "overlap": {"depth": self.depth, **self.overlap},
            "hubs": {system: measure_hubs(self.rankings[system].values(), self.depth) for system in self.systems},
            "failures": {system: dict(found) for system, found in self.failures.items()},
            "duplicates": {system: dict(found) for system, found in self.duplicates.items()},
            "excluded": list(self.excluded),
        }
        if per_query:
            plain["per_query"] = {
                query: {
                    system: {m: self.values[system][m][row].item() for m in self.metrics} for system in self.systems
                }
                for row, query in enumerate(self.query_ids)
            }
        return plain

    def to_json(self, path: str | Path | None = None, *, per_query: bool = True) -> str:
        """Return `to_dict` as JSON, and write it to ``path`` if one is given."""
        document = json.dumps(self.to_dict(per_query=per_query), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_text(Path(path), document)
        return document

    def to_dataframe(self, *, per_query: bool = False) -> pd.DataFrame:
        """Return the rows, or with ``per_query`` one row a query, system and metric, as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingPackageError("to_dataframe", "nudge-rag[evaluation]") from error
        if not per_query:
            return pd.DataFrame([asdict(row) for row in self.rows])
        return pd.DataFrame(
            [
                {"query_id": query, "system": system, "metric": metric, "value": value}
                for system in self.systems
                for metric in self.metrics
                for query, value in self.per_query(system, metric).items()
            ]
        )


def compare_systems(
    runs: Mapping[str, SearchRun],
    values: Mapping[str, Mapping[str, Float64Array]],
    pairs: LabeledPairs,
    *,
    groups: Mapping[str, Sequence[str]],
    sources: Mapping[str, str],
    baseline: str,
    depth: int,
) -> RetrieverComparison:
    """Compare every system with the baseline, group by group.

    Args:
        runs: name of a system to its answers.
        values: name of a system, and of a metric, to its value for each query of ``pairs``.
        pairs: the labels of the queries that are compared.
        groups: name of a group to its queries.
        sources: name of a metric to the library that it comes from.
        baseline: the system that others are compared with.
        depth: how many answers two systems' overlap is measured on.
    """
    row_of = {query: row for row, query in enumerate(pairs.queries)}
    rows: list[SystemRow] = []
    for group, queries in groups.items():
        places = np.array([row_of[query] for query in queries], dtype=np.int64)
        rows += _compare_group(group, places, values, baseline)
    rankings = {name: {query: run.rankings.get(query, []) for query in pairs.queries} for name, run in runs.items()}
    return RetrieverComparison(
        systems=tuple(values),
        baseline=baseline,
        metrics=tuple(sources),
        pairs=pairs,
        values=values,
        rows=tuple(rows),
        sources=sources,
        rankings=rankings,
        failures={name: run.failures for name, run in runs.items() if run.failures},
        duplicates={name: run.duplicates for name, run in runs.items() if run.duplicates},
        overlap={name: _mean_overlap(rankings[name], rankings[baseline], depth) for name in values if name != baseline},
        depth=depth,
        excluded=(),
    )


def _compare_group(
    group: str, places: np.ndarray[Any, np.dtype[np.int64]], values: Mapping[str, Mapping[str, Float64Array]], base: str
) -> list[SystemRow]:
    rows = []
    for metric in values[base]:
        for system in values:
            row = SystemRow(group, metric, system, len(places))
            if len(places):
                row = _compare_values(row, values[base][metric][places], values[system][metric][places], system == base)
            rows.append(row)
    tested = [at for at, row in enumerate(rows) if row.p_value is not None]
    for at, adjusted in zip(tested, adjust_p_values([rows[at].p_value or 0.0 for at in tested]), strict=True):
        rows[at] = replace(rows[at], adjusted_p_value=float(adjusted))
    return rows


def _compare_values(row: SystemRow, old: Float64Array, new: Float64Array, is_baseline: bool) -> SystemRow:
    if is_baseline:
        return replace(row, mean=float(new.mean()))
    changes = new - old
    low, high = bootstrap_interval(old, new)
    return replace(
        row,
        mean=float(new.mean()),
        difference=float(changes.mean()),
        low=low,
        high=high,
        p_value=randomization_p_value(old, new),
        wins=int((changes > SAME_VALUE).sum()),
        ties=int((abs(changes) <= SAME_VALUE).sum()),
        losses=int((changes < -SAME_VALUE).sum()),
    )


def _mean_overlap(rankings: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]], depth: int) -> float:
    """Jaccard overlap of the best nodes, on average over the queries; two empty answers are the same."""
    overlaps = []
    for query, ranking in rankings.items():
        first, second = set(ranking[:depth]), set(others[query][:depth])
        overlaps.append(len(first & second) / len(first | second) if first | second else 1.0)
    return float(np.mean(overlaps))
