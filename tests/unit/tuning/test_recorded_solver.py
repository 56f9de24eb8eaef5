"""A state that is loaded goes on with the solver that it was saved with."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from nudge_rag import (
    AutoSolver,
    CorruptArchiveError,
    LabeledPairs,
    Nudge,
    NudgeContrastive,
    NudgeN,
    TuningState,
)
from nudge_rag.common.archive import encode_manifest
from nudge_rag.stores import MappingStore


def embed(texts):
    return np.array([np.random.default_rng(list(text.encode())).normal(size=3) for text in texts])


@pytest.fixture
def make(tmp_path):
    store = MappingStore(
        dict(zip("abcd", np.eye(4, 3).tolist(), strict=True)) | {"d": [0.5, 0.5, 0.5]}, similarity="dot", key="solvers"
    )

    def state(**options):
        made = TuningState(store, embed, versions=tmp_path / "v", **options)
        made.add_pairs(LabeledPairs.from_pairs((f"{row} of {row % 4}", "abcd"[row % 4]) for row in range(40)))
        made.save(tmp_path / "state")
        return made

    def load(**options):
        return TuningState.load(tmp_path / "state", store, embed, versions=tmp_path / "v", **options)

    state.load, state.folder, state.store = load, tmp_path / "state", store
    return state


def settings_of(state):
    return {name: value for name, value in vars(state.solver).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "nudge-m", "metrics": ["MRR@4"]},
        {"solver": "nudge-contrastive"},
        {"solver": "auto"},
        {"solver": "auto", "reach": "queries", "uncovered_tolerance": math.inf, "uncovered_share": 0.3},
    ],
    ids=str,
)
def test_the_solver_is_the_one_that_was_saved(make, options):
    made = make(**options)
    metrics = {name: value for name, value in options.items() if name == "metrics"}
    for _ in range(2):  # also if what was loaded is saved again
        again = make.load(**metrics)
        assert type(again.solver) is type(made.solver)
        assert str(settings_of(again)) == str(settings_of(made))
        again.save(make.folder)
    named = make.load(solver="nudge-contrastive")
    assert isinstance(named.solver, NudgeContrastive)


@pytest.mark.parametrize(
    "solver",
    [
        NudgeContrastive(metric="nDCG@10", similarity="dot"),
        AutoSolver(metric="nDCG@10", similarity="dot"),
        NudgeN(similarity="dot"),
    ],
    ids=lambda solver: solver.name,
)
def test_an_object_that_is_as_its_name_makes_it_is_made_again(make, solver):
    made = make(solver=solver)
    again = make.load()
    assert type(again.solver) is type(solver)
    assert str(settings_of(again)) == str(settings_of(made))


@pytest.mark.parametrize(
    "solver",
    [NudgeN(gamma=0.2, similarity="dot"), AutoSolver(metric="nDCG@10", similarity="dot", reach="queries")],
    ids=lambda solver: solver.name,
)
def test_an_object_with_settings_of_its_own_is_asked_for(make, solver):
    make(solver=solver)
    message = rf"was made with a solver object of its own \({solver.name}\), .*: pass it as solver="
    with pytest.raises(ValueError, match=message):
        make.load()
    assert make.load(solver=solver).solver is solver
    assert isinstance(make.load(solver="nudge-n").solver, NudgeN)


def rewrite(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))


def test_a_state_of_an_earlier_release_is_solved_by_nudge_n(make):
    make(solver="nudge-contrastive")
    rewrite(make.folder, lambda manifest: manifest.pop("solver"))
    assert isinstance(make.load().solver, NudgeN)


@pytest.mark.parametrize(
    "wrong",
    [
        "auto",
        [],
        {"name": "auto"},
        {"name": 3, "is_own": False, "options": {}},
        {"name": "auto", "is_own": False, "options": {"reach": "everything"}},
        {"name": "auto", "is_own": False, "options": {"reach": ["queries"]}},
        {"name": "auto", "is_own": False, "options": {"uncovered_share": "0.3"}},
        {"name": "auto", "is_own": False, "options": {"versions": "/elsewhere"}},
        {"name": "nudge-n", "is_own": False, "options": {"reach": "queries"}},
    ],
    ids=str,
)
def test_a_record_that_is_no_solvers_is_refused(make, wrong):
    make()
    rewrite(make.folder, lambda manifest: manifest.update(solver=wrong))
    with pytest.raises(CorruptArchiveError, match="does not hold a tuning state"):
        make.load()


def test_a_solver_of_a_later_release_is_named(make):
    make()
    rewrite(make.folder, lambda manifest: manifest["solver"].update(name="nudge-z"))
    message = "its solver is 'nudge-z', with 0 options; one of auto, nudge-n, nudge-m, nudge-contrastive is known"
    with pytest.raises(CorruptArchiveError, match=message):
        make.load()


def test_a_folder_that_is_not_there_is_named(make, tmp_path):
    make()
    nowhere = tmp_path / "nowhere"
    for load in (TuningState.load, Nudge.load):
        arguments = (make.store, embed) if load == TuningState.load else (make.store,)
        with pytest.raises(FileNotFoundError, match=re.escape(f"there is no folder {str(nowhere)!r}")):
            load(nowhere, *arguments)
        nowhere.mkdir()
        with pytest.raises(CorruptArchiveError, match=r"manifest\.json cannot be read"):
            load(nowhere, *arguments)
        nowhere.rmdir()
