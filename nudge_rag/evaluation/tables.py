"""Tables of an evaluation: plain text of 80 columns, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nudge_rag.common.text import preview, printable, shorten
from nudge_rag.evaluation.system_row import ComparedSystems, SystemRow

__all__ = ["as_html", "as_latex", "as_markdown", "as_text", "format_p_value", "notes", "verdicts"]

HEADER = ("metric", "retriever", "mean", "change", "95% interval", "p", "won/tied/lost")
WIDTH = 80
# The level at which a difference is called one.
SIGNIFICANT = 0.05
NAME_COLUMN = 1
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def as_text(comparison: ComparedSystems) -> str:
    """Return the table of every group and, below, what to know of the numbers."""
    blocks = []
    for group in comparison.groups:
        rows = [row for row in comparison.rows if row.group == group]
        title = f"{printable(group)}: {rows[0].n_queries} queries"
        blocks.append("\n".join([title, *_aligned(_body(rows))]) if rows[0].n_queries else f"{title}, none")
    return "\n\n".join(["\n".join(verdicts(comparison)), *blocks, "\n".join(notes(comparison))])


def verdicts(comparison: ComparedSystems) -> list[str]:
    """Return one sentence a retriever: whether the first metric is better or worse than the baseline's."""
    metric, base = comparison.metrics[0], shorten(printable(comparison.baseline), 30)
    mean, n_queries = comparison.mean(comparison.baseline, metric), comparison.pairs.n_queries
    sentences = [f"{metric} of {base} on {n_queries} queries: {mean:.3f}"]
    for system in comparison.systems:
        row = comparison.row(system, metric)
        if row.difference is None or row.adjusted_p_value is None:
            continue
        word = "better" if row.difference > 0 else "worse"
        if row.adjusted_p_value >= SIGNIFICANT:
            word = "not told apart from it"
        name, p_value = shorten(printable(system), 30), format_p_value(row.adjusted_p_value)
        sentences.append(f"{name} is {word}: {row.difference:+.3f}, p {p_value}")
    return sentences


def notes(comparison: ComparedSystems) -> list[str]:
    """Return sentences on the baseline, the statistics, and what failed."""
    sources = sorted(set(comparison.sources.values()))
    lines = [
        f"change: from {shorten(printable(comparison.baseline), 40)}; values by {' and '.join(sources)}",
        "interval: paired bootstrap; p: paired randomization, Holm within a group",
    ]
    lines += [
        f"{shorten(printable(system), 30)}: overlap of the top {comparison.depth} with the baseline's {overlap:.0%}"
        for system, overlap in comparison.overlap.items()
    ]
    for system, failures in comparison.failures.items():
        error = shorten(printable(next(iter(failures.values()))), 60)
        asked = comparison.pairs.n_queries + len(comparison.excluded)
        lines += [
            f"FAILED: {shorten(printable(system), 30)} on {len(failures)} of {asked} queries, such as",
            f"  {error}",
        ]
    if comparison.excluded:
        lines.append(f"left out for all: {len(comparison.excluded)} queries, {preview(comparison.excluded, 2)}")
    for system, repeats in comparison.duplicates.items():
        lines.append(f"{shorten(printable(system), 30)}: {sum(repeats.values())} repeated nodes removed")
    return lines


def as_markdown(comparison: ComparedSystems) -> str:
    """Return the table in GitHub's Markdown."""
    lines = ["| queries | " + " | ".join(HEADER) + " |", "|---|---|---|---:|---:|---|---:|---|"]
    for row in comparison.rows:
        cells = (f"{row.group} ({row.n_queries})", *_cells(row))
        lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def as_html(comparison: ComparedSystems) -> str:
    """Return the verdicts and the table as HTML, escaped, for a notebook."""
    sentences = "".join(f"<p>{_html(sentence)}</p>" for sentence in verdicts(comparison))
    header = "".join(f"<th>{_html(name)}</th>" for name in ("queries", *HEADER))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{_html(cell)}</td>" for cell in (f"{row.group} ({row.n_queries})", *_cells(row)))
        + "</tr>"
        for row in comparison.rows
    )
    return f"{sentences}<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def as_latex(comparison: ComparedSystems) -> str:
    """Return the table in LaTeX with the rules of ``booktabs``."""
    lines = [r"\begin{tabular}{lllrrlrl}", r"\toprule", " & ".join(map(_latex, ("queries", *HEADER))) + r" \\"]
    for group in comparison.groups:
        lines.append(r"\midrule")
        for row in (row for row in comparison.rows if row.group == group):
            cells = (f"{row.group} ({row.n_queries})", *_cells(row))
            lines.append(" & ".join(_latex(cell) for cell in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def format_p_value(p_value: float) -> str:
    """Return a p-value with the digits that ten thousand rounds can give."""
    return f"{p_value:.4f}" if p_value >= 0.0001 else "<0.0001"


def _body(rows: Sequence[SystemRow]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        lines.append((row.metric, printable(row.system), *_numbers(row)))
    others = (column for column in range(len(HEADER)) if column != NAME_COLUMN)
    room = WIDTH - sum(1 + max(len(line[column]) for line in lines) for column in others)
    return [(line[0], shorten(line[NAME_COLUMN], max(room, 6)), *line[2:]) for line in lines]


def _cells(row: SystemRow) -> tuple[str, ...]:
    return (row.metric, row.system, *_numbers(row))


def _numbers(row: SystemRow) -> tuple[str, ...]:
    mean = "-" if row.mean is None else f"{row.mean:.3f}"
    if row.difference is None or row.adjusted_p_value is None:
        return (mean, "", "", "", "")
    return (
        mean,
        f"{row.difference:+.3f}",
        f"{row.low:+.3f} .. {row.high:+.3f}",
        format_p_value(row.adjusted_p_value),
        f"{row.wins}/{row.ties}/{row.losses}",
    )


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    right = {2, 3, 5}
    aligned = []
    for number, line in enumerate(lines):
        repeated = number > 1 and line[0] == lines[number - 1][0]
        cells = ["" if repeated else line[0], *line[1:]]
        padded = [
            c.rjust(w) if at in right else c.ljust(w) for at, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        aligned.append(" ".join(padded).rstrip())
    return aligned


def _markdown(cell: str) -> str:
    escaped = printable(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("`", "\\`")


def _html(cell: str) -> str:
    return f"<bdi>{escape(printable(cell))}</bdi>"


def _latex(cell: str) -> str:
    return "".join(LATEX_SPECIAL.get(sign, sign) for sign in printable(cell))
