"""``import nudge_rag`` loads no adapter, and the names that it defers are those that type checkers see."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import nudge_rag
import nudge_rag.stores
from nudge_rag.stores.catalog import RECORDS

# Errors, and what reads a URL; adapters, solvers, tuning and the journal come with the first use of a name.
MOST_MODULES = 30


def loaded_by(statement: str) -> set[str]:
    """Own modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys, json; {statement}; print(json.dumps([m for m in sys.modules if m.startswith('nudge_rag')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement", ["import nudge_rag", "import nudge_rag.stores", "from nudge_rag import open_store"]
)
def test_no_adapter_is_loaded(statement):
    loaded = loaded_by(statement)
    adapters = {record.adapter.partition(":")[0] for record in RECORDS}
    assert len(adapters) == len(RECORDS)
    assert loaded & adapters == set()
    assert len(loaded) <= MOST_MODULES


def test_one_adapter_is_loaded_if_it_is_asked_for():
    loaded = loaded_by("from nudge_rag.stores import MappingStore")
    assert "nudge_rag.stores.memory.mapping" in loaded
    assert not any("chroma" in name or "duckdb" in name for name in loaded)


@pytest.mark.parametrize("package", [nudge_rag, nudge_rag.stores])
def test_what_type_checkers_see_is_what_there_is(package):
    """Imports under TYPE_CHECKING name the module of each deferred name: the name must be that module's."""
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    for name, module in seen.items():
        assert getattr(package, name) is getattr(__import__(module, fromlist=[name]), name)
    assert seen.keys() <= set(package.__all__)
    assert set(package.__all__) <= {*seen, *dir(package)}
    assert all(hasattr(package, name) for name in package.__all__)


def test_an_unknown_name_is_an_attribute_error():
    for package in (nudge_rag, nudge_rag.stores):
        with pytest.raises(AttributeError, match=r"module 'nudge_rag.*' has no attribute 'tunee'"):
            package.tunee  # noqa: B018
