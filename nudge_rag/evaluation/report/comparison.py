"""The document of an evaluation of several retrievers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from nudge_rag.common.text import shorten
from nudge_rag.evaluation.hubs import measure_hubs
from nudge_rag.evaluation.report.document import Document, Example, Figure, Section, Table
from nudge_rag.evaluation.report.figures import draw_intervals
from nudge_rag.evaluation.system_row import ComparedSystems, JudgedSystems, SystemRow
from nudge_rag.evaluation.tables import SIGNIFICANT, format_p_value, notes

__all__ = ["MOST_EXAMPLES", "TEXT_WIDTH", "RankedSystems", "ReportedSystems", "comparison_document", "ranking_sections"]

MOST_EXAMPLES = 20
TEXT_WIDTH = 300
NUMBERS = frozenset({3, 4, 6})


class RankedSystems(JudgedSystems, Protocol):
    """Rankings of the same queries by several systems: hubs, wins and losses come from them."""

    @property
    def rankings(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """System to query id to node ids."""
        ...

    def changes(self, system: str, metric: object | None = None) -> list[tuple[str, float]]:
        """Query ids with their difference from the baseline, the worst first."""
        ...


class ReportedSystems(RankedSystems, ComparedSystems, Protocol):
    """What a report shows of a `RetrieverComparison`."""


def comparison_document(
    comparison: ReportedSystems, *, title: str = "Evaluation", texts: Mapping[str, str] | None = None
) -> Document:
    """Return the report of an evaluation.

    Args:
        comparison: the evaluation.
        title: of the page.
        texts: node id to its text, for the examples.
    """
    others = [system for system in comparison.systems if system != comparison.baseline]
    decision, good = _decide(comparison, others)
    sections = [_numbers(comparison), *ranking_sections(comparison, others, texts or {})]
    return Document(title, decision, good, sections, notes(comparison))


def ranking_sections(comparison: RankedSystems, systems: Sequence[str], texts: Mapping[str, str]) -> list[Section]:
    """Return what rankings tell: hubs of all systems, and won and lost queries and nodes of some.

    Args:
        comparison: the rankings.
        systems: whose wins and losses against the baseline are shown.
        texts: node id to its text, for the examples.
    """
    sections: list[Section | None] = [_hubness(comparison)]
    for system in systems:
        sections += [_examples(comparison, system, texts), _nodes(comparison, system)]
    return [section for section in sections if section is not None]


def _decide(comparison: ComparedSystems, others: Sequence[str]) -> tuple[str, bool]:
    metric, base = comparison.metrics[0], comparison.baseline
    if not others:
        return f"{metric} of {base} is {comparison.mean(base, metric):.3f}.", True
    best = max(others, key=lambda system: comparison.mean(system, metric))
    row = comparison.row(best, metric)
    change = row.difference or 0.0
    sure = row.adjusted_p_value is not None and row.adjusted_p_value < SIGNIFICANT
    verb = "better than" if change > 0 else "worse than"
    verdict = f"is {verb} {base}" if sure else f"cannot be told apart from {base}"
    numbers = (
        f"{metric} is {comparison.mean(best, metric):.3f} instead of {comparison.mean(base, metric):.3f} on "
        f"{row.n_queries:,} queries ({change:+.3f}, 95% {row.low:+.3f} .. {row.high:+.3f})"
    )
    return f"{shorten(best, 60)} {verdict}: {numbers}.", sure and change > 0


def _numbers(comparison: ComparedSystems) -> Section:
    header = ("queries", "metric", "retriever", "mean", "change", "95% interval", "p", "won/tied/lost")
    table = Table("Means and paired differences", header, [_cells(row) for row in comparison.rows], NUMBERS)
    figures = []
    metric = comparison.metrics[0]
    shown = [row for row in comparison.rows if row.metric == metric and row.difference is not None][:30]
    if shown:
        names = [f"{row.group}: {row.system}" for row in shown]
        intervals = [(row.low or 0.0, row.difference or 0.0, row.high or 0.0) for row in shown]
        rows = [(n, *(f"{part:+.3f}" for part in parts)) for n, parts in zip(names, intervals, strict=True)]
        figures.append(
            Figure(
                "changes",
                f"Change of {metric} from {comparison.baseline}",
                "One row a group of queries and retriever: the dot is the mean change, the bar its 95% interval; a "
                "square marks an interval that lies below 0.",
                draw_intervals("changes", names, intervals, label=f"change of {metric}"),
                Table(f"Change of {metric}", ("group", "low", "change", "high"), rows, frozenset({1, 2, 3})),
            )
        )
    return Section("Numbers", figures=figures, tables=[table])


def _cells(row: SystemRow) -> tuple[str, ...]:
    name = (f"{row.group} ({row.n_queries:,})", row.metric, row.system)
    mean = "-" if row.mean is None else f"{row.mean:.3f}"
    if row.difference is None or row.adjusted_p_value is None:
        return (*name, mean, "", "", "", "")
    interval = f"{row.low:+.3f} .. {row.high:+.3f}"
    counts = f"{row.wins}/{row.ties}/{row.losses}"
    return (*name, mean, f"{row.difference:+.3f}", interval, format_p_value(row.adjusted_p_value), counts)


def _hubness(comparison: RankedSystems) -> Section:
    """How unevenly nodes are returned by each system."""
    depth, rows = comparison.depth, []
    for system in comparison.systems:
        hubs = measure_hubs(comparison.rankings[system].values(), depth)
        counts = (f"{hubs['nodes_returned']:,}", f"{hubs['most_often']:,}", f"{hubs['mean']:.1f}")
        rows.append((system, *counts, f"{hubs['skewness']:.2f}"))
    header = ("retriever", "nodes returned", "most often", "mean", "skewness")
    caption = f"How often a node is in the top {depth} of {comparison.pairs.n_queries:,} queries"
    sentence = "A skewness far above that of the baseline says that a few nodes (hubs) crowd into many answers."
    return Section("Hubs", [sentence], tables=[Table(caption, header, rows, frozenset({1, 2, 3, 4}))])


def _examples(comparison: RankedSystems, system: str, texts: Mapping[str, str]) -> Section:
    changes = comparison.changes(system)
    losses = [pair for pair in changes if pair[1] < 0]
    wins = [pair for pair in reversed(changes) if pair[1] > 0]
    shown = [*losses[:MOST_EXAMPLES], *wins[:MOST_EXAMPLES]]
    cut = len(losses) + len(wins) - len(shown)
    sentence = (
        f"{comparison.metrics[0]} of {len(wins):,} queries is higher and of {len(losses):,} lower than with "
        f"{comparison.baseline}; {len(shown)} are shown, the worst losses first"
        + (f", {cut:,} are left out." if cut else ".")
    )
    return Section(
        f"Won and lost: {system}",
        [sentence],
        examples=[_example(comparison, system, query, change, texts) for query, change in shown],
        examples_title=f"{len(shown)} queries",
    )


def _example(comparison: RankedSystems, system: str, query: str, change: float, texts: Mapping[str, str]) -> Example:
    answers = [node for node, grade in comparison.pairs.qrels[query].items() if grade > 0]
    lines = [f"{comparison.metrics[0]} {change:+.3f}"]
    for node in answers[:3]:
        old = _place(comparison.rankings[comparison.baseline][query], node)
        new = _place(comparison.rankings[system][query], node)
        lines.append(f"answer {shorten(node, 80)}: {old} → {new}")
        if node in texts:
            lines.append(shorten(texts[node], TEXT_WIDTH))
    if len(answers) > 3:
        lines.append(f"and {len(answers) - 3} more answers")
    return Example(shorten(comparison.pairs.queries[query], TEXT_WIDTH), lines)


def _place(ranking: Sequence[str], node: str) -> str:
    return f"place {ranking.index(node) + 1}" if node in ranking else "not found"


def _nodes(comparison: RankedSystems, system: str) -> Section | None:
    """Which answers gained and lost most, over the queries that ask for them."""
    change_of = dict(comparison.changes(system))
    of_node: dict[str, list[float]] = {}
    for query, grades in comparison.pairs.qrels.items():
        for node, grade in grades.items():
            if grade > 0:
                of_node.setdefault(node, []).append(change_of.get(query, 0.0))
    means = sorted(((float(np.mean(values)), node, len(values)) for node, values in of_node.items()))
    shown = [entry for entry in [*means[:10], *means[-10:][::-1]] if entry[0]]
    shown = list(dict.fromkeys(shown))
    if not shown:
        return None
    rows = [(shorten(node, 60), f"{mean:+.3f}", str(count)) for mean, node, count in shown]
    caption = f"Mean change of {comparison.metrics[0]} over the queries that a node answers: most lost, most gained"
    header = ("node", "change", "queries")
    return Section(f"Nodes: {system}", tables=[Table(caption, header, rows, frozenset({1, 2}))])
