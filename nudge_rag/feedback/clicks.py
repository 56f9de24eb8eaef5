"""Grades from clicks, corrected for the rank at which each node was shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from nudge_rag.feedback.impressions import collect_impressions
from nudge_rag.feedback.log import FeedbackLog
from nudge_rag.feedback.pairs import LabeledPairs
from nudge_rag.feedback.position_bias import ExaminationCurve, fit_examination

__all__ = ["ClickGrades", "click_grades"]

# Few examinations at a low rank would otherwise outweigh many at the first (benchmarks/click_grades.py).
PRIOR_EXAMINATIONS = 5.0


@dataclass(frozen=True)
class ClickGrades:
    """Labels from clicks, and how they came about.

    Attributes:
        pairs: the labels; their grades are corrected click rates between 0 and 1.
        curve: the examination curve that corrected them, with the means by which it was estimated.
        too_little_evidence: clicked pairs that were left out because they were looked at too rarely.
        less_attractive: clicked pairs that were left out because another node of the query attracts far more clicks.
        bots: users that were left out.
    """

    pairs: LabeledPairs
    curve: ExaminationCurve
    too_little_evidence: int
    less_attractive: int
    bots: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.pairs)} pairs of {self.pairs.n_queries} queries from clicks; {self.curve}; left out: "
            f"{self.too_little_evidence} with too little evidence, {self.less_attractive} far less attractive than "
            f"another node of the query, {len(self.bots)} users too fast to be human"
        )


def click_grades(
    log: FeedbackLog,
    *,
    curve: ExaminationCurve | None = None,
    action: str = "click",
    min_examinations: float = 2.0,
    of_best: float = 0.8,
    half_life_days: float | None = None,
    most_per_minute: float = 30.0,
) -> ClickGrades:
    """Turn clicks into grades by the position-based model: clicks over expected examinations.

    grade = (sum of clicks + 5 m) / (sum of theta at the ranks shown + 5), with m the mean rate of all pairs: an
    estimate of how attractive the node is for the query whatever its rank, drawn towards the mean by little evidence.
    Each user has one voice a pair. Pairs without a click get no grade: that a node was not clicked is no evidence that
    it does not answer. What this cannot correct: nodes that were never shown, and clicks on top results out of trust.

    Args:
        log: what was shown and clicked.
        curve: the examination curve; estimated from the log without it.
        action: the feedback that counts; citations are a model's choice, so grade them apart: ``action="cite"``.
        min_examinations: pairs with fewer expected examinations (sum of theta) are left out.
        of_best: pairs below this share of the best grade of their query are left out.
        half_life_days: age at which feedback counts half; None does not age.
        most_per_minute: users with more retrievals or clicks within a minute are left out as bots.

    Raises:
        TypeError: no `FeedbackLog`.
        ValueError: no pair is left, or no feedback is such an action.

    Example:
        >>> from nudge_rag.feedback import Feedback, Retrieval, ShownNode
        >>> shown = [Retrieval(f"r{n}", "pay", (ShownNode("top"), ShownNode("right"))) for n in range(12)]
        >>> clicks = [Feedback(f"r{n}", "right" if n < 5 else "top", "click") for n in range(10)]
        >>> grades = click_grades(FeedbackLog(tuple(shown), tuple(clicks)), of_best=0)
        >>> {node: round(grade, 2) for node, grade in grades.pairs.qrels["q0"].items()}
        {'top': 0.46, 'right': 0.71}
        >>> grades.curve.method
        'assumed'
    """
    if not isinstance(log, FeedbackLog):
        raise TypeError(f"expected a FeedbackLog, got {type(log).__name__}: Recorder.log() returns one")
    if log.feedback and not any(event.action == action for event in log.feedback):
        counts = Counter(event.action for event in log.feedback)
        there = ", ".join(f"{name!r} ({number})" for name, number in counts.most_common(5))
        raise ValueError(f"the log holds no feedback {action!r}; it holds {there}")
    impressions = collect_impressions(
        log, action=action, half_life_days=half_life_days, most_per_minute=most_per_minute
    )
    fitted = fit_examination(impressions) if curve is None else curve
    n_pairs = len(impressions.pairs)
    clicks = np.bincount(impressions.pair, impressions.weight * impressions.clicked, minlength=n_pairs)
    looked_at = np.bincount(impressions.pair, impressions.weight * fitted.at(impressions.rank), minlength=n_pairs)
    mean = float(clicks.sum() / max(looked_at.sum(), 1.0))
    grades = np.minimum((clicks + PRIOR_EXAMINATIONS * mean) / (looked_at + PRIOR_EXAMINATIONS), 1.0)
    enough = looked_at >= min_examinations
    best: dict[str, float] = {}
    for number in np.flatnonzero(enough & (clicks > 0)):
        text = impressions.pairs[number][0]
        best[text] = max(best.get(text, 0.0), float(grades[number]))
    rows, weaker = [], 0
    for number in np.flatnonzero(enough & (clicks > 0)):
        text, node = impressions.pairs[number]
        if grades[number] >= of_best * best[text]:
            rows.append((text, node, float(grades[number])))
        else:
            weaker += 1
    if not rows:
        raise ValueError(
            f"no pair with {action!r} was looked at {min_examinations} times: record more, or lower min_examinations"
        )
    return ClickGrades(
        LabeledPairs.from_pairs(rows), fitted, int(((clicks > 0) & ~enough).sum()), weaker, impressions.bots
    )
