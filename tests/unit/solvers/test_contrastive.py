"""NudgeContrastive: its gradient, its optimum where that is known, what it promises, and through a store."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, LabeledQueries, NudgeContrastive, tune
from nudge_rag.common.blas_threads import threads_to_map
from nudge_rag.common.similarity import score_matrix
from nudge_rag.solvers.contrastive.objective import ContrastiveObjective
from nudge_rag.stores import MappingStore


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed=0, n=60, d=8, labelled=12, per_node=10, dtype=np.float64):
    """Queries of a node lie towards another labelled node: what a solver has to learn to keep apart."""
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))
    places = unit(nodes[:labelled] + 0.8 * np.roll(nodes[:labelled], 1, axis=0))

    def labels(count):
        answers = rng.integers(0, labelled, size=count)
        queries = unit(places[answers] + 0.35 * unit(rng.normal(size=(count, d))))
        return queries.astype(dtype), [[int(answer)] for answer in answers]

    return nodes.astype(dtype), labels(labelled * per_node), labels(60), labels(200)


def objective(sphere, uncovered_weight=0.0, seed=1, m=9, c=4, d=5, lengths=False):
    rng = np.random.default_rng(seed)
    pairs = np.array([(i, j) for i in range(m) for j in sorted(rng.choice(c, size=rng.integers(1, 3), replace=False))])
    weights = rng.uniform(0.5, 2, size=len(pairs))
    weights /= np.bincount(pairs[:, 0], weights=weights)[pairs[:, 0]]
    others = np.where(rng.random(m) < 0.3, -np.inf, rng.normal(size=m))
    originals = rng.normal(size=(c, d))
    if sphere:
        originals = unit(originals)
    return ContrastiveObjective(
        unit(rng.normal(size=(m, d))),
        pairs[:, 0],
        pairs[:, 1],
        weights,
        others,
        originals,
        0.3,
        sphere,
        uncovered_weight,
        rejections(rng, pairs, m, c),
        rng.uniform(0.5, 2, size=(c, 1)) if lengths else None,
    )


def rejections(rng, pairs, m, c):
    """Some of the pairs that are no labels, each counting as several nodes."""
    labelled = {tuple(pair) for pair in pairs.tolist()}
    free = np.array([(i, j) for i in range(m) for j in range(c) if (i, j) not in labelled and rng.random() < 0.4])
    return free[:, 0], free[:, 1], np.log1p(rng.uniform(0.5, 5, size=len(free)))


def by_definition(one, vectors, strength):
    """The docstring's formula, term by term."""
    nodes = unit(vectors) if one.sphere else vectors
    total = strength * ((nodes - one.originals) ** 2).sum()
    lengths = 1 if one.lengths is None else one.lengths
    nodes, originals = nodes * lengths, one.originals * lengths
    if one.sphere:
        total += strength * ((np.linalg.norm(vectors, axis=1) - 1) ** 2).sum()
    times = np.ones((len(one.queries), len(nodes)))
    times[one.rejected[0], one.rejected[1]] = np.exp(one.rejected[2])
    for i, query in enumerate(one.queries):
        total += np.log(times[i] @ np.exp(nodes @ query / one.tau) + np.exp(one.others[i]))
    for i, query in enumerate(one.queries):
        own = set(one.column_of_pair[one.query_of_pair == i].tolist())
        places = [originals[j] if j in own else node for j, node in enumerate(nodes)]
        lost = np.log(times[i] @ np.exp(np.array(places) @ query / one.tau) + np.exp(one.others[i]))
        total += one.uncovered_weight * lost
    for i, j, weight in zip(one.query_of_pair, one.column_of_pair, one.weights, strict=True):
        total -= weight * one.queries[i] @ nodes[j] / one.tau
    return total


@pytest.mark.parametrize(("sphere", "lengths"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("block", [3, 1_000_000])
@pytest.mark.parametrize("uncovered_weight", [0.0, 0.7])
def test_value_and_gradient(sphere, lengths, block, uncovered_weight, monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.contrastive.objective.LOGITS_PER_BLOCK", block)
    one = objective(sphere, uncovered_weight, lengths=lengths)
    vectors = one.originals + 0.3 * np.random.default_rng(2).normal(size=one.originals.shape)
    value, gradient = one.value_and_gradient(vectors, 0.7)
    assert value == pytest.approx(by_definition(one, vectors, 0.7), rel=1e-12)
    for at in np.ndindex(vectors.shape):
        step = np.zeros_like(vectors)
        step[at] = 1e-5
        slope = (by_definition(one, vectors + step, 0.7) - by_definition(one, vectors - step, 0.7)) / 2e-5
        assert gradient[at] == pytest.approx(slope, abs=1e-6)


def test_threads_change_not_a_bit(monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.contrastive.objective.LOGITS_PER_BLOCK", 8)
    one = objective(True, uncovered_weight=0.5)
    vectors = one.originals + 0.1
    value, gradient = one.value_and_gradient(vectors, 0.7)
    with threads_to_map(3) as share:
        for _ in range(20):
            again, gradient_again = one.value_and_gradient(vectors, 0.7, share)
            assert again == value
            assert (gradient_again == gradient).all()


def test_an_evaluation_is_shared_out_to_as_many_threads_as_it_has_blocks_and_is_worth(monkeypatch):
    module = "nudge_rag.solvers.contrastive.objective"
    asked = []
    monkeypatch.setattr(f"{module}.count_threads", lambda work: asked.append(work) or 4)
    # 9 queries and 4 nodes of 5 numbers: two rows to a block of 8 logits.
    for logits, n_threads in ((8, 4), (20, 2), (36, 1)):
        monkeypatch.setattr(f"{module}.LOGITS_PER_BLOCK", logits)
        assert objective(False).n_threads == n_threads
    assert set(asked) == {9 * 4 * (2 * 5 + 250)}


@pytest.mark.parametrize("uncovered_weight", [0.0, 2.0])
def test_convex_for_dot_products(uncovered_weight):
    one, rng = objective(sphere=False, uncovered_weight=uncovered_weight), np.random.default_rng(3)
    for _ in range(200):
        first, second = (one.originals + rng.normal(size=one.originals.shape) for _ in range(2))
        ends = [one.value_and_gradient(vectors, 0.1)[0] for vectors in (first, second)]
        assert one.value_and_gradient((first + second) / 2, 0.1)[0] <= sum(ends) / 2 + 1e-9


def test_optimum_by_hand():
    """One node at d, one query q, one other node with logit b: v = d + s q, where s solves one equation.

    f(s) = log(exp((q.d + s) / tau) + exp(b)) - (q.d + s) / tau + strength s^2, so that
    2 strength s = (1 - p(s)) / tau with p the softmax of the node.
    """
    tau, strength, rival = 0.5, 3.0, 0.7
    node, query = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    step = 0.0
    for _ in range(200):
        p = 1 / (1 + np.exp((rival - 0.6 - step) / tau))
        step = step - 0.5 * (step - (1 - p) / (2 * strength * tau))
    wanted = LabeledQueries(query, [[0]], competitors=[[rival]])
    solver = NudgeContrastive(
        similarity="dot", taus=[tau], strengths=[strength], negatives=1, metric="MRR@1", iterations=200, refit=False
    )
    with pytest.warns(UserWarning, match="the best strength, 3, is the smallest"):
        fit = solver.fit(node, wanted, wanted)
    assert fit.gamma == pytest.approx(1 / strength)
    np.testing.assert_allclose(fit.vectors, node + step * query, atol=2e-3)


def test_lengths_are_kept_where_that_is_asked_for():
    """In a dot-product store with long and short nodes, which are scored as long as they are."""
    nodes, train, val, test = problem()
    nodes = nodes * np.random.default_rng(1).uniform(0.7, 1.4, size=(len(nodes), 1))
    fit = NudgeContrastive(similarity="dot", keep_lengths=True).fit(nodes, train, val)
    assert fit.improved
    found = np.linalg.norm(fit.vectors, axis=1)
    np.testing.assert_allclose(found, np.linalg.norm(nodes[fit.rows], axis=1), rtol=1e-12)

    def top1(vectors):
        return np.mean([best in rows for best, rows in zip((test[0] @ vectors.T).argmax(axis=1), test[1], strict=True)])

    assert top1(fit.embeddings()) > top1(nodes) + 0.2
    free = NudgeContrastive(similarity="dot").fit(nodes, train, val)
    assert not np.allclose(np.linalg.norm(free.vectors, axis=1), found)
    for similarity in ("cosine", "l2"):
        with pytest.raises(ValueError, match=f"only where the store ranks by dot product, not by {similarity}"):
            NudgeContrastive(similarity=similarity, keep_lengths=False)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_gains_keeps_lengths_and_leaves_all_else_alone(similarity, dtype):
    nodes, train, val, test = problem(dtype=dtype)
    nodes *= np.random.default_rng(1).uniform(0.98, 1.02, size=(len(nodes), 1)).astype(dtype)
    copies = nodes.copy()
    fit = NudgeContrastive(similarity=similarity).fit(nodes, train, val)
    assert fit.improved
    full = fit.embeddings()

    def top1(vectors):
        best = score_matrix(test[0], vectors, similarity).argmax(axis=1)
        return np.mean([found in answers for found, answers in zip(best, test[1], strict=True)])

    assert top1(full) > top1(nodes) + 0.2
    assert full.dtype == dtype
    assert nodes.tobytes() == copies.tobytes()
    untouched = np.setdiff1d(np.arange(len(nodes)), fit.rows)
    assert full[untouched].tobytes() == nodes[untouched].tobytes()
    if similarity != "dot":
        lengths = np.linalg.norm(fit.vectors, axis=1)
        np.testing.assert_allclose(lengths, np.linalg.norm(nodes[fit.rows], axis=1), rtol=1e-5)
    again = NudgeContrastive(similarity=similarity).fit(nodes, train, val)
    assert again.vectors.tobytes() == fit.vectors.tobytes()


def test_the_final_solution_learns_from_validation_labels_too():
    nodes, train, val, _ = problem()
    extra = (np.concatenate([val[0], nodes[20:21]]), [*val[1], [20]])
    fit = NudgeContrastive().fit(nodes, train, extra)
    assert fit.rows.tolist() == [*range(12), 20]
    assert fit.averaged
    assert fit.gamma == 1 / fit.averaged[0][1]
    taus, strengths = zip(*fit.averaged, strict=True)
    joined = (np.concatenate([train[0], extra[0]]), [*train[1], *extra[1]])
    alone = NudgeContrastive(taus=taus, strength=strengths).fit(nodes, joined)
    # Solved for from where the training labels led, and so not to the bit what is solved for from the originals.
    moved = np.linalg.norm(alone.vectors - nodes[fit.rows], axis=1).mean()
    assert np.linalg.norm(fit.vectors - alone.vectors, axis=1).mean() < 0.1 * moved
    for warm, cold in zip(fit.descents[-len(taus) :], alone.descents, strict=True):
        assert warm.objective == pytest.approx(cold.objective, rel=5e-3)
    assert (fit.vectors[-1] != nodes[20]).any()
    kept = NudgeContrastive(refit=False).fit(nodes, train, extra)
    assert kept.rows.tolist() == list(range(12))
    assert kept.gamma == fit.gamma


def test_descents_are_recorded():
    nodes, train, val, _ = problem()
    fit = NudgeContrastive(taus=[0.1], strengths=[10.0, 1.0], refit=False, iterations=200).fit(nodes, train, val)
    assert [(one.tau, one.strength) for one in fit.descents] == [(0.1, 10.0), (0.1, 1.0)]
    assert all(one.converged and 0 < one.iterations <= one.evaluations for one in fit.descents)
    short = NudgeContrastive(strength=1.0, iterations=1).fit(nodes, train)
    assert not short.descents[-1].converged


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_solutions_at_several_temperatures_are_averaged(similarity):
    nodes, train, _, _ = problem()
    nodes *= np.random.default_rng(1).uniform(0.9, 1.1, size=(len(nodes), 1))
    each = [
        NudgeContrastive(similarity=similarity, taus=[tau], strength=strength).fit(nodes, train).vectors
        for tau, strength in ((0.05, 3.0), (0.1, 1.0))
    ]
    both = NudgeContrastive(similarity=similarity, taus=[0.05, 0.1], strength=[3.0, 1.0]).fit(nodes, train)
    mean = (each[0] + each[1]) / 2
    if similarity != "dot":
        mean = unit(unit(each[0]) + unit(each[1])) * np.linalg.norm(nodes[both.rows], axis=1, keepdims=True)
    np.testing.assert_allclose(both.vectors, mean, atol=1e-12)
    assert both.averaged == ((0.05, 3.0), (0.1, 1.0))


def test_an_average_is_no_worse_on_validation_than_its_best_part():
    nodes, train, val, _ = problem(labelled=40, per_node=4)
    options = {"metric": "MRR@10", "refit": False}
    several = NudgeContrastive(taus=[0.05, 0.1, 0.2], **options).fit(nodes, train, val)

    def value(fit):
        scores = val[0] @ fit.embeddings().T
        own = scores[np.arange(len(scores)), [rows[0] for rows in val[1]]]
        ranks = (scores > own[:, None]).sum(axis=1)
        return np.where(ranks < 10, 1 / (ranks + 1), 0.0).mean()

    for tau, strength in several.averaged:
        # The same path as far as this point, so the same solution.
        strengths = [one.strength for one in several.descents if one.tau == tau and one.strength >= strength]
        part = NudgeContrastive(taus=[tau], strengths=strengths, **options).fit(nodes, train, val)
        assert value(several) >= value(part) - 1e-12


def test_nothing_to_gain_keeps_every_bit():
    nodes = np.eye(4)
    fit = NudgeContrastive().fit(nodes, (np.eye(4)[:2], [[0], [1]]), (np.eye(4)[:2], [[0], [1]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == nodes.tobytes()


def test_competitors_stand_for_the_nodes_that_a_solver_is_not_given():
    nodes, train, val, _ = problem()
    solver = NudgeContrastive(negatives=48)
    whole = solver.fit(nodes, train, val)
    parts = [LabeledQueries(*part, competitors=part[0] @ nodes[12:].T) for part in (train, val)]
    part = solver.fit(nodes[:12], *parts)
    assert part.averaged == whole.averaged
    np.testing.assert_allclose(part.vectors, whole.vectors, atol=1e-6)
    blocks = solver.fit(nodes[:12], train, val, background=iter([nodes[12:30], nodes[30:]]))
    np.testing.assert_allclose(blocks.vectors, whole.vectors, atol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_rejected_nodes_are_pushed_away(similarity):
    nodes, (queries, answers), _, _ = problem()
    rejected = [(rows[0] + 1) % 12 for rows in answers]
    both = [[rows[0], other] for rows, other in zip(answers, rejected, strict=True)]
    options = {"similarity": similarity, "taus": [0.1], "strength": 3.0}

    def margins(labels, **more):
        full = NudgeContrastive(**options, **more).fit(nodes, labels).embeddings()
        scores = score_matrix(queries, full, similarity)
        every = np.arange(len(queries))
        return scores[every, [rows[0] for rows in answers]] - scores[every, rejected]

    plain = margins(LabeledQueries(queries, answers))
    without = margins(LabeledQueries(queries, both, [[1.0, 0.0]] * len(both)))
    np.testing.assert_allclose(without, plain, atol=1e-12)
    ignored = margins(LabeledQueries(queries, both, [[1.0, -1.0]] * len(both)), rejection=0.0)
    np.testing.assert_allclose(ignored, plain, atol=1e-12)
    once = margins(LabeledQueries(queries, both, [[1.0, -1.0]] * len(both)))
    twice = margins(LabeledQueries(queries, both, [[1.0, -2.0]] * len(both)))
    assert plain.mean() + 0.02 < once.mean() < twice.mean()


def test_rejected_nodes_that_do_not_move_count_among_the_others():
    """f(s) of `test_optimum_by_hand`, with a rejected node of logit 0.5 / tau that counts as 1 + 4 nodes."""
    tau, strength = 0.5, 3.0
    nodes, query = np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([[1.0, 0.0]])
    step = 0.0
    for _ in range(200):
        p = 1 / (1 + (1 + 4) * np.exp((0.5 - 1 - step) / tau))
        step = step - 0.5 * (step - (1 - p) / (2 * strength * tau))
    solver = NudgeContrastive(
        similarity="dot", taus=[tau], strength=strength, negatives=5, rejection=2.0, iterations=200
    )
    fit = solver.fit(nodes, LabeledQueries(query, [[0, 1]], [[1.0, -2.0]]))
    assert fit.rows.tolist() == [0]
    np.testing.assert_allclose(fit.vectors, nodes[:1] + step * query, atol=2e-3)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_through_a_store(tmp_path, similarity):
    nodes, train, _, test = problem()
    store = MappingStore({f"n{i}": row.tolist() for i, row in enumerate(nodes)}, similarity=similarity, key="test")
    embedded = {f"q{i}": row for i, row in enumerate(np.concatenate([train[0], test[0]]))}
    answers = [rows[0] for rows in [*train[1], *test[1]]]
    pairs = LabeledPairs.from_pairs((text, f"n{row}") for text, row in zip(embedded, answers, strict=True))
    options = {"solver": "nudge-contrastive", "versions": tmp_path}
    nudge = tune(store, pairs, lambda texts: np.array([embedded[text] for text in texts]), **options)
    assert nudge.solver == "nudge-contrastive"
    assert nudge.improves
    assert nudge.push().pushed
    assert nudge.rollback().exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taus": [0.0]}, r"taus must be positive, got \[0.0\]"),
        ({"strengths": []}, "strengths must be positive"),
        ({"uncovered_weight": -1}, "uncovered_weight must be at least 0, got -1"),
        ({"offset": -0.1}, "offset must be at least 0, got -0.1"),
        ({"strength": 0.0, "taus": [0.05]}, r"strength must be positive, got \(0.0,\)"),
        ({"strength": [1.0, 2.0, 3.0], "taus": [0.05]}, r"one number or one for each of 1 taus, got \[1.0, 2.0, 3.0\]"),
        ({"iterations": 0}, "iterations must be positive"),
        ({"rejection": -1}, "rejection must be at least 0, got -1"),
        ({"negatives": -1}, "negatives must be at least 0, got -1"),
        ({"similarity": "jaccard"}, "similarity must be 'cosine'"),
        ({"metric": "best@3"}, "family must be one of"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NudgeContrastive(**options)


def test_bad_input():
    nodes, train, val, _ = problem()
    with pytest.raises(ValueError, match="validation set has no query"):
        NudgeContrastive().fit(nodes, train)
    with pytest.raises(ValueError, match="names node 99"):
        NudgeContrastive().fit(nodes, (train[0][:1], [[99]]), val)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_descent_from_another_solution_ends_where_that_from_the_originals_does(similarity):
    nodes, (queries, answers), _, _ = problem()
    nodes = nodes * np.random.default_rng(1).uniform(0.9, 1.1, size=(len(nodes), 1))
    solver = NudgeContrastive(similarity=similarity, taus=[0.1], strength=3.0)
    whole = solver.fit(nodes, (queries, answers))
    # A solution for fewer labels, of a node that the others lack too.
    fewer = solver.fit(nodes, (np.concatenate([queries[:90], nodes[40:41]]), [*answers[:90], [40]]))
    warm = solver.starting_from(fewer.rows, fewer.vectors).fit(nodes, (queries, answers))
    assert warm.rows.tolist() == whole.rows.tolist()
    assert warm.descents[0].objective == pytest.approx(whole.descents[0].objective, rel=5e-3)
    moved = np.linalg.norm(whole.vectors - nodes[whole.rows], axis=1).mean()
    assert np.linalg.norm(warm.vectors - whole.vectors, axis=1).mean() < 0.1 * moved
    assert warm.descents[0].evaluations < whole.descents[0].evaluations
    lengths = np.linalg.norm(nodes[warm.rows], axis=1)
    assert np.allclose(np.linalg.norm(warm.vectors, axis=1), lengths) == (similarity == "cosine")
    again = solver.starting_from(whole.rows, whole.vectors).fit(nodes, (queries, answers))
    assert again.descents[0].evaluations <= 3


@pytest.mark.parametrize("most_kept", [10_000_000, 1])
def test_a_descent_starts_from_the_solutions_that_an_average_is_made_of_if_they_were_kept(most_kept, monkeypatch):
    monkeypatch.setattr("nudge_rag.solvers.contrastive.solver.MOST_KEPT", most_kept)
    nodes, train, _, _ = problem()
    points = [(0.05, 3.0), (0.2, 30.0)]
    solver = NudgeContrastive(iterations=100).at_points(points)
    fit = solver.fit(nodes, train)
    alone = [NudgeContrastive(iterations=100).at_points([point]).fit(nodes, train) for point in points]
    again = solver.starting_from_fit(fit).fit(nodes, train)
    if most_kept == 1:
        assert fit.parts == ()
        # The average is no solution of either point: both descend again.
        assert all(descent.iterations > 1 for descent in again.descents)
    else:
        for part, one in zip(fit.parts, alone, strict=True):
            assert (part == one.vectors).all()
        # Each begins where it ended: one step tells that there is nothing left to gain.
        assert [descent.iterations for descent in again.descents] == [1, 1]
    assert np.abs(again.vectors - fit.vectors).max() < 0.05
    assert alone[0].parts == ()
