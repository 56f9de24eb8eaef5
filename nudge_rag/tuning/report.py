"""The report of a nudge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.text import printable, shorten
from nudge_rag.evaluation.comparison import ComparisonRow
from nudge_rag.evaluation.report.comparison import comparison_document, ranking_sections
from nudge_rag.evaluation.report.document import Document, Figure, Section, Table
from nudge_rag.evaluation.report.figures import draw_bars, draw_intervals, draw_lines
from nudge_rag.tuning.printing import chosen_by, describe_decision, explain_candidates
from nudge_rag.tuning.reported import ReportContents, ReportedCoverage, ReportedNudge

__all__ = ["as_html", "measure_angles", "nudge_document"]

MOST_NODES = 10


def nudge_document(nudge: ReportedNudge, contents: ReportContents, *, title: str, changes: bool) -> Document:
    """Return the report of a nudge, with the sections of an evaluation if one is given.

    Args:
        nudge: the nudge.
        contents: what is shown beside it.
        title: of the page.
        changes: whether the nudge changes anything.
    """
    evaluation, held_out, texts = contents.evaluation, contents.held_out, contents.texts
    decision = describe_decision(nudge.improves, changes, nudge.comparison, nudge.against_live, nudge.judgement)
    decision = " ".join(decision.split())
    good = nudge.improves and changes and not (nudge.against_live is not None and nudge.against_live.is_worse)
    sections = [_held_out(nudge), _live(contents.losses), _curve(nudge), _movement(nudge), _labels(nudge)]
    sections += [_learning(contents.coverage), _choice(nudge)]
    if evaluation is not None:
        sections += comparison_document(evaluation, texts=texts).sections
    elif held_out is not None:
        sections += ranking_sections(held_out, held_out.systems[-1:], texts or {})
    sections += [_settings(nudge), _undo()]
    footer = [nudge.summary, "Intervals: paired bootstrap over queries; p: paired randomization test."]
    return Document(title, decision, good, [section for section in sections if section is not None], footer)


def measure_angles(originals: FloatArray, vectors: FloatArray) -> Float64Array:
    """Return the angle in degrees between each original and its moved vector, (n,).

    Example:
        >>> measure_angles(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(6)
        array([45.])
    """
    first, second = np.asarray(originals, dtype=np.float64), np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = np.divide((first * second).sum(axis=1), norms, out=np.ones(len(first)), where=norms > 0)
    angles: Float64Array = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return angles


def _held_out(nudge: ReportedNudge) -> Section | None:
    if nudge.comparison is None:
        return None
    live = nudge.comparison.has_live
    rows, shown = [], []
    for row in nudge.comparison.rows:
        cells, intervals = _compared_cells(row, live)
        rows.append((f"{row.group} ({row.n_queries:,})", row.metric, *cells))
        shown += [(f"{row.group}: {row.metric}{against}", interval) for against, interval in intervals]
    means = ["originals", "live", "new"] if live else ["before", "after"]
    change = [*_against("originals"), *_against("live")] if live else ["change", "95% interval", "p"]
    header = ["queries", "metric", *means, *change]
    right = frozenset(at for at, name in enumerate(header) if at > 1 and "interval" not in name)
    table = Table(f"Held-out queries: {', '.join(means)}", header, rows, right)
    note = nudge.comparison.seen_note()
    notes = [] if note is None else [f"{note[0].upper()}{note[1:]}."]
    if not shown:
        return Section("Held-out queries", notes, tables=[table])
    figure = Figure(
        "held-out",
        "Change on held-out queries",
        "One row a group of queries and metric: the dot is the mean change, the bar its 95% interval; a square marks "
        "an interval that lies below 0. Covered queries have an answer with a training label.",
        draw_intervals("held-out", [name for name, _ in shown], [parts for _, parts in shown], label="change"),
    )
    return Section("Held-out queries", notes, figures=[figure], tables=[table])


def _against(base: str) -> tuple[str, str, str]:
    return (f"new - {base}", f"95% interval of new - {base}", f"p of new - {base}")


def _compared_cells(
    row: ComparisonRow, live: bool
) -> tuple[tuple[str, ...], list[tuple[str, tuple[float, float, float]]]]:
    """Return the cells of a row, and its intervals with what they are against."""
    changes = [(row.difference, row.low, row.high, row.p_value)]
    means = [row.before, row.after]
    if live:
        means = [row.before, row.live, row.after]
        changes.append((row.live_difference, row.live_low, row.live_high, row.live_p_value))
    cells, intervals = ["-" if mean is None else f"{mean:.3f}" for mean in means], []
    for against, (difference, low, high, p_value) in zip(
        (" against originals", " against live"), changes, strict=False
    ):
        if difference is None or low is None or high is None or p_value is None:
            cells += ["-", "-", "-"]
            continue
        cells += [f"{difference:+.3f}", f"{low:+.3f} .. {high:+.3f}", f"{p_value:.4f}"]
        intervals.append((against if live else "", (low, difference, high)))
    return tuple(cells), intervals


def _live(losses: Sequence[str]) -> Section | None:
    return Section("Against what is live", losses) if losses else None


def _learning(coverage: ReportedCoverage | None) -> Section | None:
    """The metric by number of labelled queries: whether more labels would help."""
    if coverage is None:
        return None
    sentences = [sentence for line in str(coverage).splitlines() if (sentence := line.strip())]
    points = coverage.curve
    if len(points) < 2:
        return Section("Would more labels help?", sentences)
    rows = [(f"{point.n_queries:,}", f"{point.before:.3f}", f"{point.after:.3f}") for point in points]
    figure = Figure(
        "learning",
        f"{coverage.metric} by labelled queries",
        f"With {points[0].n_queries:,} labelled queries the held-out {coverage.metric} is {points[0].after:.3f}, with "
        f"{points[-1].n_queries:,} it is {points[-1].after:.3f}; untuned it is {points[-1].before:.3f}.",
        draw_lines(
            "learning",
            [float(point.n_queries) for point in points],
            [point.after for point in points],
            labels=("labelled queries", coverage.metric),
            mark=None,
        ),
        Table("Learning curve", ("queries", "untuned", "tuned"), rows, frozenset({0, 1, 2})),
    )
    return Section("Would more labels help?", sentences, figures=[figure])


def _curve(nudge: ReportedNudge) -> Section | None:
    gammas, values = nudge.curve.gammas, nudge.curve.values
    if len(gammas) < 2:
        return None
    best = float(values.max())
    every = np.unique(np.linspace(0, len(gammas) - 1, min(len(gammas), 40)).round().astype(int))
    table = Table(
        f"Validation {nudge.curve.metric} by step size",
        ("gamma", nudge.curve.metric),
        [(f"{gammas[at]:.4g}", f"{values[at]:.4f}") for at in every],
        frozenset({0, 1}),
    )
    figure = Figure(
        "validation",
        "Validation along the step size",
        f"{nudge.curve.metric} on the validation queries starts at {values[0]:.3f} where nothing moves and is at most "
        f"{best:.3f}; the dashed line is the step that was chosen, {nudge.gamma:.3g}.",
        draw_lines(
            "validation",
            gammas.tolist(),
            values.tolist(),
            labels=("gamma", str(nudge.curve.metric)),
            mark=nudge.gamma,
            log=gammas.max() > 20 * max(float(gammas[1]), 1e-12),
        ),
        table,
    )
    return Section("How far to go", figures=[figure])


def _movement(nudge: ReportedNudge) -> Section | None:
    if not len(nudge.ids):
        return None
    angles = measure_angles(nudge.originals, nudge.vectors)
    counts, edges = np.histogram(angles, bins=10, range=(0.0, max(float(angles.max()), 1e-6)))
    bins = [f"{low:.3g}–{high:.3g}" for low, high in pairwise(edges)]
    figure = Figure(
        "movement",
        "How far nodes moved",
        f"Angle between a node's original and moved embedding: {np.median(angles):.1f}° in the middle, "
        f"{angles.max():.1f}° at most, {len(angles):,} nodes.",
        draw_bars("movement", bins, counts.tolist(), labels=("degrees", "nodes")),
        Table("Nodes by angle", ("degrees", "nodes"), list(zip(bins, map(str, counts), strict=True)), frozenset({1})),
    )
    farthest = np.argsort(-angles, kind="stable")[:MOST_NODES]
    rows = [(shorten(nudge.ids[at], 60), f"{angles[at]:.1f}") for at in farthest]
    table = Table("Nodes that moved farthest", ("node", "degrees"), rows, frozenset({1}))
    return Section("Movement", figures=[figure], tables=[table])


def _labels(nudge: ReportedNudge) -> Section | None:
    if nudge.split is None:
        return None
    labels = Counter(node for grades in nudge.split.train.qrels.values() for node, grade in grades.items() if grade > 0)
    if not labels:
        return None
    steps = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, None))
    names = [f"{low}" if low == high else f"{low}–{high}" if high else f"{low}+" for low, high in steps]
    counts = [
        sum(1 for number in labels.values() if number >= low and (high is None or number <= high))
        for low, high in steps
    ]
    share = len(labels) / max(nudge.store.count(), 1)
    # Good and Turing: the share of labels whose node has no other is the chance that the next one is of a new node.
    unseen = sum(1 for number in labels.values() if number == 1) / sum(labels.values())
    figure = Figure(
        "labels",
        "Training labels a node",
        f"{len(labels):,} nodes, {share:.1%} of the store, have {sum(labels.values()):,} training labels.",
        draw_bars("labels", names, [float(count) for count in counts], labels=("labels", "nodes")),
        Table("Nodes by labels", ("labels", "nodes"), list(zip(names, map(str, counts), strict=True)), frozenset({1})),
    )
    sentence = f"About {unseen:.1%} of tomorrow's answers have no label yet (estimated from nodes with one label)."
    return Section("Labels", [sentence], figures=[figure])


def _choice(nudge: ReportedNudge) -> Section | None:
    if not nudge.tried:
        return None
    rows = [
        (name, value, "yes" if is_chosen else "", reason)
        for name, value, reason, is_chosen in explain_candidates([*nudge.tried, *nudge.other_reaches])
    ]
    header = ("setting", "validation", "chosen", "why")
    table = Table(f"By {chosen_by(nudge.tried)}", header, rows, frozenset({1}))
    return Section("Settings that were tried", tables=[table])


def _settings(nudge: ReportedNudge) -> Section:
    facts = {"solver": nudge.solver, "gamma": f"{nudge.gamma:.4g}", "store": nudge.store.name}
    facts |= {"embedding model": nudge.model or "not recorded", "similarity": nudge.store.capabilities.similarity}
    facts |= {name: shorten(str(value), 200) for name, value in nudge.settings.items() if name not in facts}
    return Section("Settings", tables=[Table("How it was tuned", ("setting", "value"), list(facts.items()))])


def _undo() -> Section:
    return Section(
        "How to undo it",
        [
            "In Python: nudge_rag.rollback(store). On the command line: nudge-rag rollback STORE. Every nudged node "
            "gets its original embedding back; texts and metadata were never touched.",
        ],
    )


def as_html(text: str) -> str:
    """Return the printed form of a nudge as HTML, escaped, for a notebook."""
    return "<pre>" + "\n".join(escape(printable(line)) for line in text.splitlines()) + "</pre>"
