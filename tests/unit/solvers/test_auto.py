"""solver="auto": what it chooses, what it keeps away from uncovered queries, and what it records."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import LabeledPairs, LabeledQueries, Nudge, TuningState, tune
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.solvers import AutoSolver, Candidate, NudgeContrastive, NudgeN
from nudge_rag.solvers.auto.effects import NodeMeans, are_rarest
from nudge_rag.solvers.auto.folds import FoldPlan, divide_labels
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes, share_of_uncovered
from nudge_rag.solvers.auto.lowered import LoweredSolver
from nudge_rag.solvers.auto.measures import Measures
from nudge_rag.solvers.auto.selection import TriedSetting, choose_setting, harms_nobody
from nudge_rag.solvers.auto.trials import OFFSETS, SolverTrials
from nudge_rag.solvers.contrastive.offset import common_direction, lower_scores
from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.printing import describe_effects
from tests.support.little_auto import try_little

METRIC = parse_metric("MRR@10")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def confusing(seed=0, n=60, d=8, labelled=24, per_node=6, noise=0.35):
    """Queries speak a dialect: all lie the same way off their nodes, so that a moved node draws everyone's queries."""
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))
    places = unit(nodes + 0.9 * unit(rng.normal(size=d)))

    def queries_of(answers):
        return unit(places[answers] + noise * unit(rng.normal(size=(len(answers), d)))), [[int(a)] for a in answers]

    train = queries_of(np.repeat(np.arange(labelled), per_node))
    val = queries_of(rng.integers(0, labelled, size=80))
    covered = queries_of(rng.integers(0, labelled, size=200))
    uncovered = queries_of(rng.integers(labelled, n, size=200))
    return nodes, train, val, covered, uncovered


@pytest.fixture
def few_folds(monkeypatch):
    """Every setting is tried on fewer folds of the nodes, where how many there are is not what is tested."""
    monkeypatch.setattr("nudge_rag.solvers.auto.folds.FOLDS", 3)


@pytest.fixture
def few_trials(monkeypatch):
    """Few settings on few folds."""
    try_little(monkeypatch)


@pytest.fixture(scope="module")
def of_many_nodes():
    """A problem that 160 of 240 nodes are labelled in, and what is chosen of all settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_rag.solvers.auto.folds.FOLDS", 3)
        problem = confusing(n=240, d=16, labelled=160, per_node=4)
        return problem, AutoSolver(metric="MRR@10").fit(*problem[:3])


def reciprocal_ranks(nodes, part):
    scores = unit(part[0]) @ unit(nodes).T
    own = scores[np.arange(len(scores)), [rows[0] for rows in part[1]]]
    ranks = (scores > own[:, None]).sum(axis=1)
    return np.where(ranks < 10, 1 / (ranks + 1), 0.0)


def test_folds_leave_no_label_of_a_held_out_node_in_training():
    rng = np.random.default_rng(3)
    answers = [sorted(rng.choice(20, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(50)]
    labels = prepare_labels((rng.normal(size=(50, 4)), answers), "t", n_nodes=20, dimension=4, dtype=np.dtype(float))
    folds = divide_labels(labels, 20, seed=0)
    judged = 0
    for fold in folds:
        held = set(fold.held.node_of_pair.tolist())
        assert not held & {row for rows in fold.train.answers for row in rows}
        trained = {tuple(row) for row in np.asarray(fold.train.vectors)}
        assert not trained & {tuple(row) for row in fold.held.vectors}
        for query, row in enumerate(fold.held.vectors):
            original = int(np.flatnonzero((labels.vectors == row).all(axis=1))[0])
            mine = fold.held.node_of_pair[fold.held.query_of_pair == query]
            others = fold.ignored[1][fold.ignored[0] == query]
            assert sorted([*mine, *others]) == answers[original]
        judged += fold.held.n_queries
    assert judged == 50


def test_folds_keep_the_rejections_of_their_training_queries():
    rng = np.random.default_rng(5)
    answers = [[int(row), int((row + 1) % 8)] for row in rng.integers(0, 8, size=40)]
    labels = LabeledQueries(rng.normal(size=(40, 4)), answers, [[1.0, -2.0]] * 40)
    prepared = prepare_labels(labels, "t", n_nodes=8, dimension=4, dtype=np.dtype(float))
    for fold in divide_labels(prepared, 8, seed=0):
        held = set(fold.held.node_of_pair.tolist())
        for vector, rows, grades in zip(fold.train.vectors, fold.train.answers, fold.train.grades, strict=True):
            own = answers[int(np.flatnonzero((labels.vectors == vector).all(axis=1))[0])]
            # Its answer, and the node that it rejected unless nobody knows of that one.
            known = own[:1] if own[1] in held else own
            assert rows == known
            assert grades == [1.0, -2.0][: len(known)]


def test_queries_held_out_of_folds_tell_what_covered_queries_gain():
    nodes, train, _, _, _ = confusing()
    solver = NudgeN(gamma=0.3)
    held = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine", plan=FoldPlan(4, covered_too=True))
    changes = []
    for fold in held._folds:
        trained = {tuple(row) for row in np.asarray(fold.train.vectors)}
        known = {row for rows in fold.train.answers for row in rows}
        assert fold.covered.n_queries
        assert not trained & {tuple(row) for row in fold.covered.vectors}
        assert not {tuple(row) for row in fold.held.vectors} & {tuple(row) for row in fold.covered.vectors}
        assert set(fold.covered.node_of_pair.tolist()) <= known
        moved = solver.fit(nodes, fold.train).embeddings()
        part = (fold.covered.vectors, [[row] for row in fold.covered.node_of_pair])
        changes += list(reciprocal_ranks(moved, part) - reciprocal_ranks(nodes, part))
    effects = held.effects(held.solutions(solver))
    assert effects.covered == pytest.approx(changes, abs=1e-12)
    # Each query is held out of one fold; in one case of four that is its node's, where it is not covered.
    assert len(changes) == pytest.approx(144 * 3 / 4, rel=0.2)
    assert held.effects(None).covered.tolist() == [0.0] * len(changes)


def test_queries_that_are_asked_again_are_held_out_of_a_fold_together():
    nodes, train, _, _, _ = confusing()
    twice = LabeledQueries(np.concatenate([train[0]] * 2), [*train[1], *train[1]])
    n_covered = 0
    for fold in HeldOutNodes(nodes, twice, METRIC, "cosine", plan=FoldPlan(4, covered_too=True))._folds:
        trained = {tuple(row) for row in np.asarray(fold.train.vectors)}
        assert not trained & {tuple(row) for row in fold.covered.vectors}
        n_covered += fold.covered.n_queries
    assert n_covered == pytest.approx(288 * 3 / 4, rel=0.2)


def test_folds_are_taken_until_enough_nodes_are_held_out(monkeypatch):
    nodes, train, _, _, _ = confusing()
    few = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine", plan=FoldPlan(6, enough_nodes=7))
    assert [len(np.unique(fold.nodes)) for fold in few._folds] == [4, 4]
    monkeypatch.setattr("nudge_rag.solvers.auto.folds.MOST_JUDGED", 5)
    sampled = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine", plan=FoldPlan(6))
    assert [fold.held.n_queries for fold in sampled._folds] == [5] * 6
    assert [len(fold.train.answers) for fold in sampled._folds] == [120] * 6  # what is learned from is all there


def test_effect_is_that_of_brute_force():
    nodes, train, _, _, _ = confusing()
    solver = NudgeN(gamma=0.3)
    held = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine")
    effect = held.effect(held.solutions(solver))
    changes = []
    for fold in held._folds:
        moved = solver.fit(nodes, fold.train).embeddings()
        part = (fold.held.vectors, [[row] for row in fold.held.node_of_pair])
        changes += list(reciprocal_ranks(moved, part) - reciprocal_ranks(nodes, part))
    assert effect.change == pytest.approx(np.mean(changes), abs=1e-12)
    assert effect.n_nodes == 24
    assert effect.low <= effect.change <= effect.high


@pytest.mark.parametrize("covered_too", [False, True])
def test_effects_of_lowered_solutions_are_those_of_the_lowered_vectors(covered_too):
    nodes, train, _, _, _ = confusing()
    held = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine", plan=FoldPlan(4, covered_too=covered_too))
    solutions = held.solutions(NudgeN(gamma=0.3))
    directions = [common_direction(vectors) for vectors in held.training_vectors]
    offsets = (0.0, 0.03, 0.2)
    found = held.effects_lowered(solutions, directions, offsets, keep_lengths=True)
    changes = set()
    for effects, offset in zip(found, offsets, strict=True):
        lowered = [
            lower_scores(vectors, direction, offset, keep_lengths=True)
            for vectors, direction in zip(solutions, directions, strict=True)
        ]
        expected = held.effects(lowered)
        assert (effects.uncovered, effects.new_nodes) == (expected.uncovered, expected.new_nodes)
        assert effects.covered.tolist() == expected.covered.tolist()
        assert bool(len(effects.covered)) == covered_too
        changes.add(effects.new_nodes.change)
    assert len(changes) == 3


def test_nodes_with_the_fewest_labels_are_enough():
    # 60 nodes with one label that gain nothing, 5 with three that lose everything: they do not count.
    nodes = np.concatenate([np.arange(60), np.repeat(np.arange(60, 65), 3)])
    changes = np.where(nodes < 60, 0.0, -1.0)
    counts = np.bincount(nodes)
    rarest = are_rarest(nodes, counts)
    effect = NodeMeans(nodes[rarest]).effect(changes[rarest])
    assert (effect.change, effect.n_nodes) == (0.0, 60)
    # 40 of them are too few: those with more labels count as well.
    assert are_rarest(nodes[20:], counts).all()
    few = NodeMeans(nodes[20:]).effect(changes[20:])
    assert (few.change, few.n_nodes) == (pytest.approx(-15 / 55), 45)


def test_intervals_are_those_of_nodes_drawn_anew(monkeypatch):
    rng = np.random.default_rng(2)
    nodes = np.repeat(np.arange(30), rng.integers(1, 5, size=30))
    changes = rng.normal(size=30)[nodes] + 0.1 * rng.normal(size=len(nodes))
    means = NodeMeans(nodes)
    effect = means.effect(changes)
    drawn = []
    queries_of = [np.flatnonzero(nodes == node) for node in range(30)]
    for _ in range(4_000):
        queries = np.concatenate([queries_of[node] for node in rng.integers(30, size=30)])
        drawn.append(changes[queries].mean())
    # As wide as with the spread of a sample of 30 and Student's t of 29 degrees of freedom, which is 2.0452.
    wider = np.sqrt(30 / 29) * 2.0452 / 1.96
    low, high = changes.mean() + wider * (np.quantile(drawn, [0.025, 0.975]) - changes.mean())
    assert (effect.low, effect.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert means.effect(changes) == effect
    # Without keeping what was drawn.
    monkeypatch.setattr("nudge_rag.solvers.auto.effects.KEPT", 0)
    assert NodeMeans(nodes).effect(changes) == effect
    monkeypatch.setattr("nudge_rag.solvers.auto.effects.DRAWN_AT_ONCE", 70)
    few_at_once = NodeMeans(nodes).effect(changes)
    assert few_at_once.low == pytest.approx(low, abs=0.05 * (high - low))


@pytest.mark.parametrize("n_nodes", [3, 5, 10, 40])
def test_intervals_of_few_nodes_hold_the_mean_as_often_as_they_say(n_nodes):
    """19 of 20 times, to within four standard errors of 1,000 trials."""
    rng = np.random.default_rng(n_nodes)
    means = NodeMeans(np.arange(n_nodes))
    effects = [means.effect(rng.normal(size=n_nodes)) for _ in range(1_000)]
    share = np.mean([effect.low <= 0 <= effect.high for effect in effects])
    assert abs(share - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / 1_000)


def test_one_node_has_no_interval():
    effect = NodeMeans(np.array([4, 4])).effect(np.array([-0.2, -0.4]))
    assert (effect.change, effect.low, effect.high, effect.n_nodes) == (pytest.approx(-0.3), None, None, 1)
    assert effect.standard_error == 0
    # What is not known is not significant; a loss beyond a tolerance is one all the same.
    assert effect.within(None)
    assert not effect.within(0.1)


def test_one_covered_query_has_no_interval_and_few_have_students():
    nodes, train, (queries, answers), _, _ = confusing()
    size = {"n_nodes": len(nodes), "dimension": nodes.shape[1], "dtype": nodes.dtype}
    labelled, judged = prepare_labels(train, "t", **size), prepare_labels((queries, answers), "v", **size)
    measures = Measures(
        AutoSolver(metric="MRR@10"), share_of_uncovered(labelled), judged, np.arange(len(nodes)), np.zeros(len(queries))
    )
    one = measures._candidate("nudge-n", 0.1, 0.5, np.array([0.2]), None)
    assert (one.covered, one.covered_low, one.covered_high) == (0.2, None, None)
    assert harms_nobody(one)
    assert describe_effects(one) == "covered queries +0.200 (one alone: no interval)"
    assert "expected +0.200, covered queries +0.200 (one alone: no interval)" in str(one)
    # Of 0, 0.1 and 0.5 the mean is 0.2, the variance (0.04 + 0.01 + 0.09) / 2 = 0.07, and Student's t of 2 is 4.30265.
    few = measures._candidate("nudge-n", 0.1, 0.5, np.array([0.0, 0.1, 0.5]), None)
    half = 4.30265 * np.sqrt(0.07 / 3)
    assert (few.covered_low, few.covered_high) == (
        pytest.approx(0.2 - half, abs=1e-5),
        pytest.approx(0.2 + half, abs=1e-5),
    )
    many = measures._candidate("nudge-n", 0.1, 0.5, np.tile([0.0, 0.1, 0.5], 1_000), None)
    assert many.covered_high - 0.2 == pytest.approx(1.96 * np.sqrt(0.14 / 3 / 3_000), rel=2e-3)


def test_the_estimate_foretells_what_uncovered_queries_lose():
    nodes, train, _, _, uncovered = confusing(n=240, labelled=120, per_node=3)
    solver = NudgeN(gamma=0.4)
    held = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine")
    effect = held.effect(held.solutions(solver))
    moved = solver.fit(nodes, train).embeddings()
    measured = (reciprocal_ranks(moved, uncovered) - reciprocal_ranks(nodes, uncovered)).mean()
    assert measured < 0
    assert effect.high < 0
    assert effect.change == pytest.approx(measured, abs=0.1)


@pytest.mark.slow
def test_the_guard_gives_up_gain_for_uncovered_queries(few_folds):
    nodes, train, val, covered, uncovered = confusing(n=120, d=12, labelled=80, per_node=4)
    free = AutoSolver(metric="MRR@10", tolerance=math.inf).fit(nodes, train, val)
    # Half of the queries ask for the 40 nodes that have no label: the labels, 4 a node, cannot tell.
    guarded = AutoSolver(metric="MRR@10", uncovered_share=0.5).fit(nodes, train, val)
    lost = {
        name: (reciprocal_ranks(fit.embeddings(), uncovered) - reciprocal_ranks(nodes, uncovered)).mean()
        for name, fit in (("free", free), ("guarded", guarded))
    }
    assert lost["free"] < lost["guarded"]
    for fit in (free, guarded):
        assert fit.improved
        assert reciprocal_ranks(fit.embeddings(), covered).mean() > reciprocal_ranks(nodes, covered).mean() + 0.05
        chosen = [one for one in fit.tried if one.chosen]
        assert len(chosen) == 1
        assert chosen[0].allowed
        assert chosen[0].gamma == fit.gamma
    assert all(one.allowed for one in free.tried)
    assert not all(one.allowed for one in guarded.tried)
    again = AutoSolver(metric="MRR@10", uncovered_share=0.5).fit(nodes, train, val)
    assert again.vectors.tobytes() == guarded.vectors.tobytes()


def setting(name, values, *, expected=None, uncovered=0.0, high=None, new_nodes=0.0, allowed=True, share=1.0):
    """A setting whose gain is the mean of ``values`` over 0.5, unless it is given."""
    values = np.array(values)
    candidate = Candidate(
        name,
        0.1,
        uncovered=uncovered,
        high=uncovered + 0.01 if high is None else high,
        new_nodes=new_nodes,
        new_high=new_nodes + 0.01,
        expected=float(values.mean() - 0.5) if expected is None else expected,
        allowed=allowed,
    )
    return TriedSetting(name, candidate, values, share, None, None)


def test_the_simpler_solver_is_kept_within_noise_and_the_better_one_taken_beyond():
    simple = setting("simple", [0.6, 0.6, 0.6, 0.6])
    # Differences 0.25, -0.1, 0.25, -0.1: mean 0.075, standard deviation 0.175, standard error 0.0875: within noise.
    within = setting("within", [0.85, 0.5, 0.85, 0.5])
    # Differences 0.3, 0, 0.3, -0.1: mean 0.125, standard error 0.089.
    beyond = setting("beyond", [0.9, 0.6, 0.9, 0.5])
    assert choose_setting([simple, within], math.inf) is simple
    assert choose_setting([simple, beyond], math.inf) is beyond
    # Against "beyond": -0.05, -0.1, -0.05, 0, mean -0.05, standard error 0.018.
    assert choose_setting([simple, within, beyond], math.inf) is beyond
    assert choose_setting([setting("harmful", [0.5, 0.4])], None) is None
    assert choose_setting([], None) is None


def test_noise_in_the_expected_gain_is_that_of_covered_queries_times_their_share():
    # Differences 0.25, -0.1, 0.25, -0.1 (mean 0.075) have a standard error of 0.0875. If a third of the queries are
    # covered, the expected gains differ by 0.025 with a standard error of 0.029; by 0.03 they differ beyond it.
    values = [0.85, 0.5, 0.85, 0.5]
    simple = setting("simple", [0.6] * 4, expected=0.2, share=1 / 3)
    within = setting("within", values, expected=0.225, share=1 / 3)
    beyond = setting("beyond", values, expected=0.23, share=1 / 3)
    assert choose_setting([simple, within], math.inf) is simple
    assert choose_setting([simple, beyond], math.inf) is beyond


def test_of_one_solver_the_setting_with_the_largest_expected_gain():
    small, large = setting("one", [0.6, 0.6]), setting("one", [0.7, 0.51])
    assert choose_setting([small, large], math.inf) is large


def test_a_tolerance_leaves_out_what_loses_more():
    bold = setting("one", [0.9, 0.9], uncovered=-0.05, allowed=False)
    careful = setting("one", [0.6, 0.6], uncovered=-0.01)
    assert choose_setting([bold, careful], 0.02) is careful
    assert choose_setting([bold], 0.02) is None


def test_of_equal_gains_the_one_that_new_nodes_gain_most_by():
    first, second = (setting("one", [0.7, 0.7], new_nodes=change) for change in (0.01, 0.03))
    assert choose_setting([first, second], None) is second
    assert choose_setting([second, first], None) is second


def test_of_settings_that_noise_cannot_tell_apart_the_one_that_harms_least():
    # Differences 0.25, -0.1, 0.25, -0.1 are noise, whichever of the two is the better one.
    simple = setting("simple", [0.6] * 4, uncovered=-0.05)
    varied = [0.85, 0.5, 0.85, 0.5]
    assert choose_setting([simple, setting("harmless", varied)], math.inf).solver == "harmless"
    assert choose_setting([simple, setting("as harmful", varied, uncovered=-0.05)], math.inf) is simple
    milder = setting("milder", [0.6] * 4, new_nodes=-0.02)
    assert choose_setting([setting("better", varied, uncovered=-0.05), milder], math.inf) is milder


def test_a_group_is_spared_a_significant_loss_for_a_part_of_the_gain():
    harmful = setting("one", [0.9] * 4, uncovered=-0.05)
    # 0.34 is 0.85 times 0.4, and 0.33 is less.
    spared = setting("two", [0.8401] * 4, uncovered=-0.005)
    assert choose_setting([harmful, spared], None) is spared
    assert choose_setting([harmful, spared], math.inf) is harmful
    assert choose_setting([harmful, setting("two", [0.83] * 4, uncovered=-0.005)], None) is harmful
    # Covered queries are a group as well.
    lost = replace(spared, candidate=replace(spared.candidate, covered_high=-0.01))
    assert choose_setting([harmful, lost], None) is harmful


def test_a_group_is_spared_for_a_larger_part_of_the_gain_if_nudge_n_gains_no_more():
    harmful = setting("one", [0.9] * 4, uncovered=-0.05)
    # 0.29 is 0.725 times 0.4.
    spared = setting("two", [0.79] * 4, uncovered=-0.005)
    assert choose_setting([setting("nudge-n", [0.78] * 4, uncovered=-0.05), harmful, spared], None) is spared
    assert choose_setting([setting("nudge-n", [0.8] * 4, uncovered=-0.05), harmful, spared], None) is harmful
    assert choose_setting([setting("nudge-n", [0.6] * 4), harmful, spared], math.inf) is harmful
    # 0.27 is 0.675 times 0.4.
    little = setting("two", [0.77] * 4, uncovered=-0.005)
    assert choose_setting([setting("nudge-n", [0.6] * 4, uncovered=-0.05), harmful, little], None) is harmful
    # What is spared for less is preferred.
    more = setting("three", [0.85] * 4, uncovered=-0.005)
    assert choose_setting([harmful, spared, more], None) is more


def test_a_lowered_solver_lowers_what_its_solver_finds():
    nodes, train, _, _, _ = confusing()
    queries, step = train[0], NudgeN(gamma=0.3)
    # The direction that all queries score 1 with on average, by its closed form (`offset.common_direction`).
    mean = queries.mean(axis=0)
    covariance = (queries - mean).T @ (queries - mean) / len(queries)
    direction = np.linalg.solve(covariance + 0.2 * np.trace(covariance) / 8 * np.eye(8), mean)
    moved = unit(step.fit(nodes, train).vectors - 0.05 * direction / (direction @ mean))
    lowered = LoweredSolver(step, 0.05, keep_lengths=True).fit(nodes, train)
    np.testing.assert_allclose(lowered.vectors, moved, atol=1e-9)


@pytest.mark.slow
def test_queries_without_answers_are_warned_of_once_for_each_part(few_trials):
    nodes, train, val, *_ = confusing()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        AutoSolver().fit(nodes, *((part[0], [[], *part[1][1:]]) for part in (train, val)))
    told = [str(warning.message) for warning in raised if "no answers" in str(warning.message)]
    assert told == [
        f"1 of {len(part[1])} {name} queries have no answers: left out"
        for name, part in (("training", train), ("validation", val))
    ]


@pytest.mark.slow
def test_the_gap_below_the_smallest_harmless_offset_is_halved_twice(of_many_nodes):
    _, fit = of_many_nodes
    halved = 0
    begins = [place for place, one in enumerate(fit.tried) if "offset" not in one.solver]
    for first, last in zip(begins, [*begins[1:], len(fit.tried)], strict=True):
        tried = {float(one.solver.partition("offset ")[2] or 0): one for one in fit.tried[first:last]}
        harmless = next((offset for offset in OFFSETS if harms_nobody(tried[offset])), 0.0)
        if not harmless:
            assert sorted(tried) == list(OFFSETS)
            continue
        harmful = OFFSETS[OFFSETS.index(harmless) - 1]
        middle = (harmful + harmless) / 2
        half = (harmful + middle) / 2 if harms_nobody(tried[middle]) else (middle + harmless) / 2
        assert sorted(tried) == pytest.approx(sorted([*OFFSETS, middle, half]), abs=1e-6)
        halved += 1
    assert halved


@pytest.mark.slow
def test_nudges_without_unlabelled_negatives_are_tried_if_many_queries_validate(monkeypatch, few_folds, of_many_nodes):
    (nodes, train, val, _, _), fit = of_many_nodes
    names = [one.solver for one in fit.tried]
    assert any("strength 30" in name for name in names)
    assert not any("labelled negatives" in name for name in names)
    assert len({name for name in names if "contrastive" in name}) == sum("contrastive" in name for name in names)
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.ENOUGH_QUERIES", 80)
    names = [one.solver for one in AutoSolver(metric="MRR@10").fit(nodes, train, val).tried]
    assert "nudge-contrastive, labelled negatives" in names
    assert not any("strength" in name for name in names)


def test_of_many_labels_few_queries_judge_and_folds_are_small(monkeypatch):
    nodes, train, val, _, _ = confusing(n=240, d=16, labelled=160, per_node=4)
    chooser = AutoSolver(metric="MRR@10")
    assert len(SolverTrials(chooser, nodes, train, val, None)._plain.val.answers) == 80
    for name, value in {"PRODUCTS": 160 * 50, "LEAST_JUDGED": 5, "MANY": 1_000, "MOST_IN_FOLD": 16}.items():
        monkeypatch.setattr(f"nudge_rag.solvers.auto.trials.{name}", value)
    trials = SolverTrials(chooser, nodes, train, val, None)
    judged, given = trials._plain.val, val[0].tolist()
    assert len(judged.answers) == 50
    for vector, answer in zip(judged.vectors.tolist(), judged.answers, strict=True):
        assert val[1][given.index(vector)] == answer
    # All 160 labelled nodes, in folds of 16.
    assert [len(np.unique(fold.nodes)) for fold in trials._plain.held._folds] == [16] * 10


def test_settings_that_were_tried_keep_no_vectors(few_folds):
    nodes, train, val, _, _ = confusing()
    tried = list(SolverTrials(AutoSolver(metric="MRR@10"), nodes, train, val, None).without_map())
    assert len(tried) > len(OFFSETS)
    for one in tried:
        assert (one.fit.vectors.shape, one.fit.vectors.base) == ((0, 8), None)


def test_the_share_of_uncovered_queries_is_that_of_nodes_with_one_label():
    # Nodes 0 and 1 have one label, node 2 has three: 2 of 5 labels.
    labels = prepare_labels((np.eye(5), [[0], [1], [2], [2], [2]]), "t", n_nodes=3, dimension=5, dtype=np.dtype(float))
    assert share_of_uncovered(labels) == pytest.approx(2 / 5)


@pytest.mark.slow
def test_expected_is_the_mean_over_the_groups_by_their_shares(few_trials):
    nodes, (queries, answers), val, _, _ = confusing()
    # The last three queries ask for nodes of their own.
    train = queries[:-1], [*answers[:-4], *([node] for node in (40, 45, 50))]
    labelled = [node for part in (train, val) for nodes_of_query in part[1] for node in nodes_of_query]
    rare = sum(count == 1 for count in Counter(labelled).values()) / len(labelled)
    for share, p in ((0.0, 0.0), (0.3, 0.3), (1.0, 1.0), (None, 0.2)):
        fit = AutoSolver(metric="MRR@10", uncovered_share=share).fit(nodes, train, val)
        assert 0 < rare < 0.2
        for one in fit.tried:
            of_rare = min(rare, p)
            mean = (1 - p) * one.covered + of_rare * one.uncovered + (p - of_rare) * one.new_nodes
            assert one.expected == pytest.approx(mean, abs=1e-12)
            assert one.covered_low <= one.covered + 1e-9
            assert one.new_low <= one.new_nodes <= one.new_high


def test_new_nodes_are_those_of_any_popularity():
    nodes, train, _, _, _ = confusing()
    solver = NudgeN(gamma=0.3)
    held = HeldOutNodes(nodes, LabeledQueries(*train), METRIC, "cosine")
    effects = held.effects(held.solutions(solver))
    assert effects.new_nodes.change == pytest.approx(effects.uncovered.change)  # every node has six labels
    assert held.effects(None).new_nodes.change == 0


def dialect(seed=0, n=120, d=12, labelled=60, per_node=4, noise=0.25):
    """Queries speak another language than nodes, the same one for all: a map learned on some serves the others."""
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))
    turned = np.linalg.qr(rng.normal(size=(d, d)))[0]

    def queries_of(answers):
        noisy = nodes[answers] + noise * unit(rng.normal(size=(len(answers), d)))
        return unit(noisy @ (0.4 * np.eye(d) + 0.6 * turned)), [[int(answer)] for answer in answers]

    train = queries_of(np.repeat(np.arange(labelled), per_node))
    val = queries_of(rng.integers(0, labelled, size=80))
    return nodes, train, val, queries_of(rng.integers(0, labelled, 200)), queries_of(rng.integers(labelled, n, 200))


@pytest.mark.slow
def test_reach_of_queries_lifts_queries_of_nodes_without_a_label(few_trials):
    nodes, train, val, covered, uncovered = dialect()
    fit = AutoSolver(metric="MRR@10", reach="queries").fit(nodes, train, val)
    assert fit.adapter is not None
    for part in (covered, uncovered):
        before = reciprocal_ranks(nodes, part).mean()
        assert reciprocal_ranks(fit.embeddings(), (fit.adapter(part[0]), part[1])).mean() > before + 0.1
    chosen = next(one for one in fit.tried if one.chosen)
    assert chosen.solver.startswith("map")
    assert chosen.new_nodes > 0.1
    alone = AutoSolver(metric="MRR@10").fit(nodes, train, val)
    assert alone.adapter is None
    assert not any(one.solver.startswith("map") for one in alone.tried)
    again = AutoSolver(metric="MRR@10", reach="queries").fit(nodes, train, val)
    assert again.adapter.change.tobytes() == fit.adapter.change.tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reach": "everything"}, "reach must be one of 'labelled', 'queries', 'nodes', got 'everything'"),
        ({"uncovered_share": 1.5}, "uncovered_share must be None or between 0 and 1, got 1.5"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        AutoSolver(**options)


def test_nothing_moves_if_every_node_answers_every_query():
    nodes = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    every = [list(range(40))] * 15
    fit = AutoSolver(similarity="dot").fit(nodes, (queries[:15], every), (queries[15:], every))
    assert not fit.improved
    assert max(setting.validation for setting in fit.tried) == 1
    assert fit.embeddings().tobytes() == nodes.tobytes()


def test_nothing_moves_where_nothing_qualifies():
    nodes = np.eye(4)
    fit = AutoSolver().fit(nodes, (np.eye(4)[:2], [[0], [1]]), (np.eye(4)[:2], [[0], [1]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == nodes.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_through_a_store(few_trials, tmp_path, similarity):
    nodes, train, _, _, _ = confusing(per_node=10)
    store = MappingStore({f"n{i}": row.tolist() for i, row in enumerate(nodes)}, similarity=similarity, key="test")
    embedded = {f"q{i}": row for i, row in enumerate(train[0])}
    pairs = LabeledPairs.from_pairs((text, f"n{rows[0]}") for text, rows in zip(embedded, train[1], strict=True))
    nudge = tune(store, pairs, lambda texts: np.array([embedded[text] for text in texts]), versions=tmp_path)
    assert nudge.tried
    tried = [one.solver for one in nudge.tried]
    for name in ("nudge-m", "nudge-contrastive, lengths free"):
        assert any(one.startswith(name) for one in tried) == (similarity == "dot")
    assert "chosen from:" in str(nudge)
    nudge.save(tmp_path / "saved")
    assert Nudge.load(tmp_path / "saved", store, tmp_path).tried == nudge.tried
    with pytest.raises(ValueError, match=r"\(uncovered_tolerance of tune\) must be None or at least 0, got -1"):
        tune(store, pairs, lambda texts: texts, uncovered_tolerance=-1)
    with pytest.raises(TypeError, match=r"tolerance must be None or a number such as 0.01, got '1%'"):
        tune(store, pairs, lambda texts: texts, uncovered_tolerance="1%")
    with pytest.raises(TypeError, match=r"uncovered_share must be None or a number such as 0.01, got '20%'"):
        tune(store, pairs, lambda texts: texts, uncovered_share="20%")


@pytest.mark.parametrize("solver", ["nudge-n", "nudge-contrastive", NudgeN()])
@pytest.mark.parametrize("option", [{"uncovered_tolerance": 0.01}, {"uncovered_share": 0.0}, {"reach": "queries"}])
def test_options_of_auto_are_refused_with_another_solver_that_would_not_heed_them(solver, option, tmp_path):
    store = MappingStore({"a": [1.0, 0.0], "b": [0.0, 1.0]}, key="test")
    pairs = LabeledPairs.from_pairs((f"question {number}", "a") for number in range(20))
    name = solver if isinstance(solver, str) else "NudgeN"
    message = rf"^{next(iter(option))}=.* needs solver='auto', got '{name}'"
    with pytest.raises(ValueError, match=message):
        tune(store, pairs, lambda texts: np.ones((len(texts), 2)), solver=solver, versions=tmp_path, **option)
    with pytest.raises(ValueError, match=message):
        TuningState(store, lambda texts: np.ones((len(texts), 2)), solver=solver, versions=tmp_path, **option)


@pytest.mark.parametrize(("reach", "name"), [("queries", "map"), ("nodes", "node map")])
def test_a_map_that_helps_nobody_is_told(few_trials, reach, name, monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.linear_map.solver.LinearMap.choose", lambda *_: None)
    nodes, train, val, _, _ = confusing()
    fit = AutoSolver(reach=reach).fit(nodes, train, val)
    last = fit.tried[-1]
    assert (last.solver, last.validation, last.chosen) == (name, None, False)
    assert last.note.startswith("no map that was learned helps")
    assert not any("map" in one.solver for one in fit.tried[:-1])
    assert fit.adapter is None
    assert fit.node_map is None


@pytest.mark.slow
def test_the_summary_says_when_the_guard_lets_nothing_through(few_folds, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.OFFSETS", (0.0,))
    nodes, train, _, _, _ = confusing(n=240, labelled=120, per_node=6)
    store = MappingStore({f"n{i}": row.tolist() for i, row in enumerate(nodes)}, key="test")
    embedded = {f"q{i}": row for i, row in enumerate(train[0])}
    pairs = LabeledPairs.from_pairs((text, f"n{rows[0]}") for text, rows in zip(embedded, train[1], strict=True))
    nudge = tune(
        store,
        pairs,
        lambda texts: np.array([embedded[text] for text in texts]),
        versions=tmp_path,
        uncovered_tolerance=0.0,
    )
    assert nudge.gamma == 0
    assert "no setting leaves queries without labelled answers unharmed" in nudge.summary
    assert nudge.vectors.tobytes() == nudge.originals.tobytes()
    with pytest.warns(UserWarning, match="nothing was pushed"):
        assert not nudge.push(force=True).pushed


def test_only_numpy_arrays_and_with_validation():
    nodes, train, val, _, _ = confusing()
    with pytest.raises(ValueError, match="validation queries are needed"):
        AutoSolver().fit(nodes, train)
    assert not NudgeContrastive(refit=False).needs.learns_from_validation
    with pytest.raises(ValueError, match="names node 99"):
        AutoSolver().fit(nodes, (train[0][:1], [[99]]), val)
    with pytest.raises(ValueError, match="the training set has no query with an answer"):
        AutoSolver().fit(nodes, LabeledQueries(train[0][:1], [[0]], [[-1]]), val)


def test_settings_that_are_tried_are_shown_while_it_takes(few_trials, caplog, capsys, monkeypatch):
    monkeypatch.setattr("nudge_rag.common.progress.SECONDS_BEFORE_BAR", 0.0)
    nodes, train, val, _, _ = confusing()
    with caplog.at_level("INFO", logger="nudge_rag"):
        AutoSolver(metric="MRR@10").fit(nodes, train, val)
    # A bar if tqdm is installed; a line in the log if it is not.
    assert "trying settings" in capsys.readouterr().err + caplog.text
