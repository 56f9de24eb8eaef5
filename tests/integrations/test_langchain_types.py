"""A type checker refuses options of `langchain_nudge.tune` that do not exist, and values that none of them takes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from typing import Any
from langchain_nudge import tune
from nudge_rag import LabeledPairs, NudgeN
def use(store: Any, pairs: LabeledPairs) -> None:
    tune(store, pairs, solver="nudge-n", metrics=["MRR@10"], seed=3, versions="folder")
    tune(store, pairs, solver=NudgeN(similarity="dot"))
    tune(store, pairs, solver="nudg-n")
    tune(store, pairs, gama=3)
    tune(store, pairs, seed="3")
"""
OURS = ("nudge_rag", "langchain_nudge")
# Of others' packages, which say nothing about our options, mypy would read nine thousand files.
CONFIGURATION = """
[mypy]
strict = True
explicit_package_bases = True
namespace_packages = True
ignore_missing_imports = True
mypy_path = {root}, {root}/integrations/langchain-nudge
[mypy-{others}]
follow_imports = skip
follow_imports_for_stubs = True
"""


def test_mypy_refuses_what_tune_does_not_take(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    others = [f"{name}.*" for name in packages_distributions() if name.isidentifier()]
    skipped = ",".join(set(others) - {f"{name}.*" for name in (*OURS, "typing_extensions")})
    configuration = tmp_path / "mypy.ini"
    configuration.write_text(CONFIGURATION.format(root=ROOT, others=skipped))
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--config-file", str(configuration), str(program)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout
    lines = PROGRAM.splitlines()
    refused = {int(number): text for number, text in re.findall(r"program\.py:(\d+): error: (.*)", found)}
    assert {lines[number - 1].strip() for number in refused} == {line.strip() for line in lines[-3:]}, found
    wrong_name, unknown, wrong_type = (refused[number] for number in sorted(refused))
    assert "Literal['nudg-n']" in wrong_name
    assert 'Unexpected keyword argument "gama"' in unknown
    assert 'expected "int"' in wrong_type
