"""The application's own pipeline decides: what helps alone may not help behind hybrid search or a reranker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nudge_rag.common.archive import is_number
from nudge_rag.evaluation.retriever_comparison import RetrieverComparison

__all__ = ["LIVE", "NEW", "ORIGINALS", "Judge", "Judgement", "check_judge"]

# A function from a store to a retriever over it, of any framework.
Judge: TypeAlias = Callable[[Any], Any]
ORIGINALS, LIVE, NEW = "originals", "live", "new"


@dataclass(frozen=True)
class Judgement:
    """What the application's own pipeline answers to the held-out queries, before and with the new vectors.

    Attributes:
        metric: what decides.
        baseline: what the new vectors are compared with: "live", or "originals" if nothing is live.
        before: mean of the metric with it.
        after: mean of the metric with the new vectors.
        low: lower end of the 95 % interval of the difference, by a paired bootstrap over queries.
        high: upper end of that interval.
        queries: number of queries that every ranking answered.
        improves: whether the new vectors are better than the baseline, and than the originals.
        evaluation: all rankings and metrics; None of a nudge that an
            earlier version saved.
    """

    metric: str
    baseline: str
    before: float
    after: float
    low: float
    high: float
    queries: int
    improves: bool
    evaluation: RetrieverComparison | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        difference = self.after - self.before
        verb = "rises" if difference > 0 else "falls" if difference < 0 else "stays"
        chance = " The interval includes 0: it may be chance." if self.low <= 0 <= self.high else ""
        return (
            f"{'Push' if self.improves else 'Do not push'}: in the application's own pipeline {self.metric} on "
            f"{self.queries:,} held-out queries {verb} from {self.before:.3f} ({self.baseline}) to {self.after:.3f} "
            f"({difference:+.3f}, 95% {self.low:+.3f} .. {self.high:+.3f}).{chance}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without the evaluation."""
        names = ("metric", "baseline", "before", "after", "low", "high", "queries", "improves")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Judgement:
        """Return what `to_dict` made.

        Raises:
            TypeError: something else.

        Example:
            >>> told = Judgement("MRR@3", "live", 0.5, 0.75, 0.1, 0.4, 20, True)
            >>> Judgement.from_dict(told.to_dict()) == told
            True
        """
        found = cls(**plain)
        if not isinstance(found.metric, str) or found.baseline not in (ORIGINALS, LIVE) or found.evaluation is not None:
            raise TypeError("a judgement holds values of other types")
        if not isinstance(found.improves, bool) or not isinstance(found.queries, int):
            raise TypeError("a judgement holds values of other types")
        if not all(is_number(n) for n in (found.before, found.after, found.low, found.high, found.queries)):
            raise TypeError("a judgement holds something else than numbers")
        return found


def check_judge(judge: object) -> None:
    """Refuse a judge that cannot be called.

    Raises:
        TypeError: it is no function.
    """
    if not callable(judge):
        raise TypeError(f"judge must be a function from a store to a retriever, got {type(judge).__name__}")
