"""Print a nudge in 80 columns: the decision, the table, and why this setting was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from nudge_rag.common.text import printable
from nudge_rag.evaluation.comparison import TOO_FEW, Comparison
from nudge_rag.solvers.auto.selection import largest_loss
from nudge_rag.solvers.result import Candidate, describe_change
from nudge_rag.tuning.gate import LiveComparison
from nudge_rag.tuning.judge import Judgement

__all__ = [
    "WIDTH",
    "chosen_by",
    "describe_candidates",
    "describe_coarse_index",
    "describe_decision",
    "describe_reaches",
    "explain_candidates",
    "wrap",
]

WIDTH = 80


# Of the settings that were tried, so many are printed.
MOST_SHOWN = 12


def wrap(text: str, indent: str = "") -> str:
    """Return ``text`` in lines of at most 80 columns; lines that fit stay as they are."""
    lines = []
    for line in text.splitlines():
        fits = len(indent) + len(line) <= WIDTH
        lines += (
            [indent + line] if fits else textwrap.wrap(line, WIDTH, initial_indent=indent, subsequent_indent=indent)
        )
    return "\n".join(lines)


def describe_decision(
    improves: bool,
    changes: bool,
    comparison: Comparison | None,
    live: LiveComparison | None = None,
    judgement: Judgement | None = None,
) -> str:
    """Return in a sentence or two whether to push, and by which number."""
    if not changes:
        return "Do not push: no step helps, so nothing would change."
    if judgement is not None:
        return wrap(str(judgement))
    if improves and live is not None and live.is_worse:
        return wrap(f"Do not push: it is worse than what is live: {live.scores}.")
    answer = "Push" if improves else "Do not push"
    row = comparison.rows[0] if comparison is not None and comparison.rows else None
    if row is None or row.before is None or row.after is None or row.difference is None:
        return f"{answer}: held-out queries {'improve' if improves else 'do not improve'}."
    verb = "rises" if row.difference > 0 else "falls" if row.difference < 0 else "stays"
    sentence = (
        f"{answer}: {row.metric} on {row.n_queries:,} held-out queries {verb} from {row.before:.3f} to {row.after:.3f} "
        f"({row.difference:+.3f}, 95% {row.low:+.3f} .. {row.high:+.3f})."
    )
    if row.low is not None and row.high is not None and row.low <= 0 <= row.high:
        sentence += " The interval includes 0: it may be chance."
    return wrap(sentence + _describe_losers(comparison))


def _describe_losers(comparison: Comparison | None) -> str:
    """A sentence for each group of queries that loses significantly by the first metric, although all do not."""
    rows = [] if comparison is None else [row for row in comparison.rows if row.metric == comparison.rows[0].metric]
    return "".join(
        f" But {row.group} queries fall from {row.before:.3f} to {row.after:.3f} ({row.low:+.3f} .. {row.high:+.3f})."
        for row in rows[1:]
        if row.high is not None and row.high < 0 and row.n_queries >= TOO_FEW
    )


def describe_coarse_index(store: str, found: Comparison | None, exact: Comparison | None) -> str | None:
    """Return how the table would look if the store's index found everything; None if it does.

    Args:
        store: the store's name.
        found: before and after as the store answers.
        exact: before and after by exact scores, if they differ from that.
    """
    if found is None or exact is None or not exact.rows:
        return None
    row, best = found.rows[0], exact.rows[0]
    if None in (row.before, row.after, best.before, best.after):
        return None
    return wrap(
        f"The table is what {store} answers, whose index misses nodes. With an exact search {best.metric} would be "
        f"{best.before:.3f} before and {best.after:.3f} after: let the index search more widely."
    )


def describe_reaches(candidates: Sequence[Candidate]) -> str | None:
    """Return what each reach is expected to gain by its best setting; None if no expectation was measured.

    "About" is said of reaches that were not asked for: these are estimated roughly.

    Example:
        >>> alone = Candidate("nudge-n", 0.1, 0.8, expected=0.16, chosen=True)
        >>> print(describe_reaches([alone, Candidate("map, tau 0.05, ridge 0.1", 0.0, 0.8, expected=0.15)]))
        by reach, expected: labelled +0.160 (chosen), queries +0.150
    """
    measured = [one for one in candidates if one.expected is not None]
    if not measured:
        return None
    parts = []
    for reach in ("labelled", "queries", "nodes"):
        own = [one for one in candidates if _reach_of(one) == reach]
        counted = [one for one in own if one.expected is not None]
        best = next((one for one in own if one.chosen), max(counted, key=_expected, default=None))
        if best is not None:
            about = "about " if best.is_rough else ""
            parts.append(f"{reach} {about}{best.expected:+.3f}{' (chosen)' if best.chosen else ''}")
        elif own:
            parts.append(f"{reach}: {printable(own[0].note) or 'not measured'}")
    if len(parts) == 1:
        parts.append("queries and nodes were not tried (either also helps nodes without a label)")
    return wrap(f"by reach, expected: {', '.join(parts)}")


def _reach_of(candidate: Candidate) -> str:
    prefixes = {"map": "queries", "node map": "nodes"}
    return next((reach for prefix, reach in prefixes.items() if candidate.solver.startswith(prefix)), "labelled")


def describe_candidates(candidates: Sequence[Candidate]) -> str:
    """Return the settings that were tried, the chosen one first, with the metric on validation and a reason each."""
    by = chosen_by(candidates)
    first = "" if by == "validation" else " (first number: validation)"
    lines = [f"chosen from: {len(candidates)} settings, by {by}{first}"]
    for name, value, reason, is_chosen in explain_candidates(_most_telling(candidates)):
        lines.append(wrap(f"{value:>5}  {name}", "* " if is_chosen else "  "))
        lines.append(wrap(reason, " " * 9))
    if len(candidates) > MOST_SHOWN:
        lines.append(f"  and {len(candidates) - MOST_SHOWN} more in tried")
    return "\n".join(lines)


def chosen_by(candidates: Sequence[Candidate]) -> str:
    """What the settings were chosen by."""
    return "validation" if all(one.expected is None for one in candidates) else "expected gain"


def _most_telling(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The chosen setting, then the best of each solver, then the best others."""
    ranked = sorted(candidates, key=_order)
    best_of_solver = {one.solver.partition(",")[0]: one for one in reversed(ranked)}
    first = [one for one in ranked if one.chosen or one in best_of_solver.values()]
    return [*first, *(one for one in ranked if one not in first)][:MOST_SHOWN]


def explain_candidates(candidates: Sequence[Candidate]) -> list[tuple[str, str, str, bool]]:
    """Return name, validation value and reason of every setting, and whether it was chosen, the chosen one first."""
    chosen = next((one for one in candidates if one.chosen), None)
    still = max((one.validation for one in candidates if one.validation is not None and _is_still(one)), default=None)
    return [
        (
            _name(candidate),
            "-" if candidate.validation is None else f"{candidate.validation:.3f}",
            _reason(candidate, chosen, still),
            candidate.chosen,
        )
        for candidate in sorted(candidates, key=_order)
    ]


def _order(candidate: Candidate) -> tuple[bool, bool, float, float, str]:
    value = float("-inf") if candidate.validation is None else candidate.validation
    expected = value if candidate.expected is None else candidate.expected
    return (not candidate.chosen, not candidate.allowed, -round(expected, 3), -value, candidate.solver)


def _name(candidate: Candidate) -> str:
    name = printable(candidate.solver)
    return name if candidate.validation is None else f"{name}, gamma {candidate.gamma:.3g}"


def _is_still(candidate: Candidate) -> bool:
    """Whether a setting leaves every vector as it is; a map has no gamma."""
    return candidate.gamma == 0 and _reach_of(candidate) == "labelled"


def _reason(candidate: Candidate, chosen: Candidate | None, still: float | None) -> str:
    note, effect = printable(candidate.note), describe_effects(candidate)
    if candidate.is_rough:
        return "; ".join(part for part in (f"expected about {_expected(candidate):+.3f}", effect, note) if part)
    if candidate.validation is None:
        return note or "not measured"
    if candidate.chosen:
        expected = "" if candidate.expected is None else f"expected {candidate.expected:+.3f}"
        return "; ".join(part for part in ("chosen", expected, effect, note) if part)
    # Without a tolerance a loss is weighed, and a setting that harms a group may be the one.
    if not candidate.allowed and (chosen is None or chosen.allowed):
        return f"loses too much: {effect}" if effect else note or "not allowed"
    if candidate.expected is not None:
        return _less_expected(candidate, chosen)
    best = None if chosen is None else chosen.validation
    if best is not None and candidate.validation < best:
        return f"validation is {best - candidate.validation:.3f} lower"
    if note:
        return note
    if best is None and _is_still(candidate):
        return "moves no node"
    if best is None and still is not None and candidate.validation <= still:
        return "no better on validation than the vectors as they are"
    return "as good on validation, but moves nodes further or was tried later"


def _less_expected(candidate: Candidate, chosen: Candidate | None) -> str:
    """Why a setting was not chosen whose expected gain was measured (`nudge_rag.solvers.auto.selection`)."""
    told = f"expected {_expected(candidate):+.3f}"
    if _expected(candidate) <= 0:
        return f"{told}: no gain{', moves no node' if _is_still(candidate) else ''}"
    if chosen is None or chosen.expected is None:
        return told
    less = round(chosen.expected, 3) - round(_expected(candidate), 3)
    if less > 0:
        return f"{told}, {less:.3f} less"
    if largest_loss(candidate) < largest_loss(chosen):
        return f"{told}, no surer gain, and a group of queries loses more"
    return f"{told}, no surer gain, by a solver or step that was tried later, or new nodes gain less"


def _expected(candidate: Candidate) -> float:
    return candidate.expected or 0.0


def describe_effects(candidate: Candidate) -> str:
    """Return the estimated changes for each group of queries, with 95 % intervals; empty if none was measured."""
    groups = (
        ("covered queries", candidate.covered, candidate.covered_low, candidate.covered_high),
        ("uncovered queries", candidate.uncovered, candidate.low, candidate.high),
        ("new nodes", candidate.new_nodes, candidate.new_low, candidate.new_high),
    )
    parts = [describe_change(name, change, low, high) for name, change, low, high in groups if change is not None]
    return ", ".join(parts)
