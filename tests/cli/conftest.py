"""The application of the tests, and the command as a user calls it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cli import shop
from tests.support.fixtures import servers  # noqa: F401
from tests.support.forking_commands import COMMAND as CODE
from tests.support.forking_commands import ForkingParent

FOLDER = Path(__file__).parent
COMMAND = [sys.executable, "-c", CODE]


class Command:
    """``nudge-rag`` in a process of its own."""

    parent = ForkingParent()

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *arguments):
        return self.run(CODE, *arguments)

    def run(self, code, *arguments):
        """Run ``code`` with the arguments, as ``python -c`` does."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}
        return self.parent.run(code, [str(argument) for argument in arguments], self.folder, environment)

    def answer(self, *arguments, code=0):
        """The result of a call with --json that is to end with ``code``; None for any."""
        result = self(*arguments, "--json")
        assert code in (None, result.returncode), result.stdout + result.stderr
        document = json.loads(result.stdout)
        assert document["schema"] == "nudge-rag/cli/1"
        assert document["exit_code"] == result.returncode
        return document.get("result", document.get("error"))


@pytest.fixture(scope="session", autouse=True)
def parent_of_commands():
    """Ends with the tests."""
    yield
    Command.parent.stop()


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture
def application(tmp_path):
    """The files of the application, indexed in DuckDB, the quickest to open; gives the store's URL."""
    shop.write_files(tmp_path)
    shop.index_in_duckdb(shop.read_folder(tmp_path / "texts"), tmp_path / "shop.duckdb")
    return "duckdb://./shop.duckdb?table=docs&similarity=cosine"
