"""Fine-tuning of the encoder in the accuracy benchmark: its batches, its cache, and that rate 0 leaves it as it was."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_rag import LabeledPairs, Split

pytestmark = pytest.mark.slow

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
TEXTS = ["Paris is in France.", "Water boils at 100 degrees.", "Cats are mammals.", "Bread is baked."]
QUERIES = {"quoth": 0, "zyx": 1, "blorp": 2, "frim": 3, "val": 0, "test": 1}


@pytest.fixture(autouse=True, scope="module")
def _benchmarks_are_modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def data_of(texts, train, val=None, test=None):
    """Texts and, of each part, the answers of each query as rows; the ready embeddings are not looked at."""
    from data_sets import Data

    def pairs(answers):
        return LabeledPairs(
            {query: query for query in answers},
            {query: {str(node): 1 for node in nodes} for query, nodes in answers.items()},
        )

    parts = [train, val or {"val": [0]}, test or {"test": [0]}]
    split = Split(*(pairs(part) for part in parts))
    queries = {query: np.zeros(384, dtype=np.float32) for part in parts for query in part}
    ids = [str(row) for row in range(len(texts))]
    return Data(ids, texts, np.zeros((len(texts), 384), dtype=np.float32), split, queries)


@pytest.fixture
def nonsense():
    """Each text has a training query whose word says nothing of it; so have the other parts' queries."""
    answers = {query: [node] for query, node in QUERIES.items()}
    val, test = {"val": answers.pop("val")}, {"test": answers.pop("test")}
    return data_of(TEXTS, answers, val, test)


@given(
    answers=st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=25),
    size=st.integers(2, 6),
    seed=st.integers(0, 3),
)
def test_batches_hold_every_pair_once_and_no_false_negative(answers, size, seed):
    from fine_tuning import batches

    data = data_of(["text"] * 10, {f"q{row}": sorted(nodes) for row, nodes in enumerate(answers)})
    made = batches(data, data.split.train, size, seed)
    for batch in made:
        assert 2 <= len(batch) <= size
        for query, node in batch:
            assert node in answers[query]
            assert not any(other in answers[query] for asker, other in batch if (asker, other) != (query, node))
    seen = Counter(pair for batch in made for pair in batch)
    assert not seen or max(seen.values()) == 1
    # Those left out could not be put beside any other that is left out, or they would not be alone.
    left = {(query, node) for query, nodes in enumerate(answers) for node in nodes} - set(seen)
    for one in left:
        for other in left - {one}:
            assert other[1] in answers[one[0]] or one[1] in answers[other[0]]


def test_rate_0_is_untuned(nonsense, tmp_path):
    from fine_tuning import SETTINGS, fine_tune

    from nudge_rag.demo.encoder import CachedEncoder

    tuned = fine_tune(nonsense, replace(SETTINGS, rate=0.0), tmp_path)
    encoder = CachedEncoder(tmp_path)
    np.testing.assert_allclose(tuned.vectors, encoder.encode(TEXTS), atol=1e-6)
    assert tuned.embed is not None
    np.testing.assert_allclose(tuned.embed(["test", "quoth"]), encoder.encode(["test", "quoth"]), atol=1e-6)


def test_training_draws_queries_to_their_answers_and_is_cached(nonsense, tmp_path):
    from fine_tuning import SETTINGS, cached, fine_tune

    def margin(tuned) -> float:
        """By how much the own answers of the training queries lead the others, on average."""
        scores = tuned.embed(list(nonsense.split.train.queries.values())) @ tuned.vectors.T
        own = np.eye(4, dtype=bool)
        return float(scores[own].mean() - scores[~own].mean())

    settings = replace(SETTINGS, rate=1e-4, batch=4)
    assert cached(nonsense, settings, tmp_path) is None
    tuned = fine_tune(nonsense, settings, tmp_path)
    assert margin(tuned) > margin(fine_tune(nonsense, replace(settings, rate=0.0), tmp_path)) + 0.01

    again = cached(nonsense, settings, tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.vectors, tuned.vectors)
    np.testing.assert_array_equal(again.embed(["test"]), tuned.embed(["test"]))
    assert (again.seconds, again.seconds_to_embed) == (tuned.seconds, tuned.seconds_to_embed)
    assert again.seconds > 0

    # Another label, another text, another setting: not the same run.
    fewer = data_of(TEXTS, {"quoth": [0], "zyx": [1]}, {"val": [0]}, {"test": [1]})
    assert cached(fewer, settings, tmp_path) is None
    assert cached(replace(nonsense, texts=[*TEXTS[:3], "x"]), settings, tmp_path) is None
    assert cached(nonsense, replace(settings, seed=1), tmp_path) is None


def test_what_is_not_cached_has_no_row(monkeypatch, tmp_path, nonsense):
    import accuracy

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(accuracy, "load", lambda name: nonsense)
    lines = accuracy.section_of("scifact", ["fine-tuned encoder"], fine_tuning_too=False)
    assert lines[-2].startswith("|---")
    lines = accuracy.section_of("scifact", ["fine-tuned encoder"], fine_tuning_too=True)
    assert lines[-2].startswith("| fine-tuned encoder |")
    assert "to embed again" in lines[-2]
    (record,) = (tmp_path / "nudge-rag" / "fine-tuned").glob("*.json")
    measured = json.loads(record.read_text())["nDCG@10"]
    assert f"| {100 * measured['all']:.1f} |" in lines[-2]
