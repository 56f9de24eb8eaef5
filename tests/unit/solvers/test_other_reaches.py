"""What other reaches would give is estimated roughly, near what they are expected to give if they are tried."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, LabeledQueries, Nudge, tune
from nudge_rag.solvers import AutoSolver
from nudge_rag.solvers.auto.other_reaches import OFFSETS
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.printing import describe_reaches
from tests.support.little_auto import try_little


@pytest.fixture
def fewer_trials(monkeypatch):
    """Half of the folds, which are more all the same than those that rough estimates look at, and their offsets."""
    monkeypatch.setattr("nudge_rag.solvers.auto.folds.FOLDS", 5)
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.OFFSETS", OFFSETS)
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.HALVINGS", 0)
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.FEW_TAUS", (0.05,))
    monkeypatch.setattr("nudge_rag.solvers.auto.trials.FEW_STRENGTHS", (3.0,))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def dialect(turned=0.6, n=120, d=12, labelled=60, per_node=4):
    """Queries speak another language than nodes, the more so the more they are turned."""
    rng = np.random.default_rng(5)
    nodes = unit(rng.normal(size=(n, d)))
    turn = (1 - turned) * np.eye(d) + turned * np.linalg.qr(rng.normal(size=(d, d)))[0]

    def queries_of(answers):
        noisy = nodes[answers] + 0.25 * unit(rng.normal(size=(len(answers), d)))
        return unit(noisy @ turn), [[int(answer)] for answer in answers]

    train = queries_of(np.repeat(np.arange(labelled), per_node))
    return nodes, train, queries_of(rng.integers(0, labelled, size=80))


def with_scores(part, nodes, depth=60):
    """What labels bring along of the nodes from row 60 on, as a store's search finds them."""
    scores = np.sort(unit(part[0]) @ nodes[60:].T, axis=1)[:, ::-1]
    return LabeledQueries(*part, competitors=scores[:, :depth])


def expected_of(candidates, prefix):
    return max(one.expected for one in candidates if one.solver.startswith(prefix))


@pytest.mark.slow
@pytest.mark.parametrize("turned", [0.6, 0.3, 0.0])
@pytest.mark.parametrize("many", [False, True])
def test_the_estimate_is_near_what_the_reach_gives_if_it_is_tried(turned, many, fewer_trials, monkeypatch):
    if many:
        monkeypatch.setattr("nudge_rag.solvers.auto.trials.MANY", 10)
        monkeypatch.setattr("nudge_rag.solvers.auto.trials.ENOUGH_NODES", 30)
    nodes, train, val = dialect(turned)
    alone = AutoSolver(metric="MRR@10").fit(nodes, train, val)
    assert [one.solver.partition(" +")[0] for one in alone.other_reaches] == ["map", "node map"]
    for estimate, reach in zip(alone.other_reaches, ("queries", "nodes"), strict=True):
        assert estimate.is_rough
        assert not (estimate.chosen or estimate.allowed)
        assert f"reach={reach!r}" in estimate.note
        tried = AutoSolver(metric="MRR@10", reach=reach).fit(nodes, train, val)
        full = expected_of(tried.tried, estimate.solver.partition(" +")[0])
        # Half of what the reach adds may go unseen: the map is learned at one setting.
        assert estimate.expected == pytest.approx(full, abs=0.03 + abs(full - expected_of(tried.tried, "nudge")) / 2)
        assert [one.solver.startswith("node map") for one in tried.other_reaches] == [reach == "queries"]
    labelled = expected_of(alone.tried, "nudge")
    if turned == 0.6:
        # A map serves new nodes here, and nudges do not: that is what the estimate is to tell.
        assert alone.other_reaches[0].expected > labelled + 0.05
        assert alone.other_reaches[0].new_nodes > 0.1


@pytest.mark.slow
def test_vectors_of_competitors_stand_for_nodes_of_which_labels_bring_scores_alone(fewer_trials):
    nodes, train, val = dialect()
    whole = AutoSolver(metric="MRR@10").fit(nodes, train, val)
    parts = with_scores(train, nodes), with_scores(val, nodes)
    by_scores = AutoSolver(metric="MRR@10").fit(nodes[:60], *parts, competitor_vectors=nodes[60:])
    for one, other in zip(by_scores.other_reaches, whole.other_reaches, strict=True):
        assert one.solver == other.solver
        assert one.expected == pytest.approx(other.expected, abs=0.01)
    # They serve the estimate alone, and without them there is none.
    unknown = AutoSolver(metric="MRR@10").fit(nodes[:60], *parts)
    assert unknown.other_reaches == ()
    assert unknown.vectors.tobytes() == by_scores.vectors.tobytes()
    assert unknown.tried == by_scores.tried
    assert "queries and nodes were not tried" in describe_reaches(unknown.tried).replace("\n", " ")


def test_few_labels_have_estimates_too():
    fit = AutoSolver().fit(np.eye(4), (np.eye(4)[:1], [[1]]), (np.eye(4)[:1], [[1]]))
    assert [one.is_rough for one in fit.other_reaches] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_a_tuned_result_prints_every_reach_and_keeps_it(tmp_path, similarity, monkeypatch):
    try_little(monkeypatch)
    nodes, train, val = dialect()
    store = MappingStore({f"n{row}": vector for row, vector in enumerate(nodes)}, similarity=similarity, key="reaches")
    texts = {f"query {row}": vector for row, vector in enumerate(np.concatenate([train[0], val[0]]))}
    pairs = LabeledPairs.from_pairs(
        (text, f"n{node}") for text, (node,) in zip(texts, [*train[1], *val[1]], strict=True)
    )

    def tuned():
        return tune(store, pairs, lambda asked: np.stack([texts[text] for text in asked]), versions=tmp_path)

    nudge = tuned()
    line = str(nudge).partition("by reach, expected: ")[2].partition("\n\n")[0].replace("\n", " ")
    labelled, queries, of_nodes = line.split(", ")
    assert labelled.startswith("labelled +")
    for name, told, estimate in zip(("queries", "nodes"), (queries, of_nodes), nudge.other_reaches, strict=True):
        assert told == f"{name} about {estimate.expected:+.3f}"
    assert "estimated roughly" not in str(nudge)
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", store, tmp_path)
    assert again.other_reaches == nudge.other_reaches
    assert str(again) == str(nudge)
    assert len(nudge.to_dict()["other_reaches"]) == 2
    read = nudge.reads.vectors_read
    monkeypatch.setattr("nudge_rag.solvers.auto.solver.MOST_COMPETITORS", 7)
    fewer = tuned()
    assert len(fewer.other_reaches) == 2
    assert fewer.vectors.tobytes() == nudge.vectors.tobytes()
    assert read - fewer.reads.vectors_read == 60 - 7
