"""Impressions of a log as arrays: which pair was shown at which rank, with what weight, and whether it was clicked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.feedback.log import FeedbackLog, Retrieval
from nudge_rag.feedback.rows import normalise

__all__ = ["Impressions", "collect_impressions"]

SECONDS_A_DAY = 86_400
SECONDS_A_MINUTE = 60.0


@dataclass(frozen=True)
class Impressions:
    """Impressions of one log.

    Attributes:
        pairs: the (query text, node id) of each pair; texts that differ in case or spacing are one.
        pair: (n,) pair of each impression.
        rank: (n,) rank of each, the first is 0.
        version: (n,) number of the ranker of each.
        versions: names of the rankers.
        weight: (n,) a user's impressions of a pair weigh 1 together; half of it after each half-life.
        clicked: (n,) whether each was clicked.
        bots: users that were left out.
    """

    pairs: list[tuple[str, str]]
    pair: IntArray
    rank: IntArray
    version: IntArray
    versions: list[str | None]
    weight: FloatArray
    clicked: np.ndarray
    bots: tuple[str, ...]

    def table(self, rows: np.ndarray, n_ranks: int) -> tuple[FloatArray, FloatArray]:
        """Return weighted impressions and clicks, (pairs, n_ranks) each, of some impressions."""
        shape = len(self.pairs), n_ranks
        at = self.pair[rows] * n_ranks + self.rank[rows]
        shown: FloatArray = np.zeros(shape)
        clicks: FloatArray = np.zeros(shape)
        np.add.at(shown.reshape(-1), at, self.weight[rows])
        np.add.at(clicks.reshape(-1), at, self.weight[rows] * self.clicked[rows])
        return shown, clicks


def collect_impressions(
    log: FeedbackLog,
    *,
    action: str = "click",
    half_life_days: float | None = None,
    most_per_minute: float = 30.0,
) -> Impressions:
    """Read the impressions of a log, one voice a user, without users that are too fast to be human.

    Args:
        log: what was shown and clicked.
        action: the feedback that counts as a click.
        half_life_days: age at which an impression weighs half; None does not age.
        most_per_minute: users with more retrievals or clicks within a minute are bots.
    """
    clicks = {(event.query_id, event.node_id) for event in log.feedback if event.action == action}
    bots = _bots(log, most_per_minute)
    newest = max((retrieval.time for retrieval in log.retrievals if retrieval.time is not None), default=0.0)
    numbers: dict[tuple[str, str], int] = {}
    texts: dict[str, str] = {}
    # The same text is asked again and again.
    normalised = cache(normalise)
    versions: dict[str | None, int] = {}
    rows: list[tuple[int, int, int, float, bool]] = []
    of_user: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for retrieval in log.retrievals:
        if retrieval.query is None or retrieval.user in bots:
            continue
        text = texts.setdefault(normalised(retrieval.query), retrieval.query)
        age = _age(retrieval, newest, half_life_days)
        counted: set[str] = set()
        for rank, node in enumerate(retrieval.shown):
            # A node that a retriever lists twice is seen, and clicked, once.
            if node.node_id is None or node.node_id in counted:
                continue
            counted.add(node.node_id)
            pair = numbers.setdefault((text, node.node_id), len(numbers))
            if retrieval.user is not None:
                of_user[retrieval.user, pair].append(len(rows))
            version = versions.setdefault(retrieval.version, len(versions))
            rows.append((pair, rank, version, age, (retrieval.query_id, node.node_id) in clicks))
    weight = np.array([row[3] for row in rows], dtype=np.float64)
    for places in of_user.values():
        # Mostly a user was shown a pair once: then there is nothing to share.
        if len(places) > 1:
            weight[places] /= len(places)
    return Impressions(
        pairs=list(numbers),
        pair=np.array([row[0] for row in rows], dtype=np.int64),
        rank=np.array([row[1] for row in rows], dtype=np.int64),
        version=np.array([row[2] for row in rows], dtype=np.int64),
        versions=list(versions),
        weight=weight,
        clicked=np.array([row[4] for row in rows], dtype=bool),
        bots=bots,
    )


def _age(retrieval: Retrieval, newest: float, half_life_days: float | None) -> float:
    """What is left of the weight of a retrieval."""
    if half_life_days is None or retrieval.time is None:
        return 1.0
    return math.pow(0.5, (newest - retrieval.time) / (half_life_days * SECONDS_A_DAY))


def _bots(log: FeedbackLog, most_per_minute: float) -> tuple[str, ...]:
    """Users with more retrievals, or more events, within a minute than a human manages."""
    user_of = {retrieval.query_id: retrieval.user for retrieval in log.retrievals}
    asked = ((retrieval.user, retrieval.time) for retrieval in log.retrievals)
    done = ((event.user or user_of.get(event.query_id), event.time) for event in log.feedback)
    return tuple(sorted({*_too_fast(asked, most_per_minute), *_too_fast(done, most_per_minute)}))


def _too_fast(events: Iterable[tuple[str | None, float | None]], most_per_minute: float) -> set[str]:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for user, time in events:
        if user is not None and time is not None:
            times[user].append(time)
    # Most users have fewer events than that in all.
    busy = {user: sorted(found) for user, found in times.items() if len(found) > most_per_minute}
    return {user for user, found in busy.items() if _busiest_minute(found) > most_per_minute}


def _busiest_minute(times: list[float]) -> int:
    array = np.array(times)
    return int((np.searchsorted(array, array + SECONDS_A_MINUTE, side="left") - np.arange(len(array))).max())
