"""A new user's day in a shell script, on Chroma and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli import shop
from tests.cli.conftest import FOLDER
from tests.support.forking_commands import COMMAND, ForkingParent

FINGERPRINT = """
import hashlib, sys
from nudge_rag import open_store
rows = sorted((node, vector.tobytes()) for ids, vectors in open_store(sys.argv[1]).scan()
              for node, vector in zip(ids, vectors, strict=True))
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


# What the commands import for these two databases.
MODULES = (
    "chromadb.api.fastapi",
    "chromadb.api.rust",
    "h2.connection",
    "httpcore",
    "psycopg",
    "nudge_rag.stores.chroma",
)
# In place of the command: has it run by the forking parent, in this folder and into the files of this process.
ASK = """#!/usr/bin/env bash
printf '%s\\0' "$PWD" "/proc/$$/fd/1" "/proc/$$/fd/2" "$@" > {requests}
read -r status < {answers}
exit "$status"
"""
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])}


@pytest.fixture(scope="module")
def parent():
    """Forks processes that have imported the clients of both databases."""
    made = ForkingParent(*MODULES)
    yield made
    made.stop()


@pytest.fixture(params=["chroma", "postgres"])
def store(request, tmp_path, servers, parent):
    """A store with the texts of a folder."""
    shop.write_files(tmp_path)
    if request.param == "chroma":
        url, target = f"chroma://{tmp_path}/chroma?collection=docs", tmp_path / "chroma"
    else:
        from tests.support.builders.postgres import new_database

        target = new_database(servers)
        url = f"{target}{'&' if '?' in target else '?'}table=docs&similarity=cosine"
    code = f"import runpy; runpy.run_path({str(FOLDER / 'shop.py')!r}, run_name='__main__')"
    filled = parent.run(code, [str(tmp_path / "texts"), str(target)], tmp_path, os.environ | ENVIRONMENT)
    assert filled.returncode == 0, filled.stderr
    return url


@pytest.fixture
def binaries(parent, tmp_path):
    """A folder with ``nudge-rag``, whose calls a thread of this process hands to the parent."""
    folder = tmp_path / "bin"
    folder.mkdir()
    requests, answers, command = (folder / name for name in ("requests", "answers", "nudge-rag"))
    os.mkfifo(requests)
    os.mkfifo(answers)
    command.write_text(ASK.format(requests=requests, answers=answers))
    command.chmod(0o755)

    def serve():
        while request := requests.read_bytes():
            work, output, error, *arguments = request.decode().split("\0")[:-1]
            status = 70  # if the parent fails, which is raised in the end
            try:
                status = parent.run_into([output, error], COMMAND, arguments, Path(work), os.environ | ENVIRONMENT)
            finally:
                answers.write_text(f"{status}\n")

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        yield folder
        requests.write_bytes(b"")
        serving.result()


def fingerprint(parent, folder, url):
    result = parent.run(FINGERPRINT, [url], folder, os.environ | ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_walkthrough(store, parent, binaries, tmp_path):
    before = fingerprint(parent, tmp_path, store)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    work = tmp_path / "work"
    result = subprocess.run(
        [FOLDER / "walkthrough.sh", store, tmp_path / "clicks.csv", "shop:embed", work],
        capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("--- done\n")
    assert "Push: nDCG@10 on" in result.stdout
    assert "gate passes: nDCG@10 of nudged changes by +" in result.stdout
    assert "vectors pushed as version" in result.stdout
    assert "bit for bit" in result.stdout
    live = json.loads((work / "live.json").read_text())["result"]
    means = {row["system"]: row["mean"] for row in live["rows"] if (row["metric"], row["group"]) == ("nDCG@10", "all")}
    assert means["live"] > means["untuned"]
    for page in ("tuned", "before", "pushed"):
        assert "default-src" in (work / f"{page}.html").read_text(encoding="utf-8")
        json.loads((work / f"{page}.json").read_text(encoding="utf-8"))
    assert fingerprint(parent, tmp_path, store) == before
