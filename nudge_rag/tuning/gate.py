"""What a push would lose: quality against the version that is live, and queries that it had learned from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nudge_rag.common.archive import is_number
from nudge_rag.evaluation.metrics import Metric
from nudge_rag.evaluation.runs import Evaluation
from nudge_rag.feedback.rows import normalise
from nudge_rag.journal.learned_queries import LIVE_QUERIES, live_queries
from nudge_rag.journal.text_hashes import hash_text

__all__ = [
    "LABEL_HASHES",
    "LIVE_QUERIES",
    "LiveComparison",
    "compare_with_live",
    "count_forgotten",
    "find_seen",
    "hash_queries",
    "hash_query",
    "live_queries",
]

# In the details of a version: hashes of the texts of nodes that have a label and were not moved.
LABEL_HASHES = "label_hashes"


@dataclass(frozen=True)
class LiveComparison:
    """The new vectors against those that are live, on held-out queries.

    Attributes:
        metric: what was measured.
        live: its mean with the vectors that are live.
        new: its mean with the new ones.
        queries: number of held-out queries compared.
        seen: number of held-out queries left out because the live version was made from them.
        version: name of the version that was live.
    """

    metric: str
    live: float
    new: float
    queries: int
    seen: int
    version: str | None = None

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LiveComparison:
        """Return the comparison that `dataclasses.asdict` made.

        Raises:
            TypeError: something else.

        Example:
            >>> LiveComparison.from_dict({"metric": "MRR@3", "live": 0.5, "new": 1.0, "queries": 1, "seen": 0}).new
            1.0
        """
        found = cls(**plain)
        texts, counts = (found.metric, found.version or ""), (found.queries, found.seen)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(count, int) for count in counts):
            raise TypeError("a comparison with what is live holds values of other types")
        if not all(is_number(number) for number in (found.live, found.new, *counts)):
            raise TypeError("a comparison with what is live holds something else than numbers")
        return found

    @property
    def is_worse(self) -> bool:
        """Whether the new vectors are worse than the live ones."""
        return self.queries > 0 and self.new < self.live

    @property
    def scores(self) -> str:
        """Both means, in words."""
        left_out = f"; {self.seen} that the live version was made from are left out" if self.seen else ""
        means = f"{self.metric} is {self.live:.3f} live and {self.new:.3f} new"
        return f"{means}, on {self.queries} held-out queries{left_out}"

    def __str__(self) -> str:
        if not self.queries:
            return f"Not compared with what is live: it was made from all {self.seen} held-out queries."
        return f"Against what is live: {self.scores}."


def compare_with_live(
    metric: Metric, live: Evaluation, new: Evaluation, seen: Collection[str], version: str | None = None
) -> LiveComparison:
    """Compare two evaluations of the same queries, but for those that the live version has ``seen``.

    Args:
        metric: what decides.
        live: with the vectors that are live.
        new: with the new ones.
        seen: ids of queries that the live version was made from: on them it looks better than it is.
        version: name of the version that is live.
    """
    fair = [query for query in new.query_ids if query not in seen]
    means = [float(each.of(metric, fair).mean()) if fair else 0.0 for each in (live, new)]
    return LiveComparison(str(metric), means[0], means[1], len(fair), len(new.query_ids) - len(fair), version)


def hash_queries(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes of query texts, sorted, each once.

    Example:
        >>> hash_queries(["some text", "some text"])
        ('b94f6f125c79e3a5',)
    """
    return tuple(sorted({hash_query(text) for text in texts}))


def hash_query(text: str) -> str:
    """Return the hash of a query, which is the same for all ways to write it that are one question.

    Example:
        >>> hash_query("Some  text?") == hash_query("some text")
        True
    """
    return hash_text(normalise(text))


def find_seen(texts: Mapping[str, str], known: Collection[str]) -> set[str]:
    """Return the ids of the queries (id to text) that a version was made from, of which ``known`` are the hashes.

    Example:
        >>> sorted(find_seen({"q1": "Some text", "q2": "other text"}, hash_queries(["some text"])))
        ['q1']
    """
    if not known:
        return set()
    # Earlier records have hashes of texts as they are written.
    return {query for query, text in texts.items() if hash_query(text) in known or hash_text(text) in known}


def count_forgotten(details: Mapping[str, Any], query_hashes: Collection[str]) -> tuple[int, int]:
    """Count queries that the version with these ``details`` was made from and that are not among the new ones.

    Args:
        details: of the live version.
        query_hashes: of the new queries.

    Returns:
        Number of queries that would be forgotten, and of all that the live version was made from.

    Example:
        >>> count_forgotten({"query_hashes": ["a", "b", "c"]}, ["b", "d"])
        (2, 3)
    """
    known = live_queries(details)
    return len(known.difference(query_hashes)), len(known)
