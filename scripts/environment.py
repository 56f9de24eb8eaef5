"""Set up one of the project's environments, unless it is up to date: ``python scripts/environment.py NAME``.

An environment is a folder of its own with the extras and the dependency groups that the table below names. What was
installed is recorded in the folder; the next call installs only if that has changed. ``--lock`` writes the versions
that are installed to ``locks/NAME.txt``. They are used again by the Python version and operating system that the lock
was made with; elsewhere ``constraints.txt`` alone holds versions back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENTS", "Environment"]

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
# Dependency groups came with it.
PIP = "pip>=25.1"


@dataclass(frozen=True)
class Environment:
    """An environment: the project itself with some extras, and dependency groups beside it.

    Attributes:
        name: of the environment, of its folder and of its lock.
        extras: of the project, as users install them.
        groups: of ``[dependency-groups]``, which users never see.
    """

    name: str
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is installed: ``.venv`` for the main one, ``.venv-NAME`` for the others."""
        return ROOT / (".venv" if self.name == "main" else f".venv-{self.name}")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        parts = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
        return self.folder.joinpath(*parts)

    @property
    def stamp(self) -> Path:
        """Records what was installed."""
        return self.folder / "installed.stamp"

    @property
    def lock(self) -> Path:
        """Versions that are known to work together."""
        return ROOT / "locks" / f"{self.name}.txt"


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        # The core must work with numpy alone.
        Environment("core", groups=("test",)),
        Environment("main", extras=("all",), groups=("dev",)),
        Environment("demo", extras=("demo",)),
        # The two need different versions of redisvl.
        Environment("redis-langchain", ("llama-index", "langchain-redis"), ("test-redis",)),
        Environment("redis-llama-index", ("langchain", "llama-index-redis"), ("test-redis",)),
        # A server of S3, other table formats and Ray, of which the first needs an older python-dateutil.
        Environment("lake", ("lake",), ("test-lake",)),
        # Databases that cannot be run here; their clients hold grpcio and protobuf back.
        Environment(
            "experimental",
            tuple(
                f"{framework}-{database}"
                for framework in ("llama-index", "langchain")
                for database in ("elasticsearch", "opensearch", "pinecone", "weaviate")
            ),
            ("test-frameworks",),
        ),
    )
}


def set_up(environment: Environment) -> None:
    """Create the environment if it is not there, and install into it if it is out of date."""
    digest = wanted_digest(environment)
    if environment.stamp.exists() and environment.stamp.read_text(encoding="utf-8") == digest:
        return
    if not environment.python.exists():
        venv.create(environment.folder, with_pip=True)
    environment.stamp.unlink(missing_ok=True)
    project = f".[{','.join(environment.extras)}]" if environment.extras else "."
    groups = [argument for group in environment.groups for argument in ("--group", group)]
    limits = [argument for file in constraint_files(environment) for argument in ("--constraint", str(file))]
    pip(environment, "install", "--quiet", "--upgrade", PIP)
    pip(environment, "install", "--quiet", *limits, "--editable", project, *groups)
    environment.stamp.write_text(digest, encoding="utf-8")


def pip(environment: Environment, *arguments: str) -> None:
    """Run the environment's pip, and end with its exit status if it fails."""
    subprocess.run([environment.python, "-m", "pip", *arguments], cwd=ROOT, check=True)


def wanted_digest(environment: Environment) -> str:
    """Checksum of all that decides what is installed."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    decisive = [
        project["dependencies"],
        project["scripts"],
        project["optional-dependencies"],
        settings["dependency-groups"],
        settings["tool"]["hatch"],
        [environment.extras, environment.groups, PIP, sys.version, str(ROOT)],
        [file.read_text(encoding="utf-8") for file in constraint_files(environment)],
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def constraint_files(environment: Environment) -> list[Path]:
    """``constraints.txt``, and the lock if it was made with this Python version on this operating system."""
    lock = environment.lock
    is_ours = lock.exists() and lock.read_text(encoding="utf-8").startswith(f"# {made_with()}\n")
    return [CONSTRAINTS, lock] if is_ours else [CONSTRAINTS]


def made_with() -> str:
    """Python version and operating system, as the first line of a lock names them."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} on {sys.platform}"


def write_lock(environment: Environment) -> None:
    """Write the installed versions, without the project and without local version labels such as ``+cpu``."""
    command = [environment.python, "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    pins = [line.partition("+")[0] for line in frozen if "==" in line]
    unpinned = [line for line in frozen if "==" not in line]
    if unpinned:
        raise SystemExit(f"these have no version that an index knows: {', '.join(unpinned)}")
    environment.lock.parent.mkdir(exist_ok=True)
    head = [f"# {made_with()}", f"# The environment `{environment.name}`, written by `make lock`."]
    environment.lock.write_text("\n".join([*head, *pins]) + "\n", encoding="utf-8")


def main() -> None:
    """Set up, or lock, the environments that are named."""
    parser = argparse.ArgumentParser(description="Set up the project's environments.")
    parser.add_argument("names", nargs="+", choices=ENVIRONMENTS, metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--lock", action="store_true", help="write what is installed to locks/NAME.txt")
    arguments = parser.parse_args()
    for name in arguments.names:
        set_up(ENVIRONMENTS[name])
        if arguments.lock:
            write_lock(ENVIRONMENTS[name])


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
