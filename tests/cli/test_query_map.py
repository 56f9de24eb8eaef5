"""``eval`` asks every state of a store with the map of queries or of nodes that belongs to it."""

from __future__ import annotations

import argparse
import warnings
from contextlib import nullcontext

import pytest

from nudge_rag import tune
from nudge_rag.cli import evaluating
from tests.unit.tuning.test_reach import application


@pytest.mark.parametrize("reach", ["queries", "nodes"])
def test_a_saved_and_a_live_map_are_evaluated_alike(monkeypatch, tmp_path, reach):
    store, pairs, embed, _ = application()
    nudge = tune(store, pairs, embed, reach=reach, versions=tmp_path / "versions")
    nudge.save(tmp_path / "nudge")
    monkeypatch.setattr(evaluating, "open_named_store", lambda name: store)
    monkeypatch.setattr(evaluating, "load_pairs", lambda files, form, encoding=None: nudge.split.test)
    monkeypatch.setattr(evaluating, "load_model", lambda name: embed)
    monkeypatch.setattr(evaluating, "journal_of", lambda arguments: {"versions": tmp_path / "versions"})
    arguments = argparse.Namespace(
        store="store",
        pairs=[],
        format=None,
        encoding=None,
        trained_on=None,
        model="model",
        nudge=str(tmp_path / "nudge"),
    )
    offered = evaluating.compare_states(arguments, ["nDCG@10"])
    told = pytest.warns(UserWarning, match="queries must pass nudge.adapter")
    with told if reach == "queries" else nullcontext():
        nudge.push()
    arguments.nudge = None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was made from")
        live = evaluating.compare_states(arguments, ["nDCG@10"])
    assert list(offered.systems) == ["untuned", "nudged"]
    assert live.row("live", "nDCG@10").mean == pytest.approx(offered.row("nudged", "nDCG@10").mean)
    expected = nudge.comparison.rows[0]
    assert live.row("live", "nDCG@10").mean == pytest.approx(expected.after)
    assert live.row("untuned", "nDCG@10").mean == pytest.approx(expected.before)
    learned = nudge.split.train
    monkeypatch.setattr(evaluating, "load_pairs", lambda files, form, encoding=None: learned)
    n_queries = learned.n_queries
    with pytest.warns(UserWarning, match=f"{n_queries} of {n_queries} queries are among those .* was made from"):
        evaluating.compare_states(arguments, ["nDCG@10"])
