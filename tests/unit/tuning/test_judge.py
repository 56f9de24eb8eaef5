"""The application's own pipeline decides whether a nudge is pushed."""

from __future__ import annotations

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Nudge, tune
from tests.support.wanted_nodes import WantedNodes, pairs

WORLD = WantedNodes(40)
IDS, NODES, embed = WORLD.ids, WORLD.nodes, WORLD.embed


@pytest.fixture
def store():
    return WORLD.store()


def plain(store):
    """The store's own ten best nodes."""
    return lambda text: store.search(embed([text]), 10).ids[0]


def test_a_plain_pipeline_finds_what_the_table_says(store, tmp_path):
    seen = []
    nudge = tune(
        store,
        pairs(range(12)),
        embed,
        solver="nudge-n",
        versions=tmp_path,
        judge=lambda view: seen.append(view.read(IDS)) or plain(view),
    )
    row = next(row for row in nudge.comparison.rows if (row.group, row.metric) == ("all", "nDCG@10"))
    told = nudge.judgement
    assert (told.metric, told.baseline, told.queries) == ("nDCG@10", "originals", row.n_queries)
    assert (told.before, told.after) == (pytest.approx(row.before), pytest.approx(row.after))
    assert nudge.improves and told.improves
    laid_over = dict(zip(nudge.ids, nudge.vectors, strict=True))
    expected = np.array([laid_over.get(node, NODES[row]) for row, node in enumerate(IDS)])
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[0], NODES)
    np.testing.assert_array_equal(seen[1], expected)
    assert str(nudge).startswith("Push: in the application's own pipeline nDCG@10 on")
    assert nudge.push().pushed


def test_a_pipeline_that_gains_nothing_decides_against(store, tmp_path):
    """As behind a reranker that finds the same whatever the vectors are."""
    nudge = tune(
        store, pairs(range(12)), embed, solver="nudge-n", versions=tmp_path, judge=lambda view: lambda text: IDS[:10]
    )
    alone = tune(store, pairs(range(12)), embed, solver="nudge-n", versions=tmp_path)
    assert alone.improves and not nudge.improves
    assert nudge.vectors.tobytes() == alone.vectors.tobytes()
    assert str(nudge).startswith("Do not push: in the application's own pipeline")
    with pytest.warns(UserWarning, match="held-out pairs do not improve"):
        assert not nudge.push().pushed
    nudge.save(tmp_path / "saved")
    again = Nudge.load(tmp_path / "saved", store, tmp_path)
    assert again.judgement == nudge.judgement
    assert again.judgement.evaluation is None and not again.improves
    assert str(again).splitlines()[0] == str(nudge).splitlines()[0]


def test_a_pipeline_that_gains_decides_for_what_is_worse_alone(store, tmp_path):
    """The held-out queries are answered by what was best and nobody labelled, so alone the nudge loses."""
    asked = {n: f"z {n}" for n in range(12)}
    best = {
        n: 12 + int(np.argmax(embed([text]) @ NODES[12:].T / np.linalg.norm(NODES[12:], axis=1)))
        for n, text in asked.items()
    }
    other = LabeledPairs.from_pairs((text, f"n{best[n]}") for n, text in asked.items())
    split = pairs(range(12)).split(0.8, 0.2, 0.0)
    split = type(split)(split.train, split.val, other)

    def pipeline(view):
        moved = not np.array_equal(view.read(IDS), NODES)
        return lambda text: [f"n{best[int(text.split()[1])]}"] if moved else ["none"]

    alone = tune(store, split, embed, solver="nudge-n", versions=tmp_path)
    nudge = tune(store, split, embed, solver="nudge-n", versions=tmp_path, judge=pipeline)
    assert not alone.improves and nudge.improves
    assert (nudge.judgement.before, nudge.judgement.after) == (0.0, 1.0)
    assert nudge.push().pushed


def test_what_is_live_is_judged_as_well(store, tmp_path):
    assert tune(store, pairs(range(12)), embed, solver="nudge-n", versions=tmp_path).push().pushed
    live = store.read(IDS)
    assert not np.array_equal(live, NODES)
    seen = []
    nudge = tune(
        store,
        pairs(range(12), "abcdefghijklmno"),
        embed,
        solver="nudge-n",
        versions=tmp_path,
        judge=lambda view: seen.append(view.read(IDS)) or plain(view),
    )
    assert nudge.judgement.baseline == "live"
    assert nudge.judgement.evaluation.systems == ("originals", "live", "new")
    np.testing.assert_array_equal(seen[0], NODES)
    np.testing.assert_array_equal(seen[1], live)
    assert not np.array_equal(seen[2], live)
    against = nudge.against_live
    assert (against.live, against.new) == (nudge.judgement.before, nudge.judgement.after)
    np.testing.assert_array_equal(store.read(IDS), live, "nothing is written")


def test_worse_than_live_in_the_pipeline_is_refused(store, tmp_path):
    assert tune(store, pairs(range(12)), embed, solver="nudge-n", versions=tmp_path).push().pushed
    live = store.read(IDS)

    def pipeline(view):
        best = np.array_equal(view.read(IDS), live)
        return lambda text: [f"n{text.split()[1]}"] if best else ["n39"]

    nudge = tune(store, pairs(range(12), "abcdefghijklmno"), embed, solver="nudge-n", versions=tmp_path, judge=pipeline)
    assert not nudge.improves and nudge.against_live.is_worse
    with pytest.warns(UserWarning, match="nothing was pushed"):
        assert not nudge.push().pushed


def test_bad_judges(store, tmp_path):
    options = {"solver": "nudge-n", "versions": tmp_path}
    with pytest.raises(TypeError, match="judge must be a function from a store to a retriever, got str"):
        tune(store, pairs(range(12)), embed, judge="bm25", **options)
    with pytest.raises(TypeError, match="originals"):
        tune(store, pairs(range(12)), embed, judge=lambda view: 3, **options)

    def fail(text):
        raise RuntimeError("the reranker is away")

    with pytest.raises(ValueError, match="the reranker is away"), pytest.warns(UserWarning):
        tune(store, pairs(range(12)), embed, judge=lambda view: fail, **options)
