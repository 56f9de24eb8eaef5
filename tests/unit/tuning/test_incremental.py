"""A tuned state after any sequence of changes is what tuning from scratch gives, and a change costs what it must."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_rag import LabeledPairs, NudgeContrastive, NudgeM, NudgeN, Split, TuningState, tune
from nudge_rag.common.archive import CorruptArchiveError
from nudge_rag.stores import MappingStore, StoreError, UnknownIdError
from tests.support.little_auto import try_little

D = 5


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def place(node, version=0):
    """A node's vector, in the version of its text."""
    return unit(np.random.default_rng([int(node[1:]), version]).normal(size=D))


@cache
def asked(text):
    """Queries of a node lie off it, always to the same side."""
    node = text.split()[1]
    shift = unit(np.random.default_rng([int(node[1:]), 99]).normal(size=D))
    return place(node) + 0.9 * shift + np.random.default_rng(list(text.encode())).normal(size=D) * 0.2


def embed(texts):
    return np.array([asked(text) for text in texts])


def make_store(n, similarity="cosine", kind=MappingStore):
    return kind({f"n{i}": place(f"n{i}").tolist() for i in range(n)}, similarity=similarity, key="test")


def pairs_of(node, first, count, also=None):
    rows = [(f"{i} {node}", node) for i in range(first, first + count)]
    return LabeledPairs.from_pairs(rows + [(text, also, 2.0) for text, _ in rows if also])


def assert_same_as_from_scratch(state, store, folder, **options):
    expected = tune(store, state.pairs(), embed, versions=folder, **{"solver": "nudge-n"} | options)
    assert_same(state, expected)
    return expected


def assert_same(state, expected):
    found = state.solve()
    assert found.gamma == pytest.approx(expected.gamma, abs=1e-9)
    vectors = dict(zip(expected.ids, expected.vectors, strict=True))
    assert set(found.ids) == set(expected.ids)
    for node, vector in zip(found.ids, found.vectors, strict=True):
        np.testing.assert_allclose(vector, vectors[node], rtol=0, atol=1e-9)
    assert str(found.comparison) == str(expected.comparison)
    np.testing.assert_allclose(found.curve.values, expected.curve.values, atol=1e-12)


NODE = st.integers(0, 24).map(lambda i: f"n{i}")
CHANGE = st.one_of(
    st.tuples(st.just("pairs"), NODE, st.integers(0, 12), st.integers(1, 12), st.none() | NODE),
    st.tuples(st.just("no pairs"), NODE, st.integers(0, 12), st.integers(1, 12), st.none() | NODE),
    st.tuples(st.just("nodes"), st.lists(NODE, min_size=1, max_size=4)),
    st.tuples(st.just("no nodes"), st.lists(NODE, min_size=1, max_size=6)),
    st.tuples(st.just("changed"), NODE, st.integers(1, 5)),
    st.tuples(st.just("saved")),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    changes=st.lists(CHANGE, max_size=14),
    how=st.sampled_from(
        [
            ("cosine", "nudge-n", "search"),
            ("cosine", NudgeN(metric="nDCG@3", search="exact"), "scan"),
            ("l2", "nudge-n", "search"),
            ("dot", "nudge-m", "search"),
            ("dot", NudgeM(metric="MRR@4"), "scan"),
        ]
    ),
)
def test_any_sequence_of_changes_equals_tuning_from_scratch(tmp_path_factory, changes, how):
    similarity, solver, competitors = how
    folder = tmp_path_factory.mktemp("state")
    store = make_store(20, similarity)
    table = store._table
    options = {"solver": solver, "competitors": competitors, "metrics": ["nDCG@4", "Recall@1"]}
    state = TuningState(store, embed, split=(0.5, 0.25, 0.25), versions=folder / "v", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state.add_pairs(Split(*(pairs_of("n1", first, 8) for first in (100, 200, 300))))
        for kind, *details in changes:
            if kind == "saved":
                state.save(folder / "state")
                state = TuningState.load(folder / "state", store, embed, versions=folder / "v", **options)
            elif kind == "pairs":
                state.add_pairs(pairs_of(*details))
            elif kind == "no pairs":
                state.remove_pairs(pairs_of(*details))
            elif kind == "nodes":
                new = [node for node in details[0] if node not in table]
                table.update({node: place(node).tolist() for node in new})
                state.add_nodes(new)
            elif kind == "no nodes":
                gone = [node for node in details[0] if node != "n1"]
                for node in gone:
                    table.pop(node, None)
                state.remove_nodes(gone)
            elif details[0] in table:
                table[details[0]] = place(*details).tolist()
                state.add_nodes([details[0]])
        assert_same_as_from_scratch(state, store, folder / "v", **options)


@pytest.mark.parametrize("similarity", ["cosine", "l2", "dot"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"solver": NudgeContrastive(taus=[0.05], strengths=[30.0, 3.0], negatives=6)}, id="contrastive"),
        pytest.param({"solver": "auto"}, id="auto", marks=pytest.mark.slow),
        pytest.param({"solver": "auto", "reach": "queries"}, id="map", marks=pytest.mark.slow),
    ],
)
def test_every_solver_gives_what_tuning_from_scratch_gives(tmp_path, options, similarity, monkeypatch):
    if similarity != "cosine" and not isinstance(options["solver"], str):
        options = {"solver": NudgeContrastive(taus=[0.05], strengths=[30.0, 3.0], negatives=6, similarity=similarity)}
    try_little(monkeypatch)
    store = make_store(20, similarity)
    table = store._table
    options = {"metrics": ["nDCG@4"], **options}
    state = TuningState(store, embed, split=(0.5, 0.25, 0.25), versions=tmp_path / "v", **options)
    state.add_pairs(Split(*(pairs_of("n1", first, 8) for first in (100, 200, 300))))
    for node in range(2, 9):
        state.add_pairs(pairs_of(f"n{node}", 0, 6, f"n{node + 1}"))
    state.solve()  # from here on lists of training queries are kept
    state.add_pairs(pairs_of("n12", 0, 9))
    state.remove_pairs(pairs_of("n3", 0, 4, "n4"))
    table["n30"] = place("n30").tolist()
    state.add_nodes(["n30"])
    del table["n17"]
    state.remove_nodes(["n17"])
    table["n15"] = place("n15", 2).tolist()
    state.add_nodes(["n15"])
    expected = assert_same_as_from_scratch(state, store, tmp_path / "v", **options)
    state.save(tmp_path / "state")
    loaded = TuningState.load(tmp_path / "state", store, embed, versions=tmp_path / "v", **options)
    assert loaded.pairs() == state.pairs()
    assert_same(loaded, expected)


class Counting(MappingStore):
    """Notes what is asked of the store, and fails when told to."""

    def __init__(self, table, **options):
        super().__init__(table, **options)
        self.read_ids, self.searched, self.fails = [], 0, False

    def read(self, ids):
        if self.fails:
            raise OSError("connection reset")
        self.read_ids.extend(ids)
        return super().read(ids)

    def search(self, queries, k, *, where=None):
        if self.fails:
            raise OSError("connection reset")
        self.searched += len(queries)
        return super().search(queries, k, where=where)


def started(tmp_path, n=60, metrics=("nDCG@4",)):
    store = make_store(n, kind=Counting)
    state = TuningState(store, embed, split=(0.5, 0.25, 0.25), versions=tmp_path / "v", metrics=metrics)
    for node in range(6):
        state.add_pairs(pairs_of(f"n{node}", 0, 20))
    return store, state


def test_a_change_costs_what_it_is_worth(tmp_path):
    store, state = started(tmp_path)
    assert sorted(store.read_ids) == [f"n{i}" for i in range(6)]
    held_out = sum(part.n_queries for part in state.pairs()[1:])
    # Every held-out query is asked once; asking for more neighbours than the first time is asking again.
    assert held_out <= store.searched <= 2 * held_out
    store.read_ids, store.searched = [], 0
    embedded = []
    state.embed_queries = lambda texts: embedded.extend(texts) or embed(texts)
    more = pairs_of("n2", 15, 8)
    state.add_pairs(more)
    new = {f"{i} n2" for i in range(20, 23)}
    assert set(embedded) == new
    assert store.read_ids == []
    assert store.searched <= 2 * sum(text in new for part in state.pairs()[1:] for text in part.queries)
    store.searched = 0
    state.solve()
    state.solve()
    assert store.searched == 0
    store._table["n70"] = place("n70").tolist()
    state.add_nodes(["n70"])
    assert (store.read_ids, store.searched) == (["n70"], 0)
    state.solve()
    assert store.searched == 0


def test_push_roll_back_and_tune_on(tmp_path):
    store, state = started(tmp_path)
    before = dict(store._table)
    first = state.solve()
    assert first.push().pushed
    state.add_pairs(pairs_of("n9", 0, 20))
    assert_same_as_from_scratch(state, store, tmp_path / "v", metrics=["nDCG@4"])
    second = state.solve()
    assert second.push().pushed
    # Pairs of one node are withdrawn: it stays known by its original, and the next push gives it back.
    state.remove_pairs(pairs_of("n3", 0, 20))
    assert_same_as_from_scratch(state, store, tmp_path / "v", metrics=["nDCG@4"])
    with pytest.warns(UserWarning, match="it would forget"):
        assert not state.solve().push().pushed
    assert state.solve().push(force=True).pushed
    assert store._table["n3"] == before["n3"]
    state.solve().rollback()
    assert store._table == before


def test_a_state_begun_after_a_tune_learns_again_what_that_learned(tmp_path):
    store, pairs = make_store(6), LabeledPairs.from_pairs((f"{i} n{i % 5}", f"n{i % 5}") for i in range(80))
    first = tune(store, pairs, embed, versions=tmp_path, solver="nudge-n")
    assert first.push(force=True).pushed
    learned = {*first.split.train.queries.values(), *first.split.val.queries.values()}
    state = TuningState(store, embed, versions=tmp_path)
    state.add_pairs(pairs)
    tested = set(state.pairs().test.queries)
    assert tested
    assert not tested & learned
    later = LabeledPairs.from_pairs([(f"{text} ?", "n1") for text in learned])
    state.add_pairs(later)  # another way to write it
    assert not {f"{text} ?" for text in learned} & set(state.pairs().test.queries)
    fresh = TuningState(make_store(6), embed, versions=tmp_path / "none")
    fresh.add_pairs(pairs)
    assert learned & set(fresh.pairs().test.queries)  # by their hashes alone
    assert set(first.query_hashes) <= set(state.solve().query_hashes)


def test_a_state_survives_the_process(tmp_path):
    store, state = started(tmp_path)
    state.save(tmp_path / "state")
    again = TuningState.load(tmp_path / "state", store, embed, versions=tmp_path / "v", metrics=["nDCG@4"])
    assert len(again) == len(state) == 120
    assert again.pairs() == state.pairs()
    found, expected = again.solve(), state.solve()
    assert found.vectors.tobytes() == expected.vectors.tobytes()
    assert found.comparison == expected.comparison
    assert again.split == state.split
    deeper = TuningState.load(tmp_path / "state", store, embed, versions=tmp_path / "v", metrics=["nDCG@30"])
    assert_same_as_from_scratch(deeper, store, tmp_path / "v", metrics=["nDCG@30"])


def test_votes_on_a_pair_add_up(tmp_path):
    store, state = started(tmp_path)
    text = next(text for text in state.pairs().train.queries if text.endswith("n1"))
    for _ in range(30):
        state.add_pairs(LabeledPairs.from_pairs([(text, "n1", -1.0)]))
    state.add_pairs(LabeledPairs({"q0": text, "q1": text}, {"q0": {"n1": 1.0}, "q1": {"n1": 1.0}}))
    assert state.pairs().train.qrels[text] == {"n1": 1.0 - 30 + 2}
    assert_same_as_from_scratch(state, store, tmp_path / "v", metrics=["nDCG@4"])
    state.add_pairs(LabeledPairs.from_pairs([(text, "n1", 2.0)]), grades="replace")
    assert state.pairs().train.qrels[text] == {"n1": 2.0}
    assert_same_as_from_scratch(state, store, tmp_path / "v", metrics=["nDCG@4"])
    with pytest.raises(ValueError, match='grades must be "add" or "replace", got \'max\''):
        state.add_pairs(LabeledPairs.from_pairs([(text, "n1")]), grades="max")


def test_near_identical_queries_fall_into_one_part(tmp_path):
    _, state = started(tmp_path)
    texts = [f"{i} n7" for i in range(40)]
    for form in ("{}", "{} ", "{} ?"):
        state.add_pairs(LabeledPairs.from_pairs((form.format(text), "n7") for text in texts))
    part_of = {text: number for number, part in enumerate(state.pairs()) for text in part.queries}
    assert {part_of[text] for text in texts} == {0, 1, 2}
    assert all(part_of[text] == part_of[f"{text} "] == part_of[f"{text} ?"] for text in texts)


def test_generated_questions_train_and_never_judge(tmp_path):
    store, state = started(tmp_path)
    texts = [f"{i} n8" for i in range(40)]
    made = LabeledPairs({t: t for t in texts}, {t: {"n8": 1.0} for t in texts}, synthetic=frozenset(texts))
    state.add_pairs(made)
    assert set(texts) <= set(state.pairs().train.queries)
    asked = pairs_of("n1", 300, 5)
    for parts in (Split(asked, made, pairs_of("n2", 300, 5)), Split(asked, pairs_of("n2", 300, 5), made)):
        for call in (state.add_pairs, lambda parts: tune(store, parts, embed, versions=tmp_path / "w")):
            with pytest.raises(ValueError, match="40 generated questions, such as '0 n8', and none may judge"):
                call(parts)


def test_a_store_that_fails_leaves_the_state_as_it_was(tmp_path):
    store, state = started(tmp_path)
    before, size = state.solve(), len(state)
    store.fails = True
    for action in (
        lambda: state.add_pairs(pairs_of("n30", 0, 20)),
        lambda: state.add_pairs(pairs_of("n1", 50, 20)),
        lambda: state.add_nodes(["n31"]),
    ):
        with pytest.raises(StoreError, match="connection reset"):
            action()
    store.fails = False
    assert len(state) == size
    assert state.solve().vectors.tobytes() == before.vectors.tobytes()
    state.embed_queries = lambda texts: np.ones((len(texts), 3))
    with pytest.raises(ValueError, match="dimension of the store"):
        state.add_pairs(pairs_of("n1", 50, 20))
    assert len(state) == size


def test_bad_input(tmp_path):
    store, state = started(tmp_path)
    with pytest.raises(TypeError, match="must be LabeledPairs or a Split"):
        state.add_pairs([("a", "n1")])
    moved = LabeledPairs({"q": next(iter(state.pairs().train.queries))}, {"q": {"n1": 1}})
    with pytest.raises(ValueError, match="is in the train part already, not in test"):
        state.add_pairs(Split(LabeledPairs({}, {}), LabeledPairs({}, {}), moved))
    with pytest.warns(UserWarning, match=r"'gone' \(3\)"):
        state.add_pairs(LabeledPairs.from_pairs((f"{i} n1 more", "gone") for i in range(3)))
    with pytest.raises(UnknownIdError, match="'gone'"):
        state.add_nodes(["gone"])
    with pytest.raises(ValueError, match="add more pairs"):
        TuningState(store, embed).solve()
    with pytest.raises(ValueError, match="sum to 1"):
        TuningState(store, embed, split=(0.5, 0.1, 0.1))
    state.save(tmp_path / "state")
    with pytest.raises(ValueError, match="was made for test, not for other"):
        others = {node: [-number for number in vector] for node, vector in store._table.items()}
        TuningState.load(tmp_path / "state", MappingStore(others, key="other"), embed)
    state.solve().save(tmp_path / "nudge")
    with pytest.raises(CorruptArchiveError, match="does not hold a tuning state"):
        TuningState.load(tmp_path / "nudge", store, embed)
    content = bytearray((tmp_path / "state" / "arrays.npz").read_bytes())
    content[300] ^= 4
    (tmp_path / "state" / "arrays.npz").write_bytes(content)
    with pytest.raises(CorruptArchiveError, match="checksum"):
        TuningState.load(tmp_path / "state", store, embed)
