"""Build the three packages, and try them as a user would: ``python scripts/try_packages.py [--python PYTHON ...]``.

Wheels are built from the source distributions, and `twine check` reads both. For each Python an environment gets the
wheels and nothing of the checkout: with numpy alone the command must answer, with Chroma and both frameworks the
readmes' examples must run, and ``pip check`` must find nothing. The source distributions are installed once.
``--lowest`` runs tests with the lowest versions that ``pyproject.toml`` allows, in environments of their own.
"""

from __future__ import annotations

import argparse
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = (ROOT, ROOT / "integrations" / "langchain-nudge", ROOT / "integrations" / "llama-index-retrievers-nudge")
READMES = tuple(project / "README.md" for project in PROJECTS)
EXTRAS = "llama-index-chroma,langchain-chroma"
PATH = os.pathsep.join(str(project) for project in PROJECTS)
# Environments of the lowest versions: extras, a dependency group, and the tests that are run.
FRAMEWORK_TESTS = ("tests/integrations/test_langchain.py", "tests/integrations/test_llama_index.py")
STORES = ("duckdb", "faiss", "in-memory", "lance", "parquet", "qdrant", "simple")
LOWEST = {
    "lowest-core": ("", "test", (("tests/unit", "-m", "not slow"),)),
    "lowest-frameworks": (
        EXTRAS,
        "test-frameworks",
        ((*FRAMEWORK_TESTS, "-k", "chroma"), ("tests/stores/test_contract.py", "-k", "chroma")),
    ),
    "lowest-stores": (
        "simple,in-memory,parquet,llama-index-duckdb,langchain-duckdb,llama-index-faiss,langchain-faiss,"
        "llama-index-lancedb,langchain-lancedb,llama-index-qdrant,langchain-qdrant",
        "test-frameworks",
        (("tests/stores/test_contract.py", "-k", " or ".join(STORES)),),
    ),
    "lowest-databases": (
        # What these are built on needs a pyarrow that goes with the lowest numpy.
        "llama-index-postgres,langchain-postgres,llama-index-milvus,langchain-milvus,langchain-sqlite-vec,parquet",
        "test-databases",
        (("tests/stores/test_contract.py", "-k", "postgres or milvus or sqlite"),),
    ),
    "lowest-redis-langchain": (
        "llama-index,langchain-redis",
        "test-redis",
        (("tests/stores/test_contract.py", "-k", "redis"),),
    ),
    "lowest-redis-llama-index": (
        "langchain,llama-index-redis",
        "test-redis",
        (("tests/stores/test_contract.py", "-k", "redis"),),
    ),
}
RELATIVE_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)]*)\)")


def run(*command: str | Path, folder: Path, **environment: str) -> None:
    """Run a command, and end with a line that names it if it fails."""
    sys.stdout.write(f"$ {' '.join(str(part) for part in command)}\n")
    sys.stdout.flush()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(command), cwd=folder, env={**clean, **environment}, check=False)
    if done.returncode:
        raise SystemExit(f"failed with {done.returncode}: {' '.join(str(part) for part in command)}")


class Tools:
    """An environment with build, twine and uv."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.bin = work / "tools" / "bin"
        if not (self.bin / "uv").exists():
            venv.create(work / "tools", with_pip=True)
            run(self.bin / "python", "-m", "pip", "install", "--quiet", "build", "twine", "uv", folder=work)

    def build(self, dist: Path) -> None:
        """Build source distributions, and wheels from them."""
        shutil.rmtree(dist, ignore_errors=True)
        for project in PROJECTS:
            run(self.bin / "python", "-m", "build", "--outdir", dist, project, folder=self.work)
        run(self.bin / "twine", "check", "--strict", *sorted(dist.iterdir()), folder=self.work)

    def install(self, name: str, python: str, *packages: str | Path) -> Path:
        """Make an environment of these packages alone, and return its interpreter."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        run(self.bin / "uv", "venv", "--quiet", "--seed", "--python", python, folder, folder=self.work)
        inside = folder / "bin" / "python"
        run(self.bin / "uv", "pip", "install", "--quiet", "--python", inside, *packages, folder=self.work)
        run(inside, "-m", "pip", "check", folder=self.work)
        return inside


def read_metadata(archive: Path) -> Message:
    """Return the metadata of a wheel or a source distribution."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return email.message_from_bytes(wheel.read(name))
    with tarfile.open(archive) as source:
        member = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/PKG-INFO")
        if member is None:
            raise SystemExit(f"{archive.name} has no PKG-INFO")
        return email.message_from_bytes(member.read())


def check_archives(dist: Path) -> None:
    """See that all archives say the same version and Python, and that their readmes have no link of the checkout.

    Raises:
        SystemExit: what is wrong, by the archive's name.
    """
    archives = sorted(dist.iterdir())
    if len(archives) != 2 * len(PROJECTS):
        raise SystemExit(f"expected {2 * len(PROJECTS)} archives, got {[archive.name for archive in archives]}")
    found = {archive.name: read_metadata(archive) for archive in archives}
    for field in ("Version", "Requires-Python", "License-Expression", "Project-URL", "Author"):
        values = {name: metadata[field] for name, metadata in found.items()}
        if len(set(values.values())) != 1 or None in values.values():
            raise SystemExit(f"the archives differ in {field}: {values}")
    for name, metadata in found.items():
        if not metadata.get_all("License-File") or not metadata.get_all("Classifier"):
            raise SystemExit(f"{name} has no licence file or no classifiers")
        if links := RELATIVE_LINK.findall(str(metadata.get_payload())):
            raise SystemExit(f"{name}: its readme has links that lead nowhere on an index: {links}")
    sys.stdout.write(f"{len(found)} archives of version {next(iter(found.values()))['Version']}\n")


def archives_of(dist: Path, ending: str, extras: str = "") -> list[str]:
    """Return the archives with that ending, the core with ``extras``."""
    paths = [str(path) for path in sorted(dist.glob(f"*{ending}"))]
    return [f"{path}[{extras}]" if extras and Path(path).name.startswith("nudge_rag") else path for path in paths]


def try_wheels(tools: Tools, dist: Path, python: str) -> None:
    """Try the wheels with one Python."""
    name = Path(python).name.replace(".", "")
    core = next(path for path in archives_of(dist, ".whl") if Path(path).name.startswith("nudge_rag"))
    alone = tools.install(f"core-{name}", python, core)
    run(alone.parent / "nudge-rag", "--version", folder=tools.work)
    run(alone, "-c", "import nudge_rag; nudge_rag.tune, nudge_rag.open_store", folder=tools.work)
    run_examples(tools, tools.install(f"all-{name}", python, *archives_of(dist, ".whl", EXTRAS)))


def run_examples(tools: Tools, python: Path) -> None:
    """Run the readmes' examples outside the checkout."""
    folder = Path(tempfile.mkdtemp(dir=tools.work))
    for number, readme in enumerate(READMES):
        shutil.copy(readme, folder / f"{number}-{readme.parent.name}.md")
    script = shutil.copy(ROOT / "scripts" / "run_examples.py", folder)
    run(python, "-I", script, "--installed", *sorted(folder.glob("*.md")), folder=folder)


def try_lowest(tools: Tools, python: str) -> None:
    """Run tests with the lowest versions that the packages allow: numpy alone, then both frameworks over Chroma."""
    for name, (extras, group, tests) in LOWEST.items():
        requirements, lock = tools.work / f"{name}.in", tools.work / f"{name}.txt"
        lines = [f"{ROOT}[{extras}]" if extras else str(ROOT), *read_group(group)]
        requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = ("--resolution", "lowest-direct", "--no-emit-package", "nudge-rag", "--no-header", "--no-annotate")
        compiler = (tools.bin / "uv", "pip", "compile", "--quiet", *options)
        run(*compiler, "--python", python, "-o", lock, requirements, folder=tools.work)
        inside = tools.install(name, python, "-r", str(lock))
        sys.stdout.write(f"{name}: {' '.join(lock.read_text(encoding='utf-8').split())}\n")
        for arguments in tests:
            command = (inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
            run(*command, folder=ROOT, PYTHONPATH=PATH, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def read_group(name: str) -> list[str]:
    """Return the requirements of a dependency group, with those of the groups that it includes."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    parts = [[line] if isinstance(line, str) else read_group(line["include-group"]) for line in groups[name]]
    return [line for part in parts for line in part]


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, check and try."""
    parser = argparse.ArgumentParser(description="Build the three packages and try them.")
    parser.add_argument("--python", action="append", metavar="PYTHON", help="an interpreter; this one by default")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where the archives go")
    parser.add_argument("--work", type=Path, help="folder for environments; a temporary one by default")
    parser.add_argument("--lowest", action="store_true", help="also run tests with the lowest versions allowed")
    given = parser.parse_args(arguments)
    pythons = given.python or [sys.executable]
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        tools, dist = Tools(work), given.dist.resolve()
        tools.build(dist)
        check_archives(dist)
        for python in pythons:
            try_wheels(tools, dist, python)
        run_examples(tools, tools.install("sources", pythons[0], *archives_of(dist, ".tar.gz", EXTRAS)))
        if given.lowest:
            try_lowest(tools, pythons[0])
    sys.stdout.write("every package builds, installs and runs\n")


if __name__ == "__main__":
    main()
