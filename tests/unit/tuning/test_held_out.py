"""A saved nudge keeps what a report shows of single queries, by numbers and hashes; texts only if that is wanted."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from nudge_rag import LabeledPairs, Nudge, tune
from nudge_rag.common.archive import read_folder, write_folder
from nudge_rag.errors import CorruptArchiveError
from nudge_rag.journal.text_hashes import hash_text
from nudge_rag.stores.memory.mapping import MappingStore
from nudge_rag.tuning.held_out import HELD_OUT

SECRET, TEXT = "what does the surgery cost", "the text of node"


@pytest.fixture(scope="module")
def tuned():
    rng = np.random.default_rng(0)
    nodes = rng.normal(size=(12, 8))
    store = MappingStore({f"n{row}": vector for row, vector in enumerate(nodes)}, key="held out")
    asked = {f"{SECRET} {row}": nodes[row % 12] + rng.normal(size=8) for row in range(120)}
    pairs = LabeledPairs.from_pairs((text, f"n{row % 12}", 1 + row % 2) for row, text in enumerate(asked))

    def embed(texts):
        return np.stack([asked[text] for text in texts])

    return store, tune(store, pairs, embed, solver="nudge-n", texts=lambda ids: [f"{TEXT} {node}" for node in ids])


def by_text(held_out):
    """State to query text to its ranking and its value."""
    return {
        state: {
            held_out.pairs.queries[query]: (tuple(found.rankings[query])[: held_out.depth], value)
            for query, value in zip(found.query_ids, found.of(held_out.metric, found.query_ids), strict=True)
        }
        for state, found in held_out.evaluations.items()
    }


def test_hashes_stand_for_texts_until_the_labels_name_them(tuned, tmp_path):
    store, nudge = tuned
    nudge.save(tmp_path / "nudge")
    for file in (tmp_path / "nudge").iterdir():
        assert SECRET.encode() not in file.read_bytes()
        assert TEXT.encode() not in file.read_bytes()
    loaded = Nudge.load(tmp_path / "nudge", store)
    assert set(loaded.held_out.pairs.queries.values()) == {
        f"query {hash_text(text)}" for text in nudge.held_out.pairs.queries.values()
    }
    assert by_text(loaded.held_out.with_texts(nudge.split.test)) == by_text(nudge.held_out)
    some = nudge.split.test.subset(list(nudge.split.test.queries)[:3])
    names = loaded.held_out.with_texts(some).pairs.queries.values()
    assert sum(name.startswith("query ") for name in names) == len(nudge.split.test.queries) - 3
    assert loaded.held_out.to_dict() == nudge.held_out.to_dict()
    assert loaded.to_dict() == nudge.to_dict()


def test_texts_are_saved_if_that_is_wanted(tuned, tmp_path):
    store, nudge = tuned
    nudge.save(tmp_path / "nudge", texts=True)
    loaded = Nudge.load(tmp_path / "nudge", store)
    assert by_text(loaded.held_out) == by_text(nudge.held_out)
    answers = {node for grades in nudge.held_out.pairs.qrels.values() for node in grades}
    assert loaded.held_out.texts == {node: f"{TEXT} {node}" for node in answers}


def test_what_is_told_of_single_queries_is_counted(tuned):
    _, nudge = tuned
    plain = json.loads(json.dumps(nudge.to_dict()["held_out"]))
    held_out = nudge.held_out
    old, new = (
        held_out.evaluations[state].of(held_out.metric, list(held_out.pairs.queries)) for state in ("untuned", "nudged")
    )
    wins, losses = int((new > old + 1e-9).sum()), int((new < old - 1e-9).sum())
    assert plain["against_untuned"]["nudged"] == {"wins": wins, "ties": len(old) - wins - losses, "losses": losses}
    times = {}
    for ranking in held_out.rankings["nudged"].values():
        for node in ranking[:10]:
            times[node] = times.get(node, 0) + 1
    assert plain["hubs"]["nudged"]["most_often"] == max(times.values())
    assert plain["hubs"]["nudged"]["nodes_returned"] == len(times)
    assert plain["hubs"]["nudged"]["mean"] == pytest.approx(sum(times.values()) / len(times))


def changed(value):
    """Values of other kinds, and near ones, to put in the place of one."""
    others = [None, "x", -1, 10**9, 0.5, [], {}, [value], ["x"], True]
    return [other for other in others if other != value]


def test_a_damaged_record_is_refused_by_one_error(tuned, tmp_path):
    store, nudge = tuned
    nudge.save(tmp_path / "nudge", texts=True)
    manifest, arrays = read_folder(tmp_path / "nudge")
    arrays = {name: np.array(array) for name, array in arrays.items()}
    places = arrays[HELD_OUT]
    damaged = [({**manifest, HELD_OUT: other}, arrays) for other in changed(manifest[HELD_OUT])]
    for name, value in manifest[HELD_OUT].items():
        without = {key: kept for key, kept in manifest[HELD_OUT].items() if key != name}
        damaged += [({**manifest, HELD_OUT: without}, arrays)]
        damaged += [({**manifest, HELD_OUT: {**manifest[HELD_OUT], name: other}}, arrays) for other in changed(value)]
    for place in range(3):
        deep = copy.deepcopy(manifest)
        deep[HELD_OUT]["grades"][place][0][place % 2] = (10**9, "x", None)[place]
        damaged.append((deep, arrays))
    damaged += [
        (manifest, {**arrays, HELD_OUT: other})
        for other in (
            places[:, :-1],
            places[0],
            places.astype(float),
            places + 10**6,
            places - 5,
            np.zeros_like(places),
        )
    ]
    refused = 0
    for content, numbers in damaged:
        write_folder(tmp_path / "damaged", {k: v for k, v in content.items() if not k.endswith("sha256")}, numbers)
        try:
            Nudge.load(tmp_path / "damaged", store).to_dict()
        except CorruptArchiveError:
            refused += 1
    # Texts that are left out or empty, in three ways each, make sense.
    assert len(damaged) - refused <= 6
    old = {name: value for name, value in manifest.items() if name != HELD_OUT and not name.endswith("sha256")}
    write_folder(tmp_path / "old", old, {name: array for name, array in arrays.items() if name != HELD_OUT})
    assert Nudge.load(tmp_path / "old", store).held_out is None
