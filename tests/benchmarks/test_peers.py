"""The peers of the accuracy benchmark on problems whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Split

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_are_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def pairs_of(answers: dict[str, list[int]]) -> LabeledPairs:
    return LabeledPairs(
        {query: query for query in answers},
        {query: {f"n{node}": 1 for node in nodes} for query, nodes in answers.items()},
    )


def data_of(nodes, queries, train, val, test, texts=None):
    """Queries by text; each part names the answers, as node rows, of its queries."""
    from data_sets import Data

    ids = [f"n{row}" for row in range(len(nodes))]
    vectors = {text: np.asarray(vector, dtype=np.float32) for text, vector in queries.items()}
    split = Split(pairs_of(train), pairs_of(val), pairs_of(test))
    return Data(ids, texts or ids, np.asarray(nodes, dtype=np.float32), split, vectors)


def ndcg(data, tuned) -> np.ndarray:
    from data_sets import METRIC, measure

    return measure(data, tuned, data.test).of(METRIC, list(data.test.qrels))


@pytest.fixture
def two_nodes():
    """The test query points at node 0; the training query, which is almost the same, says that node 1 answers it."""
    queries = {"train": [0.8, 0.6], "val": [0.8, 0.6], "test": [0.9, np.sqrt(0.19)], "other": [1, 0]}
    return data_of(np.eye(2), queries, {"train": [1]}, {"val": [1]}, {"test": [1], "other": [0]})


SECOND = 1 / np.log2(3)  # nDCG of the only answer at rank 2


def test_extra_vectors_answer_what_is_near_a_training_query(two_nodes):
    import peers
    from data_sets import Tuned

    np.testing.assert_allclose(ndcg(two_nodes, Tuned(two_nodes.nodes, 0.0)), [SECOND, 1])
    tuned = peers.extra_vectors(two_nodes)
    assert tuned.owners is not None
    assert tuned.owners.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(tuned.vectors, np.array([[1, 0], [0, 1], [0.8, 0.6]], dtype=np.float32))
    # "test": node 0 has cosine 0.9, node 1's second vector 0.72 + 0.26; "other": 1 against 0.8.
    np.testing.assert_allclose(ndcg(two_nodes, tuned), [1, 1])


def test_extra_vectors_tie_goes_by_the_nodes_own_vectors():
    """A training query of both nodes is a vector of both: the node that is nearer itself comes first."""
    import peers

    queries = {"train": [0.6, 0.8], "val": [1, 0], "test": [0.6, 0.8]}
    data = data_of(np.eye(2), queries, {"train": [0, 1]}, {"val": [0]}, {"test": [1]})
    np.testing.assert_allclose(ndcg(data, peers.extra_vectors(data)), [1])


@pytest.mark.parametrize("name", ["NUDGEM", "NUDGEN"])
def test_nudge_ft_leaves_nodes_without_labels(name, two_nodes):
    import peers

    tuned = peers.nudge_ft(name)(two_nodes)
    np.testing.assert_allclose(tuned.vectors[0], [1, 0], atol=1e-6)
    # Node 1 moves along its only training query, far enough to reach node 0 at the validation query, which is the same.
    reached = tuned.vectors[1] @ np.array([0.8, 0.6], dtype=np.float32)
    assert reached >= 0.8 - 1e-6
    if name == "NUDGEM":  # (0, 1) + gamma (0.8, 0.6), which has 0.6 + gamma there
        np.testing.assert_allclose(
            tuned.vectors[1], np.array([0, 1]) + (reached - 0.6) * np.array([0.8, 0.6]), atol=1e-6
        )


def rotated(count: int):
    """Queries are their nodes, each of four planes turned by 60 degrees: one linear map leads all of them back."""
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=(count, 8))
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    turn = np.kron(np.eye(4), [[0.5, np.sqrt(0.75)], [-np.sqrt(0.75), 0.5]])
    queries = {f"q{row}": node @ turn for row, node in enumerate(nodes)}
    rows = [{f"q{row}": [row] for row in part} for part in np.split(np.arange(count), [count - 20, count - 10])]
    return data_of(nodes, queries, *rows)


def test_query_adapter_without_steps_is_untuned():
    import peers

    data = rotated(60)
    texts = list(data.queries)
    for rates in ((), (0.0,)):  # no training at all; and epochs that move nothing
        tuned = peers.query_adapter(data, rates=rates)
        assert tuned.embed is not None
        np.testing.assert_array_equal(tuned.embed(texts), data.embed(texts))
        np.testing.assert_array_equal(tuned.vectors, data.nodes)


def test_query_adapter_finds_a_rotation_that_holds_for_nodes_without_labels():
    import peers
    from data_sets import Tuned

    data = rotated(600)
    assert len(data.uncovered()) == 10
    before, after = ndcg(data, Tuned(data.nodes, 0.0)).mean(), ndcg(data, peers.query_adapter(data)).mean()
    assert before < 0.3
    assert after > 0.95


def test_query_adapter_leaves_torch_its_threads():
    import peers
    import torch

    threads = torch.get_num_threads()
    peers.query_adapter(rotated(60), rates=(1e-3,))
    assert torch.get_num_threads() == threads


def test_parts_of_the_test_queries():
    queries = {name: [1, 0] for name in ("a", "b", "c", "d")}
    data = data_of(np.eye(3, 2), queries, {"a": [0]}, {"b": [1]}, {"c": [2], "d": [0, 2]})
    # Node 2 has no label; one labelled answer is enough to be covered.
    assert data.parts() == {"all": ["c", "d"], "covered": ["d"], "uncovered": ["c"]}
    covered = data_of(np.eye(3, 2), queries, {"a": [0]}, {"b": [2]}, {"c": [2], "d": [0, 2]})
    assert covered.parts() == {"all": ["c", "d"]}


def test_additive_steps_stop_once_validation_gains_no_more(two_nodes):
    import peers

    tuned = peers.additive_steps(two_nodes, steps=(0.2,))
    # By hand: node 1 moves by 0.2 along the missed query, is brought to unit length, and again, until it comes first.
    node, query = np.array([0.0, 1.0]), np.array([0.8, 0.6])
    while query @ node / np.linalg.norm(node) < 0.8:
        node = node / np.linalg.norm(node) + 0.2 * query
    np.testing.assert_allclose(tuned.vectors, [[1, 0], node], atol=1e-6)


def test_withheld_nodes_have_no_label_left_and_the_test_part_stays_whole():
    from data_sets import withhold_nodes

    nodes, queries = np.eye(10), {f"{part}{row}": np.eye(10)[row] for part in "abc" for row in range(10)}
    train = {f"a{row}": [row, (row + 1) % 10] for row in range(10)}
    data = data_of(
        nodes, queries, train, {f"b{row}": [row] for row in range(10)}, {f"c{row}": [row] for row in range(10)}
    )
    labelled = sorted(f"n{row}" for row in range(10))
    gone = set(np.random.default_rng(0).permutation(labelled)[:2].tolist())
    kept = withhold_nodes(data)
    assert kept.test.qrels == data.test.qrels
    for part, whole in zip(kept.split[:2], data.split[:2], strict=True):
        assert dict(part.qrels) == {query: grades for query, grades in whole.qrels.items() if not gone & grades.keys()}
    assert gone <= {node for query in kept.uncovered() for node in kept.test.qrels[query]}


def test_few_labels_are_drawn_at_random_and_always_the_same():
    from data_sets import draw_few

    names = [f"q{row}" for row in range(40)]
    data = data_of(
        np.eye(2),
        {name: [1, 0] for name in names},
        {name: [0] for name in names[:30]},
        {name: [0] for name in names[30:38]},
        {name: [0] for name in names[38:]},
    )
    few = draw_few(data, 14)
    wanted = [names[row] for row in np.random.default_rng(0).permutation(30)[:14]]
    assert set(few.split.train.qrels) == set(wanted)
    assert few.split.val.n_queries == 2
    assert few.test.qrels == data.test.qrels
