"""Team-draft interleaving: fair to equal rankings, and quick to find the better one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nudge_rag.feedback.interleaving import (
    LIVE,
    NEW,
    TeamDraft,
    _chance_at_most,
    compare_teams,
    served_teams,
    summarise,
    takes_part,
)
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode

THETA = 1 / np.arange(1, 11)


def drafts_by_hand(live, new, k, coins):
    """Radlinski, Kurup and Joachims' algorithm for given coins, but for what both would pick next."""
    shown, teams = [], []
    for coin in coins:
        while len(shown) < k:
            heads = [[node for node in ranking if node not in shown][:1] for ranking in (live, new)]
            if heads[0] != heads[1] or not heads[0]:
                break
            shown += heads[0]
            teams.append("both")
        for team in (LIVE, NEW) if coin else (NEW, LIVE):
            rest = [node for node in (live if team == LIVE else new) if node not in shown]
            if rest and len(shown) < k:
                shown.append(rest[0])
                teams.append(team)
    return tuple(shown), tuple(teams)


def test_drafts_are_those_of_the_paper():
    live, new, k = list("abcde"), list("caxyb"), 5
    possible = {drafts_by_hand(live, new, k, coins) for coins in itertools.product([True, False], repeat=5)}
    draft = TeamDraft(seed=0)
    seen = {(drafted.ids, drafted.teams) for drafted in (draft.draft(live, new, k) for _ in range(500))}
    assert seen == possible


@pytest.mark.parametrize(("live", "new"), [("abc", "abc"), ("abc", ""), ("", "abc"), ("", ""), ("ab", "bcdefgh")])
def test_lists_of_any_length(live, new):
    drafted = TeamDraft(seed=1).draft(list(live), list(new), 4)
    assert len(drafted.ids) == min(4, len(set(live + new))) == len(set(drafted.ids)) == len(drafted.teams)
    if live == new:
        assert (drafted.ids, set(drafted.teams)) == (tuple(live), {"both"} if live else set())


def simulate(rankings, relevant, n_queries, seed, depth=10):
    """Users who look at rank k with chance 1/k, and click what is relevant with 0.8 and else with 0.1."""
    rng = np.random.default_rng(seed)
    draft = TeamDraft(seed)
    retrievals, feedback = [], []
    for number in rng.integers(0, len(relevant), n_queries):
        drafted = draft.draft(rankings[0][number], rankings[1][number], depth)
        query_id = f"r{len(retrievals)}"
        shown = tuple(ShownNode(node, team=team) for node, team in zip(drafted.ids, drafted.teams, strict=True))
        retrievals.append(Retrieval(query_id, f"query {number}", shown))
        chance = THETA[: len(shown)] * [0.8 if node in relevant[number] else 0.1 for node in drafted.ids]
        feedback += [
            Feedback(query_id, drafted.ids[at], "click") for at in np.flatnonzero(rng.random(len(shown)) < chance)
        ]
    return FeedbackLog(tuple(retrievals), tuple(feedback))


@pytest.mark.slow
def test_equal_rankings_are_told_to_be_so_in_95_of_100_runs():
    rng = np.random.default_rng(0)
    orders = [[f"n{node}" for node in rng.permutation(30)] for _ in range(40)]
    relevant = [set(order[:3]) for order in orders]
    # Equal in quality, not in order: the second swaps each two neighbours that are both relevant or both not.
    other = [[order[1], order[0], order[2], *order[4:6], order[3], *order[6:]] for order in orders]
    results = [compare_teams(simulate((orders, other), relevant, 200, seed)) for seed in range(100)]
    assert sum(result.low <= 0.5 <= result.high for result in results) >= 95
    assert np.mean([result.share for result in results]) == pytest.approx(0.5, abs=0.015)


def test_the_better_ranking_is_found():
    rng = np.random.default_rng(1)
    orders = [[f"n{node}" for node in rng.permutation(30)] for _ in range(40)]
    relevant = [{order[4]} for order in orders]
    better = [[order[4], *order[:4], *order[5:]] for order in orders]
    for seed in range(10):
        found = compare_teams(simulate((orders, better), relevant, 200, seed))
        assert (found.winner, found.more_queries) == (NEW, 0)
        assert compare_teams(simulate((better, orders), relevant, 200, seed)).winner == LIVE


@pytest.mark.parametrize(("wins", "n"), [(0, 10), (3, 10), (10, 10), (57, 100), (480, 1000)])
def test_the_interval_is_that_of_clopper_and_pearson(wins, n):
    """Its ends are where the tails hold 2.5 %, by summing the binomial distribution."""

    def at_most(count, share):
        chances = [1.0]
        for _ in range(n):
            chances = [a * (1 - share) + b * share for a, b in zip([*chances, 0], [0, *chances], strict=True)]
        return sum(chances[: count + 1])

    result = summarise(wins, n - wins, 0)
    assert _chance_at_most(wins, n, 0.4) == pytest.approx(at_most(wins, 0.4))
    if wins:
        assert 1 - at_most(wins - 1, result.low) == pytest.approx(0.025, abs=1e-6)
    if wins < n:
        assert at_most(wins, result.high) == pytest.approx(0.025, abs=1e-6)
    assert result.p_value == pytest.approx(min(1, 2 * at_most(min(wins, n - wins), 0.5)))


def test_how_many_more_queries_it_takes():
    result = summarise(33, 27, 40)
    assert result.winner is None
    # 0.55 of those decided, which are 60 %: 1.96^2 * 0.55 * 0.45 / 0.05^2 = 380.3 decided queries are needed.
    assert result.more_queries == pytest.approx((380.3 - 60) / 0.6, abs=2)
    assert f"about {result.more_queries} more queries would tell" in str(result)
    assert summarise(0, 0, 0).more_queries is None
    assert summarise(0, 0, 0).share == 0.5


def test_what_counts():
    shown = (ShownNode("a", team=NEW), ShownNode("b", team=LIVE), ShownNode("c", team=NEW))
    retrievals = (*(Retrieval(f"r{n}", "q", shown) for n in range(4)), Retrieval("plain", "q", (ShownNode("a"),)))
    events = [("r0", "a", "click"), ("r0", "a", "click"), ("r0", "b", "click"), ("r1", "b", "thumbs_up")]
    events += [("r2", "a", "thumbs_down"), ("r3", "a", "click"), ("r3", "elsewhere", "click"), ("plain", "a", "click")]
    result = compare_teams(FeedbackLog(retrievals, tuple(Feedback(*event) for event in events)))
    assert (result.n_queries, result.wins, result.losses, result.ties) == (4, 1, 1, 2)


def test_teams_are_handed_to_the_recorder_once():
    draft = TeamDraft(seed=3)
    drafts = [draft.draft(list("abc"), list("bac"), 3) for _ in range(8)]
    drafts = [drafted for drafted in drafts if drafted.ids == tuple("abc")]
    assert len(drafts) > 1
    for drafted in drafts:
        served_teams.remember("q", drafted)
    shown = [ShownNode(node) for node in "abc"]
    assert [tuple(node.team for node in served_teams.label("q", shown)) for _ in drafts] == [d.teams for d in drafts]
    assert served_teams.label("q", shown) == tuple(shown)


def test_teams_that_nobody_asks_for_are_forgotten():
    drafted = TeamDraft(seed=3).draft(list("abc"), list("bac"), 3)
    for _ in range(1000):
        served_teams.remember("nobody asks", drafted)
    assert len(served_teams._served["nobody asks", drafted.ids]) == 100
    for number in range(10_050):
        served_teams.remember(f"question {number}", drafted)
    assert len(served_teams._served) == 10_000


def test_a_share_of_the_users():
    taken = [takes_part(f"u{n}", 0.2, "may") for n in range(20_000)]
    assert np.mean(taken) == pytest.approx(0.2, abs=0.01)
    assert taken == [takes_part(f"u{n}", 0.2, "may") for n in range(20_000)]
    both = [a and takes_part(f"u{n}", 0.2, "june") for n, a in enumerate(taken)]
    assert np.mean(both) == pytest.approx(0.04, abs=0.006)
    assert not takes_part("u", 0) and takes_part("u", 1)
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        takes_part("u", 2)
