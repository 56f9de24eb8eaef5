"""solver="auto": what it chooses, what it keeps away from uncovered queries, and what it records."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import LabeledPairs, LabeledQueries, Nudge, tune
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.solvers import AutoSolver, Candidate, NudgeContrastive, NudgeN
from nudge_rag.solvers.auto.held_out_nodes import HeldOutNodes, _folds, _of_rarest
from nudge_rag.solvers.auto.selection import TriedSetting, preferred_setting, search_setting
from nudge_rag.solvers.auto.solver import OFFSETS
from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.stores import MappingStore

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


def reciprocal_ranks(nodes, part):
    scores = unit(part[0]) @ unit(nodes).T
    own = scores[np.arange(len(scores)), [rows[0] for rows in part[1]]]
    ranks = (scores > own[:, None]).sum(axis=1)
    return np.where(ranks < 10, 1 / (ranks + 1), 0.0)


def test_folds_leave_no_label_of_a_held_out_node_in_training():
    rng = np.random.default_rng(3)
    answers = [sorted(rng.choice(20, size=rng.integers(1, 4), replace=False).tolist()) for _ in range(50)]
    labels = prepare_labels((rng.normal(size=(50, 4)), answers), "t", n_nodes=20, dimension=4, dtype=np.dtype(float))
    folds = _folds(labels, 20, seed=0)
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
    for fold in _folds(prepared, 8, seed=0):
        held = set(fold.held.node_of_pair.tolist())
        for vector, rows, grades in zip(fold.train.vectors, fold.train.answers, fold.train.grades, strict=True):
            own = answers[int(np.flatnonzero((labels.vectors == vector).all(axis=1))[0])]
            # Its answer, and the node that it rejected unless nobody knows of that one.
            known = own[:1] if own[1] in held else own
            assert rows == known
            assert grades == [1.0, -2.0][: len(known)]


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


def test_nodes_with_the_fewest_labels_are_enough():
    # 60 nodes with one label that gain nothing, 5 with three that lose everything: they do not count.
    nodes = np.concatenate([np.arange(60), np.repeat(np.arange(60, 65), 3)])
    changes = np.where(nodes < 60, 0.0, -1.0)
    counts = np.bincount(nodes)
    effect = _of_rarest(changes, nodes, counts)
    assert (effect.change, effect.n_nodes) == (0.0, 60)
    # 40 of them are too few: those with more labels count as well.
    few = _of_rarest(changes[20:], nodes[20:], counts)
    assert (few.change, few.n_nodes) == (pytest.approx(-15 / 55), 45)


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


def test_the_guard_gives_up_gain_for_uncovered_queries():
    nodes, train, val, covered, uncovered = confusing(n=240, d=16, labelled=160, per_node=4)
    free = AutoSolver(metric="MRR@10", tolerance=math.inf).fit(nodes, train, val)
    guarded = AutoSolver(metric="MRR@10").fit(nodes, train, val)
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
    again = AutoSolver(metric="MRR@10").fit(nodes, train, val)
    assert again.vectors.tobytes() == guarded.vectors.tobytes()


def test_the_simpler_solver_is_kept_within_noise_and_the_better_one_taken_beyond():
    def tried(name, values, gamma=0.1):
        return TriedSetting(name, Candidate(name, gamma, allowed=True), np.array(values), None, None)

    simple = tried("simple", [0.5, 0.5, 0.5, 0.5])
    # Differences 0.25, -0.1, 0.25, -0.1: mean 0.075, standard deviation 0.175, standard error 0.0875: within noise.
    within = tried("within", [0.75, 0.4, 0.75, 0.4])
    beyond = tried("beyond", [0.8, 0.5, 0.8, 0.4])
    assert preferred_setting([simple, within]) is simple
    assert preferred_setting([simple, beyond]) is beyond
    assert preferred_setting([simple, within, beyond]) is beyond
    assert preferred_setting([tried("untouched", [0.5, 0.5], gamma=0.0)]) is None
    assert preferred_setting([]) is None


def at_offsets(smallest, *, harmless=0.0, alike=1.0):
    """Allowed from ``smallest`` on, without a loss from ``harmless`` on, and worth the same up to ``alike``."""

    def at(offset):
        candidate = Candidate("one", allowed=offset >= smallest, uncovered=offset - harmless)
        values = np.array([0.5, 0.7]) if offset <= alike else np.array([0.4, 0.5])
        return TriedSetting("one", replace(candidate, gamma=1 + offset), values, None, None)

    return at


def offsets_of(tried):
    return [one.candidate.gamma - 1 for one in tried]


@pytest.mark.parametrize(
    ("smallest", "wanted"),
    [
        (0.0, [0.0]),
        (0.0101, [0.0, 0.01, 0.02, 0.015, 0.0125]),
        (0.0199, [0.0, 0.01, 0.02, 0.015, 0.0175]),
        (0.004, [0.0, 0.01, 0.005, 0.0025]),
        (1.0, list(OFFSETS)),
    ],
)
def test_the_smallest_offset_allowed_is_come_close_to(smallest, wanted):
    tried, standing = search_setting(at_offsets(smallest), OFFSETS, None, 2)
    np.testing.assert_allclose(offsets_of(tried), wanted, rtol=1e-12)
    allowed = [one for one in tried if one.candidate.allowed]
    assert (standing is None) == (not allowed)
    assert standing is None or offsets_of([standing]) == [min(offsets_of(allowed))]


@pytest.mark.parametrize(
    ("harmless", "alike", "wanted", "taken"),
    [
        (0.0, 1.0, [0.0], 0.0),
        (0.016, 1.0, [0.0, 0.01, 0.02, 0.015, 0.0175], 0.0175),  # to where nothing is lost
        (0.016, 0.0, [0.0, 0.01], 0.0),  # validation would lose
        (0.07, 0.03, [0.0, 0.01, 0.02, 0.03, 0.05], 0.03),  # as far as it does not
        (0.5, 1.0, list(OFFSETS), OFFSETS[-1]),
    ],
)
def test_a_harmless_setting_is_preferred_where_validation_cannot_tell(harmless, alike, wanted, taken):
    at = at_offsets(0.0, harmless=harmless, alike=alike)
    tried, standing = search_setting(at, OFFSETS, None, 2)
    np.testing.assert_allclose(offsets_of(tried), wanted, rtol=1e-12)
    assert offsets_of([standing]) == pytest.approx([taken])
    asked_for, standing = search_setting(at, OFFSETS, 0.05, 2)  # a tolerance of the user's
    assert offsets_of(asked_for) == offsets_of([standing]) == [0.0]


def test_shares_of_a_step_go_down():
    def at(share):
        candidate = Candidate("one", gamma=share, allowed=share <= 0.5, uncovered=0.3 - share)
        return TriedSetting("one", candidate, np.array([0.5, 0.7]), None, None)

    tried, standing = search_setting(at, (1.0, 0.5, 0.25, 0.125), None, 0)
    assert [one.candidate.gamma for one in tried] == [1.0, 0.5, 0.25]
    assert standing.candidate.gamma == 0.25


def test_nothing_moves_where_nothing_qualifies():
    nodes = np.eye(4)
    fit = AutoSolver().fit(nodes, (np.eye(4)[:2], [[0], [1]]), (np.eye(4)[:2], [[0], [1]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == nodes.tobytes()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_through_a_store(tmp_path, similarity):
    nodes, train, _, _, _ = confusing(per_node=10)
    store = MappingStore({f"n{i}": row.tolist() for i, row in enumerate(nodes)}, similarity=similarity, key="test")
    embedded = {f"q{i}": row for i, row in enumerate(train[0])}
    pairs = LabeledPairs.from_pairs((text, f"n{rows[0]}") for text, rows in zip(embedded, train[1], strict=True))
    nudge = tune(store, pairs, lambda texts: np.array([embedded[text] for text in texts]), versions=tmp_path)
    assert nudge.tried
    tried = {one.solver.removesuffix(", offset 0") for one in nudge.tried}
    assert ({"nudge-m", "nudge-contrastive, lengths free"} <= tried) == (similarity == "dot")
    assert "chosen from:" in str(nudge)
    nudge.save(tmp_path / "saved")
    assert Nudge.load(tmp_path / "saved", store, tmp_path).tried == nudge.tried
    with pytest.raises(ValueError, match="tolerance must be None or at least 0, got -1"):
        tune(store, pairs, lambda texts: texts, uncovered_tolerance=-1)


def test_the_summary_says_when_the_guard_lets_nothing_through(tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.auto.solver.OFFSETS", (0.0,))
    nodes, train, _, _, _ = confusing(n=240, labelled=120, per_node=6)
    store = MappingStore({f"n{i}": row.tolist() for i, row in enumerate(nodes)}, key="test")
    embedded = {f"q{i}": row for i, row in enumerate(train[0])}
    pairs = LabeledPairs.from_pairs((text, f"n{rows[0]}") for text, rows in zip(embedded, train[1], strict=True))
    nudge = tune(store, pairs, lambda texts: np.array([embedded[text] for text in texts]), versions=tmp_path)
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
