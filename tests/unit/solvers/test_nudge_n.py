"""NUDGE-N against its own optimisation problem, brute-force validation and every case that peers get wrong."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag.common.similarity import score_matrix
from nudge_rag.evaluation.metrics import parse_metric
from nudge_rag.solvers import LabeledQueries, NudgeN
from nudge_rag.solvers.labels import prepare_labels
from nudge_rag.solvers.scoring.validation import ValidationScorer


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed, n=30, d=6, train=20, val=12, dtype=np.float64, answers=2):
    """Queries are noisy copies of the nodes they are labelled with."""
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))

    def labels(count):
        chosen = [
            sorted(rng.choice(n, size=rng.integers(1, answers + 1), replace=False).tolist()) for _ in range(count)
        ]
        queries = np.stack([nodes[rows].mean(axis=0) for rows in chosen]) + rng.normal(size=(count, d)) * 0.3
        return unit(queries).astype(dtype), chosen

    return nodes.astype(dtype), labels(train), labels(val)


def accuracy(nodes, queries, answers, k):
    """Mean hits in the top k / min(k, answers), one query at a time; a tie does not push an answer out."""
    total = 0.0
    for query, wanted in zip(queries, answers, strict=True):
        scores = nodes @ query
        hits = sum((scores > scores[row] + 1e-12).sum() < k for row in wanted)
        total += min(1.0, hits / min(k, len(wanted)))
    return total / len(queries)


@given(st.integers(0, 10_000), st.floats(0.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_moved_nodes_are_feasible_and_no_feasible_point_is_better(seed, gamma):
    nodes, train, _ = problem(seed)
    fit = NudgeN(gamma=gamma).fit(nodes, train)
    rng = np.random.default_rng(seed)
    for row, moved in zip(fit.rows, fit.vectors, strict=True):
        pull = sum(query for query, wanted in zip(*train, strict=True) if row in wanted)
        if row in fit.opposed:
            assert pull @ nodes[row] < 0
            assert (moved == nodes[row]).all()
            continue
        assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-12)
        assert ((moved - nodes[row]) ** 2).sum() <= gamma + 1e-9
        others = unit(np.concatenate([moved + rng.normal(size=(200, 6)) * 0.05, rng.normal(size=(200, 6))]))
        others = others[((others - nodes[row]) ** 2).sum(axis=1) <= gamma]
        assert (others @ pull <= moved @ pull + 1e-9).all()


@pytest.mark.slow
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 10]))
@settings(max_examples=40, deadline=None)
def test_curve_is_the_accuracy_of_the_moved_embeddings(seed, k):
    nodes, train, val = problem(seed)
    fit = NudgeN(metric=f"CappedRecall@{k}").fit(nodes, train, val)
    for gamma, value in zip(fit.curve.gammas, fit.curve.values, strict=True):
        moved = NudgeN(gamma=gamma).fit(nodes, train).embeddings()
        assert value == pytest.approx(accuracy(moved, *val, k))
    first_best = int(np.flatnonzero(np.isclose(fit.curve.values, fit.curve.values.max(), atol=1e-12))[0])
    assert fit.gamma == fit.curve.gammas[first_best]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_curve_follows_the_similarity_where_lengths_differ(similarity):
    nodes, train, (queries, answers) = problem(5)
    rng = np.random.default_rng(0)
    nodes, queries = nodes * rng.uniform(0.5, 2, (30, 1)), queries * rng.uniform(0.5, 2, (12, 1))
    fit = NudgeN(similarity=similarity).fit(nodes, train, (queries, answers))
    for gamma, value in zip(fit.curve.gammas, fit.curve.values, strict=True):
        moved = NudgeN(gamma=gamma).fit(nodes, train).embeddings()
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.linalg.norm(nodes, axis=1))
        best = score_matrix(queries, moved, similarity).argmax(axis=1)
        assert value == pytest.approx(np.mean([best[i] in wanted for i, wanted in enumerate(answers)]))


def test_background_competes_and_is_never_returned():
    nodes, train, val = problem(7, n=60)
    train = (train[0], [[row % 40 for row in rows] for rows in train[1]])
    val = (val[0], [[row % 40 for row in rows] for rows in val[1]])
    whole = NudgeN().fit(nodes, train, val)
    parts = NudgeN().fit(nodes[:40], train, val, background=iter([nodes[40:47], nodes[47:]]))
    assert parts.curve.values.tolist() == whole.curve.values.tolist()
    assert parts.embeddings().shape == (40, 6)
    assert (parts.embeddings() == whole.embeddings()[:40]).all()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_many_answers_a_query_rank_as_few_do(similarity, monkeypatch):
    nodes, train, val = problem(5, n=80, train=60, val=40, answers=60)
    nodes = nodes * np.random.default_rng(1).uniform(0.8, 1.2, size=(80, 1))
    fits, scores = [], []
    for enough in (0, 10**9):
        monkeypatch.setattr("nudge_rag.solvers.scoring.blocks.WORTH_SELECTING", enough)
        fits.append(NudgeN(metric="nDCG@5", similarity=similarity).fit(nodes, train, val))
        size = {"n_nodes": 80, "dimension": nodes.shape[1], "dtype": nodes.dtype}
        judged, rows = prepare_labels(val, "validation", **size), np.arange(0, 80, 2)
        scorer = ValidationScorer(judged, nodes, rows, None, parse_metric("nDCG@5"), similarity)
        scores.append(scorer.per_query(nodes[rows] + 0.1 * np.random.default_rng(2).normal(size=(40, nodes.shape[1]))))
    assert fits[0].curve.values.tolist() == fits[1].curve.values.tolist()
    assert scores[0].tolist() == scores[1].tolist()
    assert scores[0].std() > 0


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("metric", ["CappedRecall@1", "nDCG@3"])
@pytest.mark.parametrize("seed", [5, 6])
def test_the_curve_does_not_depend_on_which_nodes_are_looked_at_first(similarity, metric, seed, monkeypatch):
    nodes, train, val = problem(seed, n=120, train=90, val=60)
    nodes = nodes * np.random.default_rng(1).uniform(0.9, 1.1, size=(120, 1))
    # Other nodes, which do not move, outrank some of the answers.
    others = np.random.default_rng(seed).normal(size=(6, nodes.shape[1]))
    curves = []
    for n_columns, fewest in ((3, 2), (10, 1), (1, 10**9)):
        monkeypatch.setattr("nudge_rag.solvers.step_search.ranks.COLUMNS_PER_GROUP", n_columns)
        monkeypatch.setattr("nudge_rag.solvers.step_search.ranks.FEWEST_GROUPS", fewest)
        fit = NudgeN(metric=metric, similarity=similarity).fit(nodes, train, val, background=others)
        curves.append(fit.curve.values.tolist())
    assert curves[0] == curves[1] == curves[2]
    assert np.ptp(curves[0]) > 0


def test_result_depends_neither_on_block_sizes_nor_on_threads(monkeypatch):
    nodes, train, val = problem(3, n=200, train=150, val=60)
    whole = NudgeN(metric="nDCG@5").fit(nodes, train, val)
    monkeypatch.setattr("nudge_rag.solvers.scoring.fixed_scores.SCORES_PER_BLOCK", 70)
    monkeypatch.setattr("nudge_rag.solvers.scoring.blocks.SCORES_PER_BLOCK", 300)
    monkeypatch.setattr("nudge_rag.solvers.step_search.products.SCORES_IN_CACHE", 300)
    monkeypatch.setattr("nudge_rag.solvers.scoring.fixed_scores.QUERIES_PER_BLOCK", 7)
    monkeypatch.setattr("nudge_rag.solvers.targets.PAIRS_PER_CHUNK", 5)
    monkeypatch.setattr("nudge_rag.solvers.targets.ROWS_PER_CHUNK", 4)
    monkeypatch.setattr("nudge_rag.solvers.step_search.arcs.ROWS_PER_CHUNK", 3)
    for room in ("scoring.fixed_scores", "step_search.ranks", "step_search.arcs", "targets"):
        monkeypatch.setattr(f"nudge_rag.solvers.{room}.count_threads", lambda multiplications: 3)
    blocked = NudgeN(metric="nDCG@5").fit(nodes, train, val)
    assert np.allclose(blocked.curve.values, whole.curve.values)
    assert blocked.vectors.tobytes() == whole.vectors.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_inputs_are_not_modified(dtype):
    nodes, train, val = problem(1, dtype=dtype)
    before = nodes.copy(), train[0].copy(), val[0].copy()
    fit = NudgeN().fit(nodes, train, val)
    assert fit.vectors.dtype == fit.embeddings().dtype == dtype
    assert all((new == old).all() for new, old in zip((nodes, train[0], val[0]), before, strict=True))
    untouched = np.setdiff1d(np.arange(30), fit.rows)
    assert fit.embeddings()[untouched].tobytes() == nodes[untouched].tobytes()
    nodes.flags.writeable = False
    NudgeN().fit(nodes, train, val)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_query_identical_to_its_node_keeps_it_bit_for_bit(dtype):
    nodes, _, val = problem(2, dtype=dtype)
    fit = NudgeN(gamma=0.3).fit(nodes, (nodes[:3], [[0], [1], [2]]), val)
    assert fit.vectors.tobytes() == nodes[:3].tobytes()
    scaled = NudgeN(gamma=0.3).fit(nodes, (nodes[:3] * 7, [[0], [1], [2]]), val)
    assert np.isfinite(scaled.vectors).all()
    assert np.allclose(scaled.vectors, nodes[:3], atol=1e-6)


def test_node_opposite_to_its_queries_stays_and_is_listed():
    nodes = np.eye(3)
    for query in (-nodes[0], np.array([-0.6, 0.8, 0.0])):
        fit = NudgeN(gamma=0.4).fit(nodes, (query[None], [[0]]))
        assert fit.opposed.tolist() == [0]
        assert fit.embeddings().tobytes() == nodes.tobytes()


def test_queries_that_cancel_out_leave_their_node_in_place():
    queries = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    fit = NudgeN(gamma=0.4).fit(np.eye(3), (queries, [[0], [0]]))
    assert fit.embeddings().tobytes() == np.eye(3).tobytes()


def test_each_query_counts_once_however_long():
    nodes, (queries, answers), val = problem(4)
    lengths = np.random.default_rng(0).uniform(0.01, 100, (len(queries), 1))
    short, long = NudgeN().fit(nodes, (queries, answers), val), NudgeN().fit(nodes, (queries * lengths, answers), val)
    assert short.gamma == long.gamma
    assert np.allclose(short.vectors, long.vectors, atol=1e-12)


def test_a_label_repeated_within_a_query_counts_once():
    nodes, (queries, answers), val = problem(4)
    repeated = [[*rows, rows[0], rows[0]] for rows in answers]
    once, twice = NudgeN().fit(nodes, (queries, answers), val), NudgeN().fit(nodes, (queries, repeated), val)
    assert once.vectors.tobytes() == twice.vectors.tobytes()
    doubled = (val[0], [rows * 2 for rows in val[1]])
    assert NudgeN().fit(nodes, (queries, answers), doubled).curve.values.tolist() == once.curve.values.tolist()


def test_validation_queries_without_answers_are_left_out_counted_and_warned_about():
    nodes, train, (queries, answers) = problem(6)
    clean = NudgeN().fit(nodes, train, (queries, answers))
    with pytest.warns(UserWarning, match=r"2 of 14 validation queries have no answers"):
        fit = NudgeN().fit(nodes, train, (np.concatenate([queries, queries[:2]]), [*answers, [], []]))
    assert fit.val_without_answers == 2
    assert fit.gamma == clean.gamma
    assert fit.curve.values.tolist() == clean.curve.values.tolist()


def test_grades_of_zero_or_less_are_not_answers():
    nodes, train, (queries, answers) = problem(6)
    graded = LabeledQueries(queries, [[*rows, 29] for rows in answers], [[2.0] * len(rows) + [0.0] for rows in answers])
    assert NudgeN().fit(nodes, train, graded).gamma == NudgeN().fit(nodes, train, (queries, answers)).gamma


def test_nothing_to_gain_changes_nothing():
    nodes = np.eye(4, dtype=np.float32) * np.array([[1], [1], [1 + 1e-7], [1]], dtype=np.float32)
    fit = NudgeN().fit(nodes, (np.eye(4)[[1]] + 0.1, [[0]]), (np.eye(4)[[3]], [[3]]))
    assert (fit.gamma, fit.improved) == (0.0, False)
    assert fit.embeddings().tobytes() == nodes.tobytes()


def at_degrees(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_range_is_extended_when_the_best_gamma_is_its_end():
    """A query at x degrees is won from node 1, at 85, once node 0 has turned past 2 x - 85 degrees.

    The first one is won at 40 degrees, by the grid's last point (0.48 is 40.5 degrees); the second at 47, beyond it.
    """
    nodes, train, val = at_degrees(0, 85), (at_degrees(80), [[0]]), (at_degrees(62.5, 66), [[0], [0]])
    fit = NudgeN().fit(nodes, train, val)
    needed = 2 - 2 * np.cos(np.deg2rad(47))
    assert needed <= fit.gamma <= needed + 0.02
    assert fit.improved
    assert not fit.at_edge
    with pytest.warns(UserWarning, match="the largest that was tried"):
        assert NudgeN(extend=False).fit(nodes, train, val).gamma == 0.48


def test_best_gamma_at_the_very_end_is_warned_about():
    """Queries won at 40, 58.3, 73.5 and 77.9 degrees lead the search on, to the end of the arc at 78."""
    nodes, wins = at_degrees(0, 81.9), np.array([40, 58.3, 73.5, 77.9])
    train, val = (at_degrees(78), [[0]]), (at_degrees(*(wins + 81.9) / 2), [[0]] * 4)
    with pytest.warns(UserWarning, match="is the largest there is"):
        fit = NudgeN().fit(nodes, train, val)
    assert fit.at_edge
    assert fit.gamma == pytest.approx(2 - 2 * np.cos(np.deg2rad(78)))
    assert np.allclose(fit.vectors, train[0])


def test_curve_starts_at_zero_without_warning_inside_the_range():
    nodes, train, val = problem(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = NudgeN().fit(nodes, train, val)
    assert fit.curve.gammas[0] == 0.0
    assert fit.curve.metric == "CappedRecall@1"


def bad_inputs():
    nodes, train, val = problem(0)
    zero, nan, inf = nodes.copy(), nodes.copy(), nodes.copy()
    zero[7], nan[8, 2], inf[9, 1] = 0, np.nan, np.inf
    bad_query = train[0].copy()
    bad_query[3] = 0
    nan_query = val[0].copy()
    nan_query[4, 0] = np.nan
    return {
        "zero node": (zero, train, val, ValueError, "row 7 is a zero vector"),
        "nan node": (nan, train, val, ValueError, "row 8 holds NaN"),
        "inf node": (inf, train, val, ValueError, "row 9 holds NaN or infinite"),
        "zero query": (nodes, (bad_query, train[1]), val, ValueError, "training query embeddings row 3 is a zero"),
        "nan query": (nodes, train, (nan_query, val[1]), ValueError, "validation query embeddings row 4 holds"),
        "negative index": (nodes, (train[0], [[-1], *train[1][1:]]), val, ValueError, "query 0 names node -1"),
        "index too high": (nodes, train, (val[0], [*val[1][:-1], [30]]), ValueError, "query 11 names node 30"),
        "float index": (nodes, (train[0], [[0.5], *train[1][1:]]), val, TypeError, "integer row indices"),
        "bool index": (nodes, (train[0], [[True], *train[1][1:]]), val, TypeError, "integer row indices"),
        "dimension": (nodes, (train[0][:, :4], train[1]), val, ValueError, "dimension 4, the nodes have 6"),
        "lengths": (nodes, (train[0], train[1][:-1]), val, ValueError, "20 query embeddings but 19 answer lists"),
        "no train": (nodes, (np.zeros((0, 6)), []), val, ValueError, "training set has no query"),
        "no val": (nodes, train, (np.zeros((0, 6)), []), ValueError, "validation set has no query"),
        "val is None": (nodes, train, None, ValueError, "validation set has no query"),
        "one dimension": (nodes[0], train, val, ValueError, "two dimensions"),
        "text": (nodes.astype(str), train, val, TypeError, "numeric"),
    }


@pytest.mark.parametrize("case", list(bad_inputs()))
def test_bad_input_names_what_was_passed(case):
    nodes, train, val, error, message = bad_inputs()[case]
    with pytest.raises(error, match=message):
        NudgeN().fit(nodes, train, val)


def test_sets_whose_queries_all_lack_answers_are_empty_sets():
    nodes, train, val = problem(0)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="training set has no query"):
        NudgeN().fit(nodes, (train[0], [[]] * 20), val)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="validation set has no query"):
        NudgeN().fit(nodes, train, (val[0], [[]] * 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -0.1}, "gamma must be between 0 and 4"),
        ({"gamma": float("nan")}, "gamma must be between"),
        ({"gammas": [0.1, 5]}, "gammas must be between 0 and 4"),
        ({"gamma": 0.1, "gammas": [0.2]}, "not both"),
        ({"similarity": "euclid"}, "similarity must be"),
        ({"metric": "nope@3"}, "nope"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NudgeN(**options)


def test_memory_mapped_embeddings(tmp_path):
    nodes, train, val = problem(9, dtype=np.float32)
    np.save(tmp_path / "nodes.npy", nodes)
    mapped = np.load(tmp_path / "nodes.npy", mmap_mode="r")
    assert (
        NudgeN().fit(mapped, train, val).embeddings().tobytes()
        == NudgeN().fit(nodes, train, val).embeddings().tobytes()
    )
