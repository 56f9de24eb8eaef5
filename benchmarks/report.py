"""Sections of benchmarks/README.md, each written by one benchmark."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

README = Path(__file__).parent / "README.md"
HEAD = "# Benchmarks\n\n`make bench` writes this page. Seconds depend on the machine; the ratios are what to read.\n"


def machine(*packages: str) -> str:
    """One line: processor, cores, versions and commit."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    cores = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{cores}, {versions}, commit {commit.strip()}."


def write_section(name: str, title: str, lines: list[str]) -> None:
    """Put a section into the page, in place of the one of that name."""
    text = README.read_text() if README.exists() else HEAD
    section = f"<!-- {name} -->\n## {title}\n\n" + "\n".join(lines) + f"\n<!-- end of {name} -->\n"
    pattern = re.compile(f"<!-- {name} -->.*?<!-- end of {name} -->\n", re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text}\n{section}"
    README.write_text(text)
