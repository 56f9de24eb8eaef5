"""The shim of docs/guide/larger.md on a real Ray: the answers of this process, and workers that are killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

ray = pytest.importorskip("ray", reason="in the environment of `make test-lake`")

from nudge_rag.solvers import QueryAdapter  # noqa: E402
from nudge_rag.stores import ParquetStore, StoreError, map_nodes, scan  # noqa: E402
from nudge_rag.stores.lake.executors import map_fragments  # noqa: E402

# A cluster takes seconds to start.
pytestmark = [pytest.mark.server, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(8)
VECTORS = RNG.normal(size=(1200, 8)).astype(np.float32)
VECTORS[400:600] = VECTORS[:200]  # equal scores in other fragments
IDS = [f"n{row}" for row in range(1200)]
QUERIES = RNG.normal(size=(30, 8))


@pytest.fixture(scope="module")
def executor():
    page = (ROOT / "docs" / "guide" / "larger.md").read_text(encoding="utf-8")
    code = re.search(r"^```py\n(import ray\n.*?)^```$", page, re.M | re.S)[1]
    names = {}
    exec(code, names)
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield names["RayExecutor"]()
    ray.shutdown()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Six files of a fragment each."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for start in range(0, 1200, 200):
        rows = slice(start, start + 200)
        kind = pyarrow.list_(pyarrow.float32())
        table = pyarrow.table({"id": IDS[rows], "embedding": pyarrow.array(VECTORS[rows].tolist(), kind)})
        pyarrow.parquet.write_table(table, folder / f"part-{start:04d}.parquet")
    return ParquetStore(folder)


def die_once(fragment, flag):
    """The first to come kills its worker."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return fragment * 2
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def die(fragment, _):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(fragment, _):
    raise ValueError(f"no {fragment}")


def test_a_scan_and_a_map_are_those_of_this_process(store, executor):
    mine, theirs = scan(store, QUERIES, 25), scan(store, QUERIES, 25, executor)
    assert theirs.ids == mine.ids
    assert np.stack(theirs.scores).tobytes() == np.stack(mine.scores).tobytes()
    adapter = QueryAdapter(RNG.normal(size=(8, 8)).astype(np.float32) * 0.1)
    here = map_nodes(store, adapter.apply_to_nodes, "here").read(IDS)
    there = map_nodes(store, adapter.apply_to_nodes, "there", executor).read(IDS)
    assert there.tobytes() == here.tobytes()
    assert (here != VECTORS).any()


def test_a_worker_that_is_killed_costs_its_fragment(executor, tmp_path):
    flag = tmp_path / "died"
    assert sorted(map_fragments(die_once, range(5), str(flag), executor)) == [(row, 2 * row) for row in range(5)]
    assert flag.exists()


def test_a_fragment_that_kills_every_worker_and_an_error_of_ours_are_errors(executor):
    with pytest.raises(StoreError, match="a fragment could not be read in 3 tries"):
        list(map_fragments(die, [1], None, executor))
    with pytest.raises(ValueError, match="no 7"):
        list(map_fragments(fail, [7], None, executor))
