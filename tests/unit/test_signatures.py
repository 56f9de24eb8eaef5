"""Functions take fewer than eight arguments and are short; those that take more say why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_ARGUMENTS = 7
MOST_LINES = 45  # docstrings do not count
# Of each the reason. All but the first arguments are given by keyword.
EXCEPTIONS = {
    "nudge_rag.evaluation.retrievers.evaluate_retrievers": "options used one by one, as scikit-learn's cross_validate",
    "nudge_rag.evaluation.retrievers.aevaluate_retrievers": "the same arguments as evaluate_retrievers",
    "nudge_rag.feedback.questions.generate_questions": "four things that it works on, four options used one by one",
    "nudge_rag.feedback.readers.langfuse.from_langfuse": "what Langfuse leaves to each project, and every reader's two",
    "nudge_rag.solvers.contrastive.solver.NudgeContrastive.__init__": "an estimator's parameters, tuned one by one",
    "nudge_rag.stores.lance.store.LanceStore.__init__": "columns and search options of a table, as the client has them",
    "nudge_rag.stores.postgres.store.PgVectorStore.__init__": "names in a database, as in the frameworks' own classes",
    "llama_index.retrievers.nudge.base.NudgeRetriever.__init__": "the framework's retrievers take their options flat",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Modules of the core and of both integrations, by their dotted names."""
    for place in (
        ROOT / "nudge_rag",
        *(ROOT / "integrations").glob("*/langchain_nudge"),
        *(ROOT / "integrations").glob("*/llama_index"),
    ):
        for path in place.rglob("*.py"):
            name = ".".join(path.relative_to(place.parent).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST, name: str, *, in_class: bool = False) -> Iterator[tuple[str, int, int]]:
    """Of every function the dotted name, the number of its arguments without self, and of the lines of its body."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            arguments = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            if in_class and arguments[:1] in (["self"], ["cls"]):
                del arguments[0]
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield f"{name}.{node.name}", len(arguments), lines
            yield from functions(node, f"{name}.{node.name}")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{name}.{node.name}", in_class=True)
        elif not isinstance(node, ast.expr):  # in which there are lambdas alone
            yield from functions(node, name)


@pytest.fixture(scope="module")
def modules() -> list[tuple[str, ast.Module]]:
    """Every module, parsed once; each process that collects tests would read all files otherwise."""
    return list(sources())


@pytest.fixture(scope="module")
def found(modules) -> list[tuple[str, int, int]]:
    return [function for name, tree in modules for function in functions(tree, name)]


def test_more_than_seven_arguments_have_a_reason(found):
    """A name in the list that has fewer by now is taken off it."""
    assert {name for name, arguments, _ in found if arguments > MOST_ARGUMENTS} == EXCEPTIONS.keys()


def test_more_than_seven_values_are_given_by_name(modules):
    """Of records too, which have as many fields as they must."""
    calls = [(name, call) for name, tree in modules for call in ast.walk(tree) if isinstance(call, ast.Call)]
    assert len(calls) > 10_000
    by_place = [(name, call) for name, call in calls if isinstance(call.func, ast.Name)]
    assert [f"{name}:{call.lineno}" for name, call in by_place if len(call.args) > MOST_ARGUMENTS] == []


def test_no_function_is_long(found):
    assert [name for name, _, lines in found if lines > MOST_LINES] == []


SOURCE = '''
class C:
    def f(self, a, *, b=1):
        """Says
        what."""
        x = a
        def g(c): return c
        return x
'''


def test_arguments_and_lines_are_counted(found):
    """Counts that missed methods or keywords would pass everything above."""
    assert list(functions(ast.parse(SOURCE), "m")) == [("m.C.f", 2, 3), ("m.C.f.g", 1, 1)]
    assert len(found) > 3000
