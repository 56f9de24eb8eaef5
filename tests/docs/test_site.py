"""The site builds without a warning, and each frequent question has its answer one click from the first page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees", "-b", "html"]
    done = subprocess.run([*command, DOCS, tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for page in ("pairs", "overlay", "history", "remote-embedders", "new-documents", "when-not"):
        assert f'href="guide/{page}.html' in first
        assert (tmp_path / "site" / "guide" / f"{page}.html").is_file()
