"""nudge_rag.compat against nudge-ft 0.1.2 itself, where nudge-ft is right, on random and on real data."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from nudge_rag import compat

nudge_ft = pytest.importorskip("nudge", reason="nudge-ft is not installed: pip install nudge-ft==0.1.2")


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_problem(seed, n=300, d=24, train=150, val=80, answers=3):
    rng = np.random.default_rng(seed)
    nodes = unit(rng.normal(size=(n, d)))

    def labels(count):
        chosen = [rng.choice(n, size=rng.integers(1, answers + 1), replace=False).tolist() for _ in range(count)]
        queries = np.stack([nodes[rows].mean(axis=0) for rows in chosen])
        return {"q_embs": unit(queries + rng.normal(size=(count, d)) * 0.25), "q_ans_indx": chosen}

    return nodes, labels(train), labels(val)


def beir_problem(folder: Path):
    """Training queries with an odd number validate, the others train, so that no dev split is needed."""
    arrays = np.load(folder / "all-MiniLM-L6-v2.npz")
    ids = [json.loads(line)["_id"] for line in (folder / "corpus.jsonl").open()]
    rows = {node: row for row, node in enumerate(ids)}
    queries = {
        query: row for row, query in enumerate(sorted(json.loads(x)["_id"] for x in (folder / "queries.jsonl").open()))
    }
    answers: dict[str, list[int]] = {}
    for line in (folder / "qrels" / "train.tsv").read_text().splitlines()[1:]:
        query, node, _ = line.split("\t")
        answers.setdefault(query, []).append(rows[node])
    names = sorted(answers)
    parts = []
    for part in (names[::2], names[1::2]):
        parts.append(
            {"q_embs": unit(arrays["Q"][[queries[q] for q in part]]), "q_ans_indx": [answers[q] for q in part]}
        )
    return unit(arrays["D"]), *parts


def both(name, nodes, train, val, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = getattr(nudge_ft, name)(device="cpu").finetune_embeddings(nodes, train, val, *args, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the best gamma")  # theirs stops at 0.48 too, without a word
        ours = getattr(compat, name)().finetune_embeddings(nodes, train, val, *args, **kwargs)
    return theirs, ours


def step_of(moved, nodes, rows):
    return float(np.linalg.norm(moved[rows] - nodes[rows], axis=1).max())


def assert_n_equal(nodes, train, val, **kwargs):
    theirs, ours = both("NUDGEN", nodes, train, val, **kwargs)
    assert np.isfinite(theirs).all()
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def assert_m_equal(nodes, train, val, **kwargs):
    theirs, ours = both("NUDGEM", nodes, train, val, **kwargs)
    covered = sorted({row for rows in train["q_ans_indx"] for row in rows})
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1.0, step_of(theirs, nodes, covered)), rtol=0)


@pytest.mark.parametrize("val_k", [1, 10])
@pytest.mark.parametrize("seed", range(8))
def test_nudge_n_on_random_data(seed, val_k):
    assert_n_equal(*random_problem(seed), val_k=val_k)


@pytest.mark.parametrize("seed", range(8))
def test_nudge_m_on_random_data(seed):
    assert_m_equal(*random_problem(seed))


@pytest.mark.parametrize("val_k", [1, 10])
@pytest.mark.parametrize("seed", range(4))
def test_nontrain_embeddings(seed, val_k):
    nodes, train, val = random_problem(seed)
    others = unit(np.random.default_rng(99 + seed).normal(size=(1000, nodes.shape[1])))
    assert_n_equal(nodes, train, val, nontrain_embeddings=others, val_k=val_k)
    assert_m_equal(nodes, train, val, nontrain_embeddings=others)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.48, 1.5])
def test_fixed_gamma(gamma):
    nodes, train, val = random_problem(3)
    assert_n_equal(nodes, train, val, gamma=gamma)
    assert_m_equal(nodes, train, val, gamma=gamma)


@pytest.fixture(params=["scifact", "stackfaq"])
def real_data(request, beir_data):
    return beir_problem(beir_data / request.param)


@pytest.mark.parametrize("val_k", [1, 10])
def test_nudge_n_on_real_data(real_data, val_k):
    assert_n_equal(*real_data, val_k=val_k)


def test_nudge_m_on_real_data(real_data):
    assert_m_equal(*real_data)


@pytest.mark.parametrize("gamma", [0.1, 0.3])
def test_fixed_gamma_on_real_data(real_data, gamma):
    assert_n_equal(*real_data, gamma=gamma)
    assert_m_equal(*real_data, gamma=gamma)


@pytest.mark.parametrize("val_k", [1, 10])
def test_nontrain_embeddings_on_real_data(real_data, val_k):
    """Nodes that no query names move to nontrain_embeddings, as nudge-ft suggests for saving memory."""
    nodes, train, val = real_data
    named = sorted({row for labels in (train, val) for rows in labels["q_ans_indx"] for row in rows})
    rest = np.setdiff1d(np.arange(len(nodes)), named)
    if len(rest) < val_k:
        named, rest = list(range(len(nodes))), np.arange(len(nodes))[::-1][:20]
        rest_embeddings = unit(nodes[rest] + 0.5)
    else:
        rest_embeddings = nodes[rest]
    position = {row: at for at, row in enumerate(named)}
    train, val = (
        {"q_embs": labels["q_embs"], "q_ans_indx": [[position[row] for row in rows] for rows in labels["q_ans_indx"]]}
        for labels in (train, val)
    )
    # nudge-ft needs at least val_k rows in every batch, so one batch holds them all.
    options = {"nontrain_embeddings": rest_embeddings, "val_batch_size": len(nodes) + 1}
    assert_n_equal(nodes[named], train, val, val_k=val_k, **options)
    assert_m_equal(nodes[named], train, val, **options)


def test_where_nudge_ft_gives_nan_ours_keeps_the_node():
    nodes, train, val = random_problem(5)
    train["q_embs"][0], train["q_ans_indx"][0] = nodes[4], [4]
    train["q_ans_indx"] = [[row for row in rows if row != 4] or [5] for rows in train["q_ans_indx"][1:]]
    train["q_ans_indx"].insert(0, [4])
    ours = compat.NUDGEN().finetune_embeddings(nodes, train, val, gamma=0.1)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours[4], nodes[4], atol=1e-6)


def test_where_nudge_ft_drops_to_gamma_zero_ours_leaves_the_query_out():
    nodes, train, val = random_problem(6)
    holed = {"q_embs": np.concatenate([val["q_embs"], val["q_embs"][:1]]), "q_ans_indx": [*val["q_ans_indx"], []]}
    theirs, _ = both("NUDGEN", nodes, train, val)
    with contextlib.redirect_stdout(io.StringIO()):
        broken = nudge_ft.NUDGEN(device="cpu").finetune_embeddings(nodes, train, holed)
    assert np.allclose(broken, nodes)  # the fault that ours must not repeat
    with pytest.warns(UserWarning, match="1 of 81 validation queries have no answers"):
        ours = compat.NUDGEN().finetune_embeddings(nodes, train, holed)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_arguments_are_checked():
    nodes, train, val = random_problem(0)
    with pytest.raises(ValueError, match="q_ans_indx"):
        compat.NUDGEN().finetune_embeddings(nodes, {"q_embs": train["q_embs"]}, val)
    with pytest.raises(ValueError, match="val_k must be 1"):
        compat.NUDGEM().finetune_embeddings(nodes, train, val, val_k=10)
    with pytest.raises(ValueError, match="val_batch_size"):
        compat.NUDGEN().finetune_embeddings(nodes, train, val, val_batch_size=0)
    with pytest.warns(UserWarning, match="device cuda is ignored"):
        compat.NUDGEN(device="cuda")
