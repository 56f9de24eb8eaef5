"""Online comparison of two rankings by team-draft interleaving.

Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008; Chapelle, Joachims,
Radlinski, Yue, "Large-scale validation and analysis of interleaved search evaluation", TOIS 2012.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from nudge_rag.common.arrays import FloatArray
from nudge_rag.feedback.log import FeedbackLog, Retrieval, ShownNode

__all__ = ["LIVE", "NEW", "InterleavingResult", "TeamDraft", "compare_teams", "takes_part"]

LIVE, NEW, BOTH = "live", "new", "both"
CREDITED = ("click", "thumbs_up", "copy")
CONFIDENCE = 0.95
MOST_SERVED, MOST_WAITING = 10_000, 100
STEPS_OF_BISECTION = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Drafted(Generic[T]):
    """An interleaved ranking.

    Attributes:
        answers: the answers shown, best first.
        ids: their ids.
        teams: for each, the ranking that it was taken from: "live" or "new"; "both" if both would have shown it next.
    """

    answers: tuple[T, ...]
    ids: tuple[str, ...]
    teams: tuple[str, ...]


class TeamDraft:
    """Interleaves two rankings: in each round the teams pick their best answer that is left, a coin says who is first.

    An answer that both would pick next is shown for neither: clicks on it cannot tell the rankings apart, and counting
    them for the team that the coin chose would only add noise. Equal rankings are shown as they are.

    Args:
        seed: of the coin; None is another one in each process.

    Example:
        >>> drafted = TeamDraft(seed=0).draft(["a", "b", "c"], ["c", "d", "a"], 3)
        >>> drafted.ids, drafted.teams
        (('c', 'a', 'd'), ('new', 'live', 'new'))
    """

    def __init__(self, seed: int | None = None) -> None:
        self._coin = random.Random(seed)
        self._lock = threading.Lock()

    def draft(self, live: Sequence[str], new: Sequence[str], k: int) -> Drafted[str]:
        """Interleave two rankings of ids into at most ``k``."""
        return self.draft_answers(live, new, live, new, k)

    def draft_answers(
        self, live: Sequence[T], new: Sequence[T], live_ids: Sequence[str], new_ids: Sequence[str], k: int
    ) -> Drafted[T]:
        """Interleave two rankings of answers whose ids are given into at most ``k``."""
        left = {
            LIVE: list(zip(live_ids, live, strict=True))[::-1],
            NEW: list(zip(new_ids, new, strict=True))[::-1],
        }
        shown: dict[str, tuple[T, str]] = {}
        while len(shown) < k and (left[LIVE] or left[NEW]):
            for team in (LIVE, NEW):
                _drop_shown(left[team], shown)
            if left[LIVE] and left[NEW] and left[LIVE][-1][0] == left[NEW][-1][0]:
                node_id, answer = left[LIVE].pop()
                shown[node_id] = answer, BOTH
                continue
            order = (LIVE, NEW) if self._flip() else (NEW, LIVE)
            for team in order:
                _drop_shown(left[team], shown)
                if left[team] and len(shown) < k:
                    node_id, answer = left[team].pop()
                    shown[node_id] = answer, team
        return Drafted(
            tuple(answer for answer, _ in shown.values()), tuple(shown), tuple(team for _, team in shown.values())
        )

    def _flip(self) -> bool:
        with self._lock:
            return self._coin.random() < 0.5


def _drop_shown(left: list[tuple[str, T]], shown: Collection[str]) -> None:
    """Drop the next answers that are shown already."""
    while left and left[-1][0] in shown:
        left.pop()


class ServedTeams:
    """Remembers which team each node of an answer came from, which no framework carries to the recorder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: OrderedDict[tuple[str, tuple[str, ...]], list[tuple[str, ...]]] = OrderedDict()

    def remember(self, query: str, drafted: Drafted[T]) -> None:
        """Keep the teams of an answer to a query."""
        with self._lock:
            waiting = self._served.setdefault((query, drafted.ids), [])
            waiting.append(drafted.teams)
            # Without a recorder nobody asks.
            del waiting[:-MOST_WAITING]
            while len(self._served) > MOST_SERVED:
                self._served.popitem(last=False)

    def label(self, query: str, shown: Sequence[ShownNode]) -> tuple[ShownNode, ...]:
        """Return the nodes with their teams, if this answer was interleaved."""
        key = query, tuple(node.node_id or node.text or "" for node in shown)
        with self._lock:
            found = self._served.get(key)
            teams = found.pop(0) if found else None
            if found is not None and not found:
                del self._served[key]
        if teams is None:
            return tuple(shown)
        return tuple(
            ShownNode(node.node_id, node.score, node.text, team) for node, team in zip(shown, teams, strict=True)
        )


served_teams = ServedTeams()
_draft = TeamDraft()


def serve_interleaved(query: str, live: Sequence[T], new: Sequence[T], id_of: Callable[[T], str]) -> list[T]:
    """Interleave the answers of two rankings to a query, and remember the teams for the recorder."""
    depth = max(len(live), len(new))
    drafted = _draft.draft_answers(
        live, new, [id_of(answer) for answer in live], [id_of(answer) for answer in new], depth
    )
    served_teams.remember(query, drafted)
    return list(drafted.answers)


def is_interleaved(user_id: str | None, share: float) -> bool:
    """Tell whether a question is answered by both rankings; of unknown users only if all are."""
    return share >= 1 or (user_id is not None and takes_part(user_id, share, "interleave"))


@dataclass(frozen=True)
class InterleavingResult:
    """Who wins, and how sure that is.

    Attributes:
        n_queries: interleaved queries.
        wins: queries with more credited feedback on nodes of the new ranking.
        losses: with more on nodes of the live one.
        ties: with as much on both, mostly none.
        share: wins / (wins + losses); 0.5 without either.
        low: lower end of its 95 % interval (Clopper-Pearson).
        high: upper end.
        p_value: of the sign test: the chance of a share as far from 0.5 if both rankings are as good.
        more_queries: about how many more it takes until the interval leaves 0.5, if the share stays; 0 if it has left
            it, None if there is nothing to go by.
    """

    n_queries: int
    wins: int
    losses: int
    ties: int
    share: float
    low: float
    high: float
    p_value: float
    more_queries: int | None

    @property
    def winner(self) -> str | None:
        """Return "new" or "live", or None if the interval holds 0.5."""
        return NEW if self.low > 0.5 else LIVE if self.high < 0.5 else None

    def __str__(self) -> str:
        decided = f"{self.wins} won, {self.losses} lost, {self.ties} tied of {self.n_queries} interleaved queries"
        share = f"the new ranking wins {100 * self.share:.0f} % (95 %: {100 * self.low:.0f} to {100 * self.high:.0f})"
        if self.winner is not None:
            return f"{decided}: {share}, p = {self.p_value:.2g}: the {self.winner} ranking is better"
        more = "" if self.more_queries is None else f"; about {self.more_queries} more queries would tell"
        return f"{decided}: {share}, p = {self.p_value:.2g}: no difference shown{more}"


def compare_teams(log: FeedbackLog, *, actions: Collection[str] = CREDITED) -> InterleavingResult:
    """Compare two interleaved rankings: a query is won by the team whose nodes get more feedback.

    Args:
        log: what was recorded; retrievals without teams are left out.
        actions: the feedback that credits a node, once a node and query.

    Example:
        >>> from nudge_rag.feedback import Feedback
        >>> shown = (ShownNode("a", team="new"), ShownNode("b", team="live"))
        >>> retrievals = tuple(Retrieval(f"r{n}", "pay", shown) for n in range(12))
        >>> clicks = tuple(Feedback(f"r{n}", "a" if n else "b", "click") for n in range(10))
        >>> print(compare_teams(FeedbackLog(retrievals, clicks)))
        9 won, 1 lost, 2 tied of 12 interleaved queries: the new ranking wins 90 % (95 %: 55 to 100), p = 0.021: the new
        ranking is better
    """
    credited: dict[str, set[str]] = {}
    for event in log.feedback:
        if event.action in actions and event.node_id is not None:
            credited.setdefault(event.query_id, set()).add(event.node_id)
    leads = [_lead(retrieval, credited.get(retrieval.query_id, set())) for retrieval in log.retrievals]
    counted = [lead for lead in leads if lead is not None]
    wins, losses = sum(lead > 0 for lead in counted), sum(lead < 0 for lead in counted)
    return summarise(wins, losses, len(counted) - wins - losses)


def summarise(wins: int, losses: int, ties: int) -> InterleavingResult:
    """Return share, interval, test and what is still to be collected."""
    decided, n_queries = wins + losses, wins + losses + ties
    share = wins / decided if decided else 0.5
    low, high = _clopper_pearson(wins, decided)
    more = _more(share, low, high, decided, ties)
    return InterleavingResult(
        n_queries=n_queries,
        wins=wins,
        losses=losses,
        ties=ties,
        share=share,
        low=low,
        high=high,
        p_value=_sign_test(wins, decided),
        more_queries=more,
    )


def takes_part(user_id: str, share: float, experiment: str = "") -> bool:
    """Tell whether a user is among a share of all, always the same for the same user and experiment.

    Args:
        user_id: the user.
        share: between 0 (nobody) and 1 (everybody).
        experiment: another name draws other users.

    Raises:
        ValueError: a share outside 0 to 1.

    Example:
        >>> sum(takes_part(f"user {n}", 0.1, "nudge of May") for n in range(10_000))
        1000
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, got {share!r}")
    digest = hashlib.sha256(f"{experiment}\x00{user_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _lead(retrieval: Retrieval, credited: set[str]) -> int | None:
    """Credited nodes of the new team minus those of the live one; None if the retrieval was not interleaved."""
    teams = {node.node_id: node.team for node in retrieval.shown if node.team in (LIVE, NEW)}
    if not teams:
        return None
    found = [teams[node] for node in credited if node in teams]
    return found.count(NEW) - found.count(LIVE)


def _clopper_pearson(wins: int, n: int) -> tuple[float, float]:
    """Shares at which so few wins, or so many, have a chance of 2.5 %."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if wins == 0 else _bisect(lambda share: 1 - _chance_at_most(wins - 1, n, share), tail)
    high = 1.0 if wins == n else 1 - _bisect(lambda share: _chance_at_most(wins, n, 1 - share), tail)
    return low, high


def _bisect(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(STEPS_OF_BISECTION):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _chance_at_most(wins: int, n: int, share: float) -> float:
    """Binomial distribution function."""
    if share <= 0 or n == 0:
        return 1.0
    if share >= 1:
        return 1.0 if wins >= n else 0.0
    counts = np.arange(wins + 1)
    logs = _log_ways(wins, n) + counts * math.log(share) + (n - counts) * math.log1p(-share)
    return min(1.0, float(np.exp(logs).sum()))


@lru_cache(maxsize=2)
def _log_ways(wins: int, n: int) -> FloatArray:
    """Logarithms of the ways to draw 0 to ``wins`` of ``n``, (wins + 1,); a bisection asks for the same ones."""
    return np.array([math.lgamma(n + 1) - math.lgamma(c + 1) - math.lgamma(n - c + 1) for c in range(wins + 1)])


def _sign_test(wins: int, n: int) -> float:
    return 1.0 if n == 0 else min(1.0, 2 * _chance_at_most(min(wins, n - wins), n, 0.5))


def _more(share: float, low: float, high: float, decided: int, ties: int) -> int | None:
    """Queries until 1.96 standard errors are less than the distance from 0.5."""
    if low > 0.5 or high < 0.5:
        return 0
    if not decided or share == 0.5:
        return None
    needed = 1.96**2 * max(share * (1 - share), 1 / decided) / (share - 0.5) ** 2
    return max(1, math.ceil((needed - decided) * (decided + ties) / decided))
