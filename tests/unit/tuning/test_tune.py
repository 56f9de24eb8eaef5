"""Tune, push and rollback on a store in memory: every promise about originals, and every refusal."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import Candidate, LabeledPairs, Nudge, NudgeM, NudgeN, PushError, Split, rollback, status, tune, versions
from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.journal.journal import original_vectors
from nudge_rag.solvers.registry import resolve_solver
from nudge_rag.stores import MappingStore

# What is done with a nudge does not depend on how many settings it was chosen from.
pytestmark = pytest.mark.usefixtures("little_auto")

N, D = 40, 8


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def table():
    vectors = unit(np.random.default_rng(0).normal(size=(N, D)))
    return {f"n{i}": row.tolist() for i, row in enumerate(vectors)}


def pairs_for(nodes, per_node=12, tag=""):
    return LabeledPairs.from_pairs((f"{tag}{i} {node}", node) for node in nodes for i in range(per_node))


def embed(texts):
    """Queries of a node share a place that is off the node: what tuning can learn."""
    rows = []
    for text in texts:
        node = text.split()[1]
        place = unit(np.random.default_rng(0).normal(size=(N, D)))[int(node[1:])]
        shift = unit(np.random.default_rng(100 + int(node[1:])).normal(size=D)) * 0.9
        rows.append(unit(place + shift) + np.random.default_rng(list(text.encode())).normal(size=D) * 0.1)
    return np.array(rows)


def run(table, tmp_path, nodes=range(10), solver="nudge-n", **options):
    store = MappingStore(table, similarity=options.pop("similarity", "cosine"), key="test")
    pairs = options.pop("pairs", None) or pairs_for([f"n{i}" for i in nodes])
    return tune(store, pairs, embed, solver=solver, versions=tmp_path / "versions", **options)


def test_nodes_that_point_away_from_their_queries_are_counted(table, tmp_path):
    asked = embed(pairs_for(["n0"]).queries.values())
    table["n0"] = (-unit(asked.mean(axis=0))).tolist()
    nudge = run(table, tmp_path, solver="nudge-n")
    assert "10 of 40 nodes labelled (1 stay, as they point away from their queries)" in nudge.summary
    assert np.array_equal(nudge.vectors[0], nudge.originals[0])
    assert not (nudge.vectors[1:] == nudge.originals[1:]).all(axis=1).any()


def test_table_and_attributes(table, tmp_path):
    nudge = run(table, tmp_path)
    assert nudge.ids == tuple(f"n{i}" for i in range(10))
    assert nudge.gamma > 0
    assert nudge.improves
    text = str(nudge)
    for word in (
        "nudge-n",
        "nDCG@10",
        "Recall@1",
        "before",
        "after",
        "covered",
        "uncovered",
        "84 train, 12 val, 24 test",
    ):
        assert word in text
    row = nudge.comparison.row("Recall@1")
    assert (row.n_queries, row.group) == (24, "all")
    assert row.after > row.before
    assert {key: list(value) for key, value in table.items()} == {
        key: value.tolist()
        for key, value in zip(table, unit(np.random.default_rng(0).normal(size=(N, D))), strict=True)
    }, "tuning writes nothing"


def test_figures_are_those_of_brute_force(table, tmp_path):
    nudge = run(table, tmp_path)
    vectors = np.array(list(table.values()))
    moved = vectors.copy()
    moved[[int(node[1:]) for node in nudge.ids]] = nudge.vectors
    for nodes, part in ((vectors, "before"), (moved, "after")):
        hits = [
            f"n{(nodes @ embed([text])[0]).argmax()}" in nudge.split.test.qrels[query]
            for query, text in nudge.split.test.queries.items()
        ]
        assert getattr(nudge.comparison.row("Recall@1"), part) == pytest.approx(np.mean(hits))


def test_covered_and_uncovered_queries_are_told_apart(table, tmp_path):
    train, val, test = pairs_for(["n0", "n1"]), pairs_for(["n0", "n1"], 4, "v"), pairs_for(["n0", "n2", "n3"], 3, "t")
    nudge = run(table, tmp_path, pairs=Split(train, val, test))
    assert nudge.ids == ("n0", "n1")
    assert nudge.comparison.row("nDCG@10", "covered").n_queries == 3
    assert nudge.comparison.row("nDCG@10", "uncovered").n_queries == 6


def test_push_and_rollback_bit_for_bit(table, tmp_path):
    before = json.dumps(table)
    nudge = run(table, tmp_path, solver="auto")
    receipt = nudge.push()
    assert (receipt.pushed, receipt.written, receipt.version) == (True, 10, "0001")
    assert [table[node] for node in nudge.ids] == nudge.vectors.tolist()
    assert not list(tmp_path.rglob("*.tmp"))
    undone = nudge.rollback()
    assert (undone.restored, undone.exact, undone.version) == (10, True, "0001")
    assert json.dumps(table) == before
    assert nudge.rollback().restored == 0


@pytest.mark.slow
def test_tuning_again_starts_from_the_originals(table, tmp_path):
    before = json.dumps(table)
    first = run(table, tmp_path, solver="auto")
    first.push()
    second = run(table, tmp_path, solver="auto")
    assert second.vectors.tobytes() == first.vectors.tobytes()
    assert second.originals.tobytes() == first.originals.tobytes()
    third = run(table, tmp_path, solver="auto", nodes=range(5, 15))
    third.push(force=True)  # it forgets the queries of the first five nodes
    fresh = MappingStore(json.loads(before), key="fresh")
    expected = tune(fresh, pairs_for([f"n{i}" for i in range(5, 15)]), embed, versions=tmp_path / "other")
    # To rounding: there the five nodes are among those read, here the store's search scores them.
    np.testing.assert_allclose(third.vectors, expected.vectors, rtol=0, atol=1e-12)
    # Nodes 0 to 4 are labelled no longer, and have their originals back.
    assert {n: table[n] for n in list(table)[:5]} == {n: json.loads(before)[n] for n in list(table)[:5]}
    assert [version.state for version in versions(third.store, tmp_path / "versions")] == ["superseded", "committed"]
    rollback(third.store, tmp_path / "versions")
    assert json.dumps(table) == before


def test_two_stores_in_one_folder_do_not_mix(table, tmp_path):
    run(table, tmp_path).push()
    other = MappingStore({node: [*vector[1:], vector[0]] for node, vector in table.items()}, key="test")
    ids, vectors = next(other.scan())
    assert original_vectors(other, ids, vectors, tmp_path / "versions").tobytes() == vectors.tobytes()


def test_nodes_changed_or_deleted_since_are_left_alone_and_listed(table, tmp_path):
    nudge = run(table, tmp_path)
    table["n3"] = [1.0] * D
    del table["n4"]
    with pytest.warns(UserWarning, match="left alone"):
        receipt = nudge.push()
    assert (receipt.written, receipt.changed_since, receipt.missing) == (8, ("n3",), ("n4",))
    assert table["n3"] == [1.0] * D
    table["n5"] = [2.0] * D
    del table["n6"]
    with pytest.warns(UserWarning, match=r"1 node\(s\) changed since the push, 1 no longer in the store: 'n5', 'n6'"):
        undone = nudge.rollback()
    assert (undone.restored, undone.changed_since, undone.missing) == (6, ("n5",), ("n6",))
    assert table["n5"] == [2.0] * D


def test_nothing_is_pushed_without_improvement_unless_forced(table, tmp_path):
    train = pairs_for(["n0", "n1"])
    misled = LabeledPairs({q: f"t{text}" for q, text in train.queries.items()}, {q: {"n9": 1} for q in train.queries})
    nudge = run(table, tmp_path, pairs=Split(train, pairs_for(["n0", "n1"], 3, "v"), misled), metrics=["MRR@40"])
    assert nudge.gamma > 0
    assert not nudge.improves
    before = json.dumps(table)
    with pytest.warns(UserWarning, match="nothing was pushed: held-out pairs do not improve"):
        receipt = nudge.push()
    assert (receipt.pushed, receipt.written, receipt.version) == (False, 0, None)
    assert json.dumps(table) == before
    assert not (tmp_path / "versions").exists()
    assert nudge.push(force=True).pushed


def test_gamma_zero_is_never_pushed(table, tmp_path):
    perfect = {text: np.array(table[text.split()[1]]) for text in pairs_for(["n0", "n1"]).queries.values()}
    store = MappingStore(table, key="test")
    nudge = tune(store, pairs_for(["n0", "n1"]), lambda texts: np.array([perfect[t] for t in texts]), versions=tmp_path)
    assert (nudge.gamma, nudge.improves) == (0.0, False)
    assert "nothing to push" in str(nudge)
    with pytest.warns(UserWarning, match="gamma is 0"):
        assert not nudge.push(force=True).pushed


class Failing(MappingStore):
    """A store whose writes fail, or lie, from a given call on."""

    replace_vectors_if = None  # so that every write goes through replace

    def __init__(self, table, how, times):
        super().__init__(table, key="test")
        self.how, self.times = how, times

    def replace(self, ids, vectors):
        self.times -= 1
        if self.times >= 0 and self.how == "raises":
            super().replace(ids[:3], vectors[:3])
            raise OSError("connection lost")
        if self.times >= 0 and self.how == "rounds":
            vectors = np.float32(vectors)
        super().replace(ids, vectors)


@pytest.mark.parametrize("how", ["raises", "rounds"])
def test_a_store_that_fails_is_put_back(table, tmp_path, how):
    before = json.dumps(table)
    store = Failing(table, how, 1)
    nudge = tune(store, pairs_for([f"n{i}" for i in range(10)]), embed, versions=tmp_path)
    with pytest.raises(PushError, match="the vectors that were there before are back"):
        nudge.push()
    assert json.dumps(table) == before
    assert nudge.push().pushed


def test_a_push_that_dies_half_way_can_be_rolled_back(table, tmp_path):
    before = json.dumps(table)
    store = Failing(table, "raises", 2)
    nudge = tune(store, pairs_for([f"n{i}" for i in range(10)]), embed, versions=tmp_path)
    with pytest.raises(PushError, match=r"rollback\(\) restores the originals saved in"):
        nudge.push()
    assert rollback(MappingStore(table, key="test"), tmp_path).exact
    assert json.dumps(table) == before


@pytest.mark.parametrize("damage", ["arrays", "manifest", "missing", "not ours"])
def test_damaged_records_are_refused_before_anything_is_written(table, tmp_path, damage):
    nudge = run(table, tmp_path)
    nudge.push()
    folder = tmp_path / "versions" / "test" / "0001"
    if damage == "arrays":
        content = bytearray((folder / "arrays.npz").read_bytes())
        content[200] ^= 1
        (folder / "arrays.npz").write_bytes(content)
    elif damage == "manifest":
        (folder / "manifest.json").write_text('{"format": 1')
    elif damage == "missing":
        (folder / "arrays.npz").unlink()
    else:
        (folder / "manifest.json").write_text("[]")
    before = json.dumps(table)
    for action in (nudge.rollback, nudge.push):
        with pytest.raises(CorruptArchiveError, match="0001"):
            action()
    assert json.dumps(table) == before


def test_save_and_load(table, tmp_path):
    nudge = run(table, tmp_path, solver="auto")
    nudge.save(tmp_path / "saved")
    loaded = Nudge.load(tmp_path / "saved", nudge.store, tmp_path / "versions")
    assert loaded.ids == nudge.ids
    assert loaded.vectors.tobytes() == nudge.vectors.tobytes()
    assert str(loaded) == str(nudge)
    assert loaded.push().written == 10
    with pytest.raises(ValueError, match="made for test, not for other"):
        Nudge.load(tmp_path / "saved", MappingStore(table, key="other"))
    with pytest.raises(CorruptArchiveError, match="does not hold a nudge"):
        Nudge.load(tmp_path / "versions" / "test" / "0001", nudge.store)


def test_overlay_serves_what_push_would_write(table, tmp_path):
    nudge = run(table, tmp_path)
    queries = embed([f"x n{i}" for i in range(10)])
    overlay = nudge.overlay().search(queries, 5)
    nudge.push()
    pushed = nudge.store.search(queries, 5)
    assert overlay.ids == pushed.ids
    np.testing.assert_allclose(overlay.scores, pushed.scores, atol=1e-12)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_nudge_m_is_refused_where_it_means_nothing(table, tmp_path, similarity):
    for solver in ("nudge-m", NudgeM()):
        with pytest.raises(ValueError, match=rf"a {similarity} store cannot rank: use NudgeN \(solver='nudge-n'\)"):
            run(table, tmp_path, solver=solver, similarity=similarity)


@pytest.mark.parametrize("solver", ["nudge-n", "nudge-m", NudgeN(similarity="dot", metric="nDCG@10"), NudgeM()])
def test_dot_product_stores_take_both(table, tmp_path, solver):
    assert run(table, tmp_path, solver=solver, similarity="dot").improves


def test_unknown_nodes_are_warned_about_by_name(table, tmp_path):
    pairs = LabeledPairs.from_pairs(
        [*((t, n) for q, t in pairs_for(["n0", "n1"]).queries.items() for n in [t.split()[1]])]
    )
    extra = LabeledPairs({**pairs.queries, "z": "z n0"}, {**pairs.qrels, "z": {"gone": 1}})
    with pytest.warns(UserWarning, match=r"1 labelled node id\(s\) are not in the store, in 1 pair\(s\): 'gone' \(1\)"):
        nudge = run(table, tmp_path, pairs=extra)
    assert sum(part.n_queries for part in nudge.split) == 24


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pairs": [("a", "n0")]}, TypeError, "pairs must be LabeledPairs or a Split"),
        ({"solver": "nudge-x"}, ValueError, "solver must be one of auto, nudge-n, nudge-m"),
        ({"solver": 3}, TypeError, "object with fit, got int"),
        ({"solver": NudgeN(similarity="dot")}, ValueError, "make it with similarity='cosine'"),
        ({"metrics": []}, ValueError, "at least one metric"),
        ({"metrics": ["best@1"]}, ValueError, "family must be one of"),
        ({"split": (0.5, 0.1, 0.1)}, ValueError, "sum to 1"),
    ],
)
def test_bad_arguments(table, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(table, tmp_path, **options)


@pytest.mark.parametrize(
    ("solver", "chooses_by"),
    [("auto", "Recall@3"), ("nudge-contrastive", "Recall@3"), ("nudge-n", "CappedRecall@1"), ("nudge-m", "None")],
)
def test_what_a_named_solver_chooses_by(table, solver, chooses_by):
    """The contrastive one by the first metric asked for; the paper's by top-1 accuracy, or pairs ranked first."""
    made = resolve_solver(solver, "test", "dot", "Recall@3")
    assert (made.name, made.similarity) == (solver, "dot")
    assert str(made.metric) == chooses_by


def test_bad_stores_and_embeddings(table, tmp_path):
    pairs = pairs_for(["n0", "n1"])
    with pytest.raises(ValueError, match="holds no nodes"):
        tune(MappingStore({}), pairs, embed)
    with pytest.raises(ValueError, match="none of the labelled node ids"), pytest.warns(UserWarning):
        tune(MappingStore({"other": [1.0] * D}), pairs, embed)
    with pytest.raises(ValueError, match=r"shape \(24, 3\), expected \(24, 8\)"):
        tune(MappingStore(table), pairs, lambda texts: np.ones((len(texts), 3)), versions=tmp_path)
    with pytest.raises(ValueError, match="query embeddings row 0 holds NaN"):
        tune(MappingStore(table), pairs, lambda texts: np.full((len(texts), D), np.nan), versions=tmp_path)


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (NudgeN(metric="nDCG@10", gammas=np.array([0.1, 0.2])), {"gammas": [0.0, 0.1, 0.2], "metric": "nDCG@10"}),
        (NudgeN(search="exact"), {"search": "exact", "similarity": "cosine", "gamma": None}),
    ],
)
def test_the_record_of_a_push_says_how_it_came_about(table, tmp_path, solver, expected):
    nudge = run(table, tmp_path, solver=solver, model="mini", texts=lambda ids: [f"text of {one}" for one in ids])
    assert nudge.push(force=True).pushed
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", nudge.store, tmp_path / "versions")
    assert again.push(force=True).pushed
    for version in versions(nudge.store, tmp_path / "versions"):
        settings = version.manifest["details"]["settings"]
        assert settings["solver"] == "nudge-n"
        assert expected.items() <= settings.items()
        assert version.dimension == version.manifest["dimension"] == D
        assert version.model == "mini"
        assert version.text_hashes == {n: hashlib.sha256(f"text of {n}".encode()).hexdigest()[:16] for n in nudge.ids}


def test_nodes_whose_texts_changed_are_reported(table, tmp_path):
    texts = {node: f"text of {node}" for node in table} | {"n3": None}
    nudge = run(table, tmp_path, texts=lambda ids: [texts[one] for one in ids])
    assert set(nudge.text_hashes) == set(nudge.ids) - {"n3"}
    assert nudge.push(force=True).pushed

    def edited():
        found = status(nudge.store, tmp_path / "versions", texts=lambda ids: [texts[one] for one in ids])
        return found.edited

    assert edited() == ()
    texts |= {"n1": "another text", "n3": "a text now", "n4": None, "n20": "not nudged"}
    assert edited() == ("n1",)
    del table["n1"]
    assert edited() == ()
    assert status(nudge.store, tmp_path / "versions").edited == ()


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (lambda ids: [], ValueError, "gave 0 texts for 10 ids"),
        (lambda ids: [3 for _ in ids], TypeError, "strings or None, got int"),
    ],
)
def test_texts_that_do_not_fit(table, tmp_path, texts, error, message):
    with pytest.raises(error, match=message):
        run(table, tmp_path, texts=texts)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_labels_too_few_to_choose_by_say_what_to_do(table, tmp_path, count):
    pairs = pairs_for([f"n{number}" for number in range(count)], per_node=1)
    message = rf"^{count} labelled queries leave none to validate on .*: label more, pass split="
    with pytest.raises(ValueError, match=message):
        run(table, tmp_path, pairs=pairs)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"allowed": False}, "uncovered_tolerance="),
        ({"allowed": False, "expected": 0.01, "covered": 0.04}, "uncovered_tolerance="),
        # No tolerance lets a setting through that is not expected to gain.
        ({"allowed": False, "expected": -0.01, "covered": 0.04}, "those without would lose .*uncovered_share="),
        ({"allowed": False, "expected": -0.04, "covered": -0.04}, "no step helped"),
        ({"allowed": True}, "no step helped"),
    ],
)
def test_a_nudge_that_moves_nothing_says_why(table, tmp_path, measured, message):
    tried = (Candidate("nudge-n", 0.4, 0.8, -0.05, -0.08, -0.02, 9, **measured),)
    nudge = replace(run(table, tmp_path), gamma=0.0, tried=tried)
    assert re.search(message, nudge.refusal())
    with pytest.warns(UserWarning, match=f"nothing was pushed: .*{message}"):
        assert not nudge.push(force=True).pushed
