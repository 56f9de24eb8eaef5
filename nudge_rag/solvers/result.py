"""What a solver returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nudge_rag.common.arrays import Float64Array, FloatArray, IntArray
from nudge_rag.common.deprecation import warn_renamed
from nudge_rag.solvers.devices import replaced_rows
from nudge_rag.solvers.linear_map.adapter import QueryAdapter

__all__ = ["SAME_VALUE", "Candidate", "Descent", "NudgeFit", "ValidationCurve", "describe_change", "first_best"]

# Two points of a curve that differ by less are the same mean, summed in another order.
SAME_VALUE = 1e-12


@dataclass(frozen=True)
class ValidationCurve:
    """Validation score along the step size.

    Attributes:
        gammas: (G,) float64, increasing, the first is 0 (nothing moved).
        values: (G,) float64, the mean of ``metric`` over the validation queries at each gamma.
        metric: the metric's name.
    """

    gammas: Float64Array
    values: Float64Array
    metric: str


@dataclass(frozen=True)
class Descent:
    """How an iterative solver came to its solution at one strength of the penalty.

    Attributes:
        tau: temperature.
        strength: of the penalty.
        iterations: steps taken.
        evaluations: times that the objective was evaluated.
        objective: its value at the end.
        gradient: the largest absolute entry of its gradient at the end.
        converged: whether a step improved by less than the tolerance (False: the iterations were used up).
    """

    tau: float
    strength: float
    iterations: int
    evaluations: int
    objective: float
    gradient: float
    converged: bool


@dataclass(frozen=True)
class Candidate:
    """One of the settings that ``solver="auto"`` chose from; numbers are None if they were not measured.

    Attributes:
        solver: name of the solver, with its setting.
        gamma: step size.
        validation: mean of the metric over the validation queries.
        uncovered: estimated change of the metric for queries whose answers have no labels, from labels of whole nodes
            that were held out.
        low: lower end of the 95 % interval of ``uncovered``, by a bootstrap over nodes; None if there is one node.
        high: upper end of it.
        held_out_nodes: how many nodes that estimate rests on.
        new_nodes: the same change for queries of nodes that are new: whole nodes are held out at random, popular ones
            included.
        new_low: lower end of the 95 % interval of ``new_nodes``; None if there is one node.
        new_high: upper end of it.
        covered: change of the metric for the validation queries, most of which have answers with labels.
        covered_low: lower end of the 95 % interval of ``covered``, by Student's t; None if there is one query.
        covered_high: upper end of it.
        expected: change to expect over tomorrow's queries: (1 - p) * covered + p_rare * uncovered + (p - p_rare) *
            new_nodes, with p the share of queries whose answers have no label, p_rare of rarely asked nodes alone.
        allowed: whether ``uncovered`` and ``new_nodes`` are within the tolerance.
        chosen: whether it is the one.
        note: what to know of it.
    """

    solver: str
    gamma: float = 0.0
    validation: float | None = None
    uncovered: float | None = None
    low: float | None = None
    high: float | None = None
    held_out_nodes: int = 0
    new_nodes: float | None = None
    new_low: float | None = None
    new_high: float | None = None
    covered: float | None = None
    covered_low: float | None = None
    covered_high: float | None = None
    expected: float | None = None
    allowed: bool = False
    chosen: bool = False
    note: str = ""

    @property
    def is_rough(self) -> bool:
        """Whether what is expected was estimated roughly, for a reach that was not asked for: nothing is chosen so."""
        return self.validation is None and self.expected is not None

    def __str__(self) -> str:
        if self.validation is None and self.expected is None:
            return f"{self.solver}: {self.note}"
        text = self.solver if self.is_rough else f"{self.solver}, gamma {self.gamma:.3g}"
        if self.validation is not None:
            text += f": validation {self.validation:.3f}"
        if self.expected is not None:
            text += f", expected {'about ' if self.is_rough else ''}{self.expected:+.3f}"
        for name, change, low, high in (
            ("covered queries", self.covered, self.covered_low, self.covered_high),
            ("uncovered queries", self.uncovered, self.low, self.high),
            ("new nodes", self.new_nodes, self.new_low, self.new_high),
        ):
            if change is not None:
                text += f", {describe_change(name, change, low, high)}"
        verdict = "chosen" if self.chosen else "" if self.allowed or self.is_rough else "loses too much there"
        return "; ".join(part for part in (text, verdict, self.note) if part)


def describe_change(group: str, change: float, low: float | None, high: float | None) -> str:
    """Say what a group of queries gains or loses, with the 95 % interval if there is one.

    Example:
        >>> describe_change("new nodes", 0.02, -0.011, 0.051), describe_change("covered queries", 0.2, None, None)
        ('new nodes +0.020 (-0.011 .. +0.051)', 'covered queries +0.200 (one alone: no interval)')
    """
    is_known = low is not None and high is not None
    return f"{group} {change:+.3f} ({f'{low:+.3f} .. {high:+.3f}' if is_known else 'one alone: no interval'})"


@dataclass(frozen=True)
class NudgeFit:
    """Moved node embeddings, and how they were chosen.

    Attributes:
        solver: the solver's name.
        rows: (c,) int64, the covered rows (those with a training query), increasing.
        vectors: (c, d) their new embeddings, in the dtype, array library and device of the input.
        gamma: the step size chosen; 0 when nothing was to be gained.
        curve: the validation curve; without points when gamma was fixed and no validation queries were given.
        improved: whether validation is better at ``gamma`` than at 0 (False if it was not measured).
        at_edge: whether ``gamma`` is the largest step that was tried.
        opposed: (o,) int64, covered rows left in place because they point away from their own training queries.
        train_without_answers: training queries left out because they have no answers.
        val_without_answers: validation queries left out because they have no answers.
        descents: of an iterative solver, how each point of its path was reached, the final solution last.
        averaged: of `NudgeContrastive`, the (tau, strength) of the solutions that it is the average of, best first.
        parts: those solutions (c, d) each, to start from; none of them if it is one alone, or if they are very large.
        tried: of ``"auto"``, everything that it chose from.
        adapter: the map that every query has to pass before it is searched among ``vectors``; None for none.
        originals: (n, d) what the nodes are if they are not nudged: the input, mapped if there is a ``node_map``.
        node_map: the map that all nodes pass before they are nudged; None for none.
        other_reaches: of ``"auto"``, rough estimates of what the reaches would give that were not asked for.
    """

    solver: str
    rows: IntArray
    vectors: FloatArray
    gamma: float
    curve: ValidationCurve
    improved: bool
    at_edge: bool
    opposed: IntArray
    train_without_answers: int
    val_without_answers: int
    originals: FloatArray = field(repr=False)
    descents: tuple[Descent, ...] = field(default=(), repr=False)
    averaged: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    parts: tuple[FloatArray, ...] = field(default=(), repr=False)
    tried: tuple[Candidate, ...] = field(default=(), repr=False)
    adapter: QueryAdapter | None = None
    node_map: QueryAdapter | None = None
    other_reaches: tuple[Candidate, ...] = field(default=(), repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Deprecated name of ``tried``."""
        warn_renamed("NudgeFit.candidates", "tried")
        return self.tried

    def embeddings(self) -> FloatArray:
        """Return all node embeddings, (n, d): a copy of ``originals`` with the covered rows replaced.

        If ``gamma`` is 0 and there is no map, it is the input, bit for bit.
        """
        full: FloatArray = replaced_rows(self.originals, self.rows, self.vectors)
        return full


def first_best(values: Sequence[float] | Float64Array) -> int:
    """Index of the first value that no other exceeds by more than rounding."""
    best = 0
    for index, value in enumerate(values):
        if value > values[best] + SAME_VALUE:
            best = index
    return best
