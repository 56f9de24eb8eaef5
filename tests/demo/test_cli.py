"""The demo as a user runs it, with every framework and store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMAND = [str(Path(sys.executable).parent / "nudge-rag")]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("framework", "store", "solver"),
    [
        ("llama-index", "chroma", "auto"),
        ("llama-index", "simple", "nudge-contrastive"),
        ("langchain", "chroma", "nudge-n"),
        ("langchain", "in-memory", "nudge-n"),
    ],
)
def test_demo(tmp_path, framework, store, solver):
    path = tmp_path / "figures.json"
    options = ["--framework", framework, "--store", store, "--solver", solver]
    result = run("demo", *options, "--pairs", "400", "--json", str(path))
    assert result.returncode == 0, result.stderr
    figures = json.loads(path.read_text())
    assert figures["queries"] == {"train": 280, "val": 40, "test": 80}
    assert figures["rolled_back_exactly"] is True
    assert figures["gamma"] > 0
    for metric in ("nDCG@10", "Recall@1", "Recall@10"):
        assert 0 < figures["before"][metric] < figures["after"][metric] < 1
    assert result.stdout.count("better:") == 3
    assert result.stdout.count("worse:") == 1
    for words in ("covered", "uncovered", "pushed", "as they were, bit for bit"):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--framework", "langchain", "--store", "simple"],
            "langchain has the stores chroma and in-memory, got",
        ),
        (["--framework", "llama-index", "--store", "in-memory"], "llama-index has the stores chroma and simple"),
        (["--pairs", "none"], "--pairs must be a positive number or 'all', got 'none'"),
        (["--pairs", "0"], "--pairs must be a positive number"),
        (["--store", "nowhere"], "invalid choice: 'nowhere'"),
    ],
)
def test_bad_arguments_end_with_status_2_and_a_line(arguments, message):
    result = run("demo", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
