"""The environments that the Makefile uses: made of what pyproject.toml offers, installed into only if out of date."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from scripts import environment as environments
from scripts.environment import ENVIRONMENTS, set_up, wanted_digest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what decides about an environment; pip is not run but noted."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "CONSTRAINTS", tmp_path / "constraints.txt")
    installs = []
    monkeypatch.setattr(environments, "pip", lambda environment, *arguments: installs.append(arguments))
    core = ENVIRONMENTS["core"]
    core.python.parent.mkdir(parents=True)
    core.python.touch()
    return core, tmp_path, installs


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_made_of_what_is_there(name):
    assert set(ENVIRONMENTS[name].extras) <= SETTINGS["project"]["optional-dependencies"].keys()
    assert set(ENVIRONMENTS[name].groups) <= SETTINGS["dependency-groups"].keys()


def test_the_makefile_names_environments():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    jobs = re.search(r"^JOBS := (.*)$", makefile, re.M)[1].split()
    assert re.search(r"^LAKE := lake$", makefile, re.M)
    assert {"core", "main", "demo", "experimental", "lake", *jobs} == ENVIRONMENTS.keys()


def test_nothing_is_installed_twice(project):
    core, _, installs = project
    set_up(core)
    # pip itself, and then the project with its group.
    assert len(installs) == 2
    assert installs[1][-4:] == ("--editable", ".", "--group", "test")
    set_up(core)
    assert len(installs) == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("pyproject.toml", '"numpy>=1.26"', '"numpy>=2"', True),
        ("pyproject.toml", '"pytest>=8.3"', '"pytest>=8.4"', True),
        ("constraints.txt", "torch==2.13.0", "torch==2.14.0", True),
        ("pyproject.toml", "line-length = 120", "line-length = 100", False),
    ],
)
def test_only_what_decides_makes_it_out_of_date(project, file, old, new, again):
    core, root, installs = project
    set_up(core)
    text = (root / file).read_text(encoding="utf-8")
    assert old in text
    (root / file).write_text(text.replace(old, new), encoding="utf-8")
    set_up(core)
    assert len(installs) == (4 if again else 2)


def test_an_install_that_fails_is_tried_again(project, monkeypatch):
    core, _, _ = project

    def fails(environment, *arguments):
        raise OSError("no network")

    monkeypatch.setattr(environments, "pip", fails)
    with pytest.raises(OSError, match="no network"):
        set_up(core)
    assert not core.stamp.exists()


def test_a_lock_holds_for_its_python_and_system_alone(project):
    core, root, installs = project
    core.lock.parent.mkdir()
    core.lock.write_text(f"# {environments.made_with()}\nnumpy==2.4.6\n", encoding="utf-8")
    locked = wanted_digest(core)
    set_up(core)
    assert str(core.lock) in installs[-1]
    core.lock.write_text("# Python 2.7 on os2\nnumpy==1.0\n", encoding="utf-8")
    assert wanted_digest(core) != locked
    set_up(core)
    assert str(core.lock) not in installs[-1]
    assert str(root / "constraints.txt") in installs[-1]
