"""The options of tune: one list of them, for the type and for the defaults; mistakes are named."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import fields
from typing import get_args, get_type_hints

import numpy as np
import pytest

from nudge_rag import LabeledPairs, TuningState, tune
from nudge_rag.solvers.registry import SOLVERS
from nudge_rag.stores import MappingStore
from nudge_rag.tuning.options import SolverName, StateOptions, TuneOptions, TuneSettings

PAIRS = LabeledPairs.from_pairs((f"how do I leave {number}", "exit") for number in range(40))


def store():
    return MappingStore({"exit": [1.0, 0.0, 0.0], "enter": [0.0, 1.0, 0.0], "bill": [0.0, 0.0, 1.0]})


def embed(texts):
    return np.tile([0.6, 0.7, 0.1], (len(texts), 1))


def test_every_option_has_a_type_and_a_default():
    assert set(get_type_hints(TuneOptions)) == {option.name for option in fields(TuneSettings)}
    assert set(get_type_hints(StateOptions)) < set(get_type_hints(TuneOptions))
    assert set(get_args(SolverName)) == set(SOLVERS)


def test_every_option_is_described():
    section = inspect.getdoc(tune).partition("Keyword Args:\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^    (\w+):", section, re.MULTILINE)) == set(get_type_hints(TuneOptions))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gama": 3}, r"tune\(\) has no option 'gama'; it has solver, metrics, split, "),
        ({"metric": ["nDCG@10"]}, r"tune\(\) has no option 'metric'; did you mean 'metrics'\?"),
    ],
)
def test_an_option_that_does_not_exist_is_named(options, message):
    with pytest.raises(TypeError, match=message):
        tune(store(), PAIRS, embed, **options)


def test_a_state_says_what_it_takes():
    with pytest.raises(TypeError, match=r"TuningState\(\) has no option 'sed'; did you mean 'seed'\?"):
        TuningState(store(), embed, sed=1)


@pytest.mark.parametrize("make", [tune, TuningState])
def test_no_metric_is_refused(make):
    arguments = (store(), PAIRS, embed) if make is tune else (store(), embed)
    with pytest.raises(ValueError, match="metrics must name at least one metric, such as 'nDCG@10'"):
        make(*arguments, metrics=[])


def test_candidates_are_competitors_and_settings_tried(tmp_path):
    with pytest.warns(DeprecationWarning, match=r"tune\(candidates=\) is deprecated: use competitors=") as caught:
        nudge = tune(store(), PAIRS, embed, candidates="scan", versions=tmp_path)
    assert {warning.filename for warning in caught} == {__file__}
    assert nudge.reads.method == "scan"
    with pytest.warns(DeprecationWarning, match=r"TuningState\(candidates=\) is deprecated: use competitors="):
        assert TuningState(store(), embed, candidates="scan", versions=tmp_path).competitors == "scan"
    with pytest.warns(DeprecationWarning, match=r"Nudge.candidates is deprecated: use tried") as caught:
        assert nudge.candidates == nudge.tried
    assert {warning.filename for warning in caught} == {__file__}


def test_the_names_of_today_warn_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tune(store(), PAIRS, embed, competitors="scan", versions=tmp_path).tried


def test_warnings_point_at_the_caller(tmp_path):
    pairs = LabeledPairs.from_pairs([*((text, "exit") for text in PAIRS.queries.values()), ("who are you", "nobody")])
    with pytest.warns(UserWarning, match="'nobody'") as caught:
        tune(store(), pairs, embed, versions=tmp_path)
    assert {warning.filename for warning in caught} == {__file__}
