"""The options that integrations pass on are those of `nudge_rag.tune`."""

from __future__ import annotations

import inspect
from typing import get_args

import nudge_rag
from nudge_rag.solvers.registry import SOLVERS
from nudge_rag.tuning.options import SolverName, TuneOptions


def test_options_are_the_keyword_arguments_of_tune():
    parameters = inspect.signature(nudge_rag.tune).parameters.values()
    assert set(TuneOptions.__annotations__) == {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


def test_names_are_those_of_the_solvers():
    assert set(get_args(SolverName)) == set(SOLVERS)
