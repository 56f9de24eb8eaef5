"""The application's own pipeline decides whether a nudge is pushed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Nudge, tune
from nudge_rag.common.archive import read_folder, write_folder
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.tuning.held_out import name_queries
from nudge_rag.tuning.judged_archive import JUDGED
from tests.support.wanted_nodes import WantedNodes, pairs
from tests.unit.tuning.test_held_out import changed

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
    assert not again.improves
    assert str(again) == str(nudge)


def by_text(evaluation, system):
    """Query text to its change, the best nodes before and after."""
    base, depth = evaluation.baseline, evaluation.depth
    return {
        evaluation.pairs.queries[query]: (
            round(change, 12),
            *(tuple(evaluation.rankings[state][query])[:depth] for state in (base, system)),
        )
        for query, change in evaluation.changes(system)
    }


@pytest.mark.parametrize("texts", [False, True])
def test_a_saved_nudge_keeps_what_the_pipeline_won_and_lost(store, tmp_path, texts):
    def pipeline(view):
        moved = not np.array_equal(view.read(IDS), NODES)

        def find(text):
            if "3" in text:
                raise TimeoutError(f"no answer to {text}")
            if "7" in text:
                return ["elsewhere", "elsewhere"] if moved else ["n7"]
            return plain(view)(text)

        return find

    options = {"solver": "nudge-n", "versions": tmp_path, "metrics": ["nDCG@10", "MRR@3"]}
    with pytest.warns(UserWarning):
        nudge = tune(store, pairs(range(12), "abcdefghijklmno"), embed, judge=pipeline, **options)
    told = nudge.judgement.evaluation
    assert told.changes("new")[0][1] < 0 < told.changes("new")[-1][1]
    assert told.failures and told.duplicates and told.excluded
    nudge.save(tmp_path / "saved", texts=texts)
    asked = list(told.pairs.queries.values())
    found = (tmp_path / "saved" / "manifest.json").read_text()
    assert all((text in found) == texts for text in asked)
    assert "no answer to" not in found
    again = Nudge.load(tmp_path / "saved", store, tmp_path).judgement.evaluation
    named = replace(again, pairs=again.pairs if texts else name_queries(again.pairs, nudge.split.test))
    assert by_text(named, "new") == by_text(told, "new")
    assert again.rows == told.rows
    assert {len(found) for found in again.failures.values()} == {len(found) for found in told.failures.values()}
    assert set(again.failures["new"].values()) == {"TimeoutError"}
    plainly, before = again.to_dict(per_query=False), told.to_dict(per_query=False)
    for name in ("systems", "baseline", "metrics", "sources", "n_queries", "rows", "overlap", "hubs"):
        assert plainly[name] == before[name], name
    assert sum(again.duplicates["new"].values()) == sum(told.duplicates["new"].values())


@pytest.mark.slow
def test_a_damaged_record_of_the_pipeline_is_refused_by_one_error(store, tmp_path):
    nudge = tune(store, pairs(range(8), "abcde"), embed, solver="nudge-n", versions=tmp_path, judge=plain)
    nudge.save(tmp_path / "saved")
    manifest, arrays = read_folder(tmp_path / "saved")
    manifest = {name: value for name, value in manifest.items() if not name.endswith("sha256")}
    record = manifest[JUDGED]
    damaged = [{**manifest, JUDGED: other} for other in changed(record)]
    for name, value in record.items():
        damaged.append({**manifest, JUDGED: {key: kept for key, kept in record.items() if key != name}})
        damaged += [{**manifest, JUDGED: {**record, name: other}} for other in changed(value)]
    for name, value in record["rows"][-1].items():
        for other in changed(value):
            damaged.append(
                {**manifest, JUDGED: {**record, "rows": [*record["rows"][:-1], {**record["rows"][-1], name: other}]}}
            )
    failures = []
    for content in damaged:
        write_folder(tmp_path / "damaged", content, arrays)
        try:
            again = Nudge.load(tmp_path / "damaged", store, tmp_path)
            (str(again), again._repr_html_(), json.dumps(again.judgement.evaluation.to_dict(), allow_nan=False))
        except CorruptArchiveError:
            failures.append(content)
    assert len(failures) > 0.8 * len(damaged)
    old = {name: value for name, value in manifest.items() if name != JUDGED}
    write_folder(tmp_path / "old", old, {name: array for name, array in arrays.items() if name != JUDGED})
    assert Nudge.load(tmp_path / "old", store, tmp_path).judgement.evaluation is None


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
