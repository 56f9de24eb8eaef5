"""The packages stand on floors: nothing imports upwards, and no two modules import each other."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import nudge_rag

ROOT = Path(nudge_rag.__file__).parent
# A package may import from the floors below its own, and from the packages named before it on its own floor.
FLOORS = [
    ["errors", "common"],
    ["stores", "feedback", "evaluation", "solvers"],
    ["journal"],
    ["tuning"],
    ["compat", "demo", "cli"],
]


def modules() -> dict[str, Path]:
    paths = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


MODULES = modules()


def is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def imported(path: Path) -> set[str]:
    """Modules of the library that a file imports, those inside functions and those for types included.

    A package's face that imports names only when they are asked for lists them for type checkers as well; as it loads
    nothing, those do not count.
    """
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name == "__init__.py":
        tree.body = [
            part for part in tree.body if not (isinstance(part, ast.If) and "TYPE_CHECKING" in ast.dump(part.test))
        ]
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{path} has a relative import"
            inside = {f"{statement.module}.{alias.name}" for alias in statement.names}
            names |= {name if name in MODULES else str(statement.module) for name in inside}
    return names & MODULES.keys()


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """What each module imports; every process that collects tests would read all files otherwise."""
    return {name: imported(path) - {name} for name, path in MODULES.items()}


def room(module: str) -> str:
    """First part below ``nudge_rag``; empty for the package itself, which re-exports everything."""
    return module.removeprefix("nudge_rag").removeprefix(".").partition(".")[0]


def test_every_package_has_a_floor():
    assert {room(name) for name in MODULES} - {""} == {name for floor in FLOORS for name in floor}


def test_nothing_imports_upwards(arrows):
    height = {name: (floor, at) for floor, names in enumerate(FLOORS) for at, name in enumerate(names)}
    upwards = {
        f"{name} imports {target}"
        for name, targets in arrows.items()
        for target in targets
        if room(name) and room(name) != room(target) and room(target)
        if height[room(target)] >= height[room(name)]
    }
    assert upwards == set()


def test_only_the_command_imports_the_public_face(arrows):
    """Inside the library every name comes from the module that defines it."""
    assert {room(name) for name, targets in arrows.items() if "nudge_rag" in targets} == {"cli"}


def test_no_modules_import_each_other(arrows):
    sorter = TopologicalSorter(arrows)
    try:
        sorter.prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_graph_is_not_empty(arrows):
    """A graph that found no arrows would pass everything above."""
    assert "nudge_rag.journal.push" in arrows["nudge_rag.tuning.nudge"]
    assert "nudge_rag.demo.langchain" in arrows["nudge_rag.demo.frameworks"]  # inside a function
