"""Torch tensors in, torch tensors out, with what numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nudge_rag import LabeledQueries, NudgeM, NudgeN
from nudge_rag.solvers.scoring import fixed_scores
from nudge_rag.solvers.step_search import products


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def problem(seed=0, n=300, d=24, labelled=40, dtype=np.float32):
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d))) * rng.uniform(0.9, 1.1, size=(n, 1))
    places = nodes[:labelled] + 1.4 * unit(rng.normal(size=(labelled, d)))

    def labels(count, upto):
        rows = rng.integers(0, upto, size=count)
        queries = np.where(rows[:, None] < labelled, places[np.minimum(rows, labelled - 1)], nodes[rows])
        queries = queries + 0.6 * rng.normal(size=(count, d)) / np.sqrt(d)
        return queries.astype(dtype), [[int(row)] for row in rows]

    return nodes.astype(dtype), labels(200, labelled), labels(80, 60)


def tensors(nodes, *parts):
    return torch.from_numpy(nodes), *((torch.from_numpy(queries), answers) for queries, answers in parts)


SOLVERS = [
    NudgeN(),
    NudgeN(metric="nDCG@10"),
    NudgeN(metric="Recall@5", search="exact"),
    NudgeN(metric="MRR@3", similarity="l2"),
    NudgeN(metric="nDCG@5", similarity="dot", search="exact"),
    NudgeN(gamma=0.3),
    NudgeM(),
    NudgeM(metric="nDCG@10"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{s.name}-{s.similarity}-{s.metric}-{s.gamma}")
@pytest.mark.parametrize("small_blocks", [False, True])
def test_same_as_numpy(solver, dtype, small_blocks, monkeypatch):
    arrays = problem(dtype=dtype)
    expected = solver.fit(*arrays)
    if small_blocks:
        monkeypatch.setattr(fixed_scores, "SCORES_ON_DEVICE", 1_700)
        monkeypatch.setattr(products, "SCORES_ON_DEVICE", 300)
    nodes, train, val = tensors(*arrays)
    fit = solver.fit(nodes, train, val)
    assert expected.gamma > 0
    assert fit.gamma == pytest.approx(expected.gamma, abs=1e-4)
    np.testing.assert_allclose(fit.curve.values, expected.curve.values, atol=1e-9)
    assert isinstance(fit.vectors, torch.Tensor)
    assert (fit.vectors.dtype, fit.vectors.device) == (nodes.dtype, nodes.device)
    np.testing.assert_allclose(fit.vectors.numpy(), expected.vectors, atol=1e-4)
    full = fit.embeddings()
    assert isinstance(full, torch.Tensor)
    np.testing.assert_allclose(full.numpy(), expected.embeddings(), atol=1e-4)
    untouched = np.setdiff1d(np.arange(len(nodes)), fit.rows)
    assert full.numpy()[untouched].tobytes() == arrays[0][untouched].tobytes()


@pytest.mark.parametrize("solver", [NudgeN(metric="nDCG@5"), NudgeM()])
def test_background_competitors_and_grades(solver):
    nodes, train, val = problem(3)
    extra = unit(np.random.default_rng(9).normal(size=(70, 24))).astype(np.float32)
    competitors = np.sort(np.random.default_rng(8).uniform(0.2, 0.5, size=(80, 5)))[:, ::-1]
    val = LabeledQueries(*val, grades=[[2.0]] * 80, competitors=competitors)
    expected = solver.fit(nodes, train, val, background=extra)
    on_device = LabeledQueries(torch.from_numpy(val.vectors), val.answers, val.grades, competitors)
    for background in (torch.from_numpy(extra), [torch.from_numpy(extra[:30]), torch.from_numpy(extra[30:])], extra):
        fit = solver.fit(torch.from_numpy(nodes), tensors(nodes, train)[1], on_device, background=background)
        assert fit.gamma == pytest.approx(expected.gamma, abs=1e-5)
        np.testing.assert_allclose(fit.curve.values, expected.curve.values, atol=1e-9)


def test_gradients_are_not_followed_and_nothing_to_gain_keeps_every_bit():
    nodes = torch.eye(4, requires_grad=True)
    queries = torch.eye(4)[[1]] + 0.1
    fit = NudgeN().fit(nodes, (queries, [[0]]), (torch.eye(4)[[3]], [[3]]))
    assert fit.gamma == 0
    assert fit.embeddings().detach().numpy().tobytes() == np.eye(4, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda nodes: nodes.half(), TypeError, "float32 or float64, got torch.float16"),
        (lambda nodes: nodes[0], ValueError, r"two dimensions \(rows, dimension\), got shape \(24,\)"),
        (lambda nodes: nodes[:30], ValueError, r"rows must be in 0..29"),
        (lambda nodes: nodes * (torch.arange(300) != 250)[:, None], ValueError, "embeddings row 250 is a zero vector"),
        (lambda nodes: nodes + torch.tensor(float("nan")), ValueError, "embeddings row 0 holds NaN"),
    ],
)
def test_bad_input(change, error, message):
    nodes, train, val = tensors(*problem())
    with pytest.raises(error, match=message):
        NudgeN().fit(change(nodes), train, val)
