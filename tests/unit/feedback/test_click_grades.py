"""Click models: a known examination curve is recovered, and grades follow attraction and not rank."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag.feedback.clicks import click_grades
from nudge_rag.feedback.impressions import collect_impressions
from nudge_rag.feedback.log import Feedback, FeedbackLog, Retrieval, ShownNode
from nudge_rag.feedback.position_bias import ExaminationCurve, _fit_em, _fit_poisson, fit_examination

THETA = np.array([1.0, 0.7, 0.45, 0.3, 0.2])


def simulate(rankers, gamma, n_each, theta=THETA, seed=0, users=True, randomise=()):
    """Clicks of the position-based model; ``rankers`` maps a version to the order of each query's nodes."""
    rng = np.random.default_rng(seed)
    retrievals, feedback = [], []
    nodes = [ShownNode(f"n{node}") for node in range(gamma.shape[1])]
    for version, orders in rankers.items():
        for query, order in enumerate(orders):
            for time in range(n_each):
                query_id = f"{version}-{query}-{time}"
                shown = rng.permutation(order) if version in randomise else order
                user = query_id if users else None
                ranked = tuple(nodes[node] for node in shown)
                retrievals.append(Retrieval(query_id, f"query {query}", ranked, float(time), version, user))
                clicked = rng.random(len(shown)) < theta[: len(shown)] * gamma[query, shown]
                feedback += [
                    Feedback(query_id, f"n{node}", "click", None, float(time), user) for node in shown[clicked]
                ]
    return FeedbackLog(tuple(retrievals), tuple(feedback))


@pytest.fixture(scope="module")
def attraction():
    return np.random.default_rng(1).uniform(0.05, 0.6, (60, 5))


@pytest.fixture(scope="module")
def three_rankers(attraction):
    """Rankers that order each query's nodes by attraction and a noise of their own."""
    rng = np.random.default_rng(2)
    return {str(version): [np.argsort(-(row + rng.normal(0, 0.2, 5))) for row in attraction] for version in range(3)}


@pytest.mark.slow
def test_the_curve_is_recovered_from_versions(attraction, three_rankers):
    impressions = collect_impressions(simulate(three_rankers, attraction, 60))
    curve = fit_examination(impressions)
    assert curve.method == "interventions"
    low, high = np.array(curve.interval)
    assert ((low - 0.02 <= THETA) & (high + 0.02 >= THETA)).all(), (curve.theta, low, high)
    assert np.abs(np.array(curve.theta) - THETA).max() < 0.08
    assert f"estimated from {curve.n_pairs} pairs seen by versions (1.00, 0." in str(curve)
    # The rankers order by attraction, so that the raw rates per rank fall more steeply than attention does.
    shown, clicks = impressions.table(np.ones(len(impressions.pair), dtype=bool), 5)
    raw = clicks.sum(axis=0) / shown.sum(axis=0)
    assert np.abs(raw / raw[0] - THETA).max() > 2 * np.abs(np.array(curve.theta) - THETA).max()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["em", "swaps"])
def test_the_curve_is_recovered_by_other_means(attraction, three_rankers, method, monkeypatch):
    monkeypatch.setattr("nudge_rag.feedback.position_bias.RESAMPLES", 5)  # of the intervals, which are looked at above
    if method == "swaps":
        log = simulate({"random": three_rankers["0"]}, attraction, 150, randomise=("random",))
        curve = fit_examination(log, randomised=["random"])
    else:
        log = simulate(
            {None: [order for orders in three_rankers.values() for order in orders]}, np.tile(attraction, (3, 1)), 60
        )
        same = {f"query {n}": f"query {n % 60}" for n in range(180)}
        log = FeedbackLog(
            tuple(Retrieval(r.query_id, same[r.query], r.shown, r.time, None, r.user) for r in log.retrievals),
            log.feedback,
        )
        curve = fit_examination(log)
    assert curve.method == method
    assert np.abs(np.array(curve.theta) - THETA).max() < 0.09


def test_the_two_fits_solve_their_equations():
    """The Poisson fit is a stationary point; one EM step is the closed form, written out with loops."""
    rng = np.random.default_rng(3)
    shown = rng.integers(1, 50, (20, 4)).astype(float)
    clicks = rng.binomial(shown.astype(int), 0.3).astype(float)
    theta = _fit_poisson(shown, clicks)
    gamma = clicks.sum(axis=1) / (shown @ theta)
    assert np.allclose(clicks.sum(axis=0), gamma @ shown * theta, rtol=1e-3)
    theta = _fit_em(shown, clicks)
    assert theta[0] == 1

    def step(theta, gamma):
        new_theta, new_gamma = np.zeros(4), np.zeros(20)
        for p in range(20):
            for k in range(4):
                joint = 1 - theta[k] * gamma[p]
                new_theta[k] += clicks[p, k] + (shown - clicks)[p, k] * (1 - gamma[p]) * theta[k] / joint
                new_gamma[p] += clicks[p, k] + (shown - clicks)[p, k] * (1 - theta[k]) * gamma[p] / joint
        return new_theta / shown.sum(axis=0), new_gamma / shown.sum(axis=1)

    by_hand, attractive = 1 / np.arange(1, 5), np.full(20, 0.5)
    for _ in range(500):
        by_hand, attractive = step(by_hand, attractive)
    assert np.allclose(theta, by_hand / by_hand[0], atol=1e-3)


def test_what_is_not_identified_is_assumed_and_said(attraction, three_rankers):
    one = {"0": three_rankers["0"]}
    log = simulate(one, attraction, 60)
    curve = fit_examination(log)
    assert (curve.method, curve.theta) == ("assumed", (1, 1 / 2, 1 / 3, 1 / 4, 1 / 5))
    assert "assumed 1/rank" in str(curve)
    with pytest.raises(ValueError, match="does not allow method 'interventions': it needs 30 clicks"):
        fit_examination(log, method="interventions")
    with pytest.raises(ValueError, match="method must be"):
        fit_examination(FeedbackLog(), method="cascade")


def test_ranks_that_are_not_connected_with_the_first_follow_the_last_that_is():
    gamma = np.full((40, 4), 0.5)
    swapped = {"a": [np.array([0, 1, 2, 3])] * 40, "b": [np.array([1, 0, 3, 2])] * 40}
    curve = fit_examination(simulate(swapped, gamma, 40, np.array([1, 0.6, 0.4, 0.3])))
    assert curve.method == "interventions" and len(curve.theta) == 2
    assert curve.theta[1] == pytest.approx(0.6, abs=0.06)
    assert curve.at(np.array([0, 1, 2, 3])) == pytest.approx(
        [1, curve.theta[1], *(curve.theta[1] * 2 / k for k in (3, 4))]
    )
    assert curve.at(np.array([1000])) == pytest.approx([0.05])


@pytest.mark.slow
def test_grades_follow_attraction_and_not_rank(attraction):
    rng = np.random.default_rng(4)
    rankers = {str(version): [rng.permutation(5) for _ in attraction] for version in range(2)}
    log = simulate(rankers, attraction, 80)
    corrected = click_grades(log, of_best=0)
    flat = click_grades(log, of_best=0, curve=ExaminationCurve((1.0,) * 5, "assumed"))

    def rank_correlation(grades):
        """Spearman's, of the grades with the true attraction."""
        found = [
            (grade, attraction[int(grades.pairs.queries[query].split()[1]), int(node[1:])])
            for query, row in grades.pairs.qrels.items()
            for node, grade in row.items()
        ]
        ranks = np.argsort(np.argsort(np.array(found), axis=0), axis=0)
        return np.corrcoef(ranks.T)[0, 1]

    assert corrected.curve.method == "interventions"
    assert rank_correlation(corrected) > rank_correlation(flat) + 0.1
    assert rank_correlation(corrected) > 0.85


def shown(query_id, nodes="ab", user=None, time=0.0, query="q"):
    return Retrieval(query_id, query, tuple(ShownNode(node) for node in nodes), time, None, user)


def test_one_voice_a_user():
    retrievals = [shown(f"a{n}", user="ann", time=600.0 * n) for n in range(20)] + [
        shown(f"b{n}", user=f"b{n}") for n in range(4)
    ]
    clicks = [Feedback(f"a{n}", "a", "click") for n in range(20)] + [Feedback("b0", "b", "click")] * 5
    impressions = collect_impressions(FeedbackLog(tuple(retrievals), tuple(clicks)))
    seen, clicked = impressions.table(np.ones(len(impressions.pair), dtype=bool), 2)
    assert np.allclose(seen, [[5, 0], [0, 5]])
    assert np.allclose(clicked, [[1, 0], [0, 1]])


def test_bots_are_left_out():
    fast = [shown(f"f{n}", user="bot", time=n * 1.0) for n in range(40)]
    slow = [shown(f"s{n}", user="ann", time=n * 10.0) for n in range(40)]
    clicker = [shown("c", user="clicker")]
    clicks = [Feedback("c", "a", "click", None, n * 0.5) for n in range(40)]
    impressions = collect_impressions(FeedbackLog((*fast, *slow, *clicker), tuple(clicks)))
    assert impressions.bots == ("bot", "clicker")
    assert impressions.weight.sum() == pytest.approx(2)


def test_old_feedback_counts_less():
    day = 86_400.0
    log = FeedbackLog((shown("new", time=100 * day), shown("old", time=70 * day), shown("undated", time=None)))
    weights = collect_impressions(log, half_life_days=30).weight
    assert np.allclose(weights, [1, 1, 0.5, 0.5, 1, 1])


def test_evidence_and_no_negatives():
    retrievals = [shown(f"r{n}", "abc") for n in range(8)] + [shown("rare", "x", query="other")]
    clicks = [Feedback(f"r{n}", "b", "click") for n in range(6)] + [Feedback("r0", "a", "click")]
    clicks += [Feedback("rare", "x", "click"), Feedback("r1", "c", "cite")]
    grades = click_grades(FeedbackLog(tuple(retrievals), tuple(clicks)))
    # 1/rank is assumed: b was looked at 8/2 times, a 8 times. c was never clicked, x looked at once.
    mean = 8 / (8 + 8 / 2 + 8 / 3 + 1)
    assert dict(grades.pairs.qrels["q0"]) == {"b": pytest.approx((6 + 5 * mean) / (4 + 5))}
    assert (len(grades.pairs), grades.too_little_evidence, grades.less_attractive) == (1, 1, 1)
    assert "1 pairs of 1 queries from clicks; position bias: assumed 1/rank" in str(grades)
    cited = click_grades(FeedbackLog(tuple(retrievals), tuple(clicks)), action="cite", min_examinations=1)
    assert list(cited.pairs.qrels["q0"]) == ["c"]
    with pytest.raises(ValueError, match="no pair with 'click' was looked at 99 times"):
        click_grades(FeedbackLog(tuple(retrievals), tuple(clicks)), min_examinations=99)


def test_what_is_no_log_is_named():
    with pytest.raises(TypeError, match=r"expected a FeedbackLog, got str: Recorder.log\(\) returns one"):
        click_grades("clicks.db")
