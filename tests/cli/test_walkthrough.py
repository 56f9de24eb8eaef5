"""A new user's day in a shell script, on Chroma and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.cli import shop
from tests.cli.conftest import FOLDER

FINGERPRINT = """
import hashlib, sys
from nudge_rag import open_store
rows = sorted((node, vector.tobytes()) for ids, vectors in open_store(sys.argv[1]).scan()
              for node, vector in zip(ids, vectors, strict=True))
print(hashlib.sha256(repr(rows).encode()).hexdigest())
"""


@pytest.fixture(params=["chroma", "postgres"])
def store(request, tmp_path, servers):
    """A store with the texts of a folder."""
    shop.write_files(tmp_path)
    if request.param == "chroma":
        url, target = f"chroma://{tmp_path}/chroma?collection=docs", tmp_path / "chroma"
    else:
        from tests.support.builders.postgres import new_database

        target = new_database(servers)
        url = f"{target}{'&' if '?' in target else '?'}table=docs&similarity=cosine"
    subprocess.run([sys.executable, FOLDER / "shop.py", tmp_path / "texts", target], check=True)
    return url


def fingerprint(url):
    result = subprocess.run([sys.executable, "-c", FINGERPRINT, url], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_the_walkthrough(store, tmp_path):
    before = fingerprint(store)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    command = binaries / "nudge-rag"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom nudge_rag.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path]),
    }
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
    assert fingerprint(store) == before
