"""The three packages are published together: one version, one licence, one range of Python."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import nudge_rag
from nudge_rag.stores.catalog import RECORDS
from scripts.try_packages import LOWEST

ROOT = Path(__file__).parents[2]
CORE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INTEGRATIONS = ["langchain-nudge", "llama-index-retrievers-nudge"]


def test_the_version_stands_in_one_place():
    for folder in (ROOT, *(ROOT / "integrations" / name for name in INTEGRATIONS)):
        settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        assert settings["project"]["dynamic"] == ["version"]
        file = (folder / settings["tool"]["hatch"]["version"]["path"]).resolve()
        assert file == Path(nudge_rag.__file__).resolve()
    assert file.read_text(encoding="utf-8").count(f'__version__ = "{nudge_rag.__version__}"') == 1


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_wants_a_core_of_its_own_version(name):
    project = tomllib.loads((ROOT / "integrations" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    major, minor, _ = nudge_rag.__version__.split(".")
    assert f"nudge-rag>={major}.{minor}.0,<{major}.{int(minor) + 1}" in project["dependencies"]


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_is_published_like_the_core(name):
    folder = ROOT / "integrations" / name
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == name
    for entry in ("dynamic", "requires-python", "license", "license-files", "authors", "urls"):
        assert project[entry] == CORE["project"][entry], entry
    pythons = [line for line in project["classifiers"] if "Python ::" in line]
    assert pythons == [line for line in CORE["project"]["classifiers"] if "Python ::" in line]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_database_that_is_tested_is_tested_with_its_lowest_versions():
    chosen = {word for _, _, tests in LOWEST.values() for arguments in tests for word in arguments[-1].split(" or ")}
    # As pytest -k chooses: a word that is part of the name.
    left_out = [one.name for one in RECORDS if not one.experimental and not any(word in one.name for word in chosen)]
    assert left_out == []


def test_nothing_for_development_is_published():
    published = CORE["project"]["optional-dependencies"]
    assert not {"dev", "test", "lint"} & published.keys()
    assert not [extra for extra in published if extra.startswith("test")]
    requirements = " ".join(line for lines in published.values() for line in lines)
    assert "pytest" not in requirements
    assert {"dev", "lint", "test"} <= CORE["dependency-groups"].keys()
