"""``--version``: the version, and with ``--json`` what the command runs on."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import nudge_rag
from nudge_rag.cli.outcome import Outcome

__all__ = ["ShowVersion", "VersionAsked", "describe_version"]

# What a report of a fault should name, if it is installed.
PACKAGES = ("numpy", "langchain-core", "langchain-nudge", "llama-index-core", "llama-index-retrievers-nudge")


class VersionAsked(Exception):
    """Raised by ``--version``, so that it is answered as every command is."""


class ShowVersion(argparse.Action):
    """Ends the parsing at ``--version``."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `VersionAsked`."""
        raise VersionAsked


def describe_version() -> Outcome:
    """Return the versions of nudge-rag, of Python, and of the packages that matter most."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    result = {
        "version": nudge_rag.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages,
    }
    return Outcome(f"nudge-rag {nudge_rag.__version__}", result)
