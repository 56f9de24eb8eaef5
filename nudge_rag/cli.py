"""The ``nudge-rag`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import nudge_rag

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, or 2 for arguments or packages that do not fit.

    Example:
        >>> main(["demo", "--framework", "langchain", "--store", "simple"])
        2
    """
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        sys.stderr.write(f"nudge-rag: {error}\n")
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nudge-rag", description="Better retrieval from the feedback you already have.")
    parser.add_argument("--version", action="version", version=f"nudge-rag {nudge_rag.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="tune, push, retrieve and roll back on MITRE ATT&CK, offline", description=_demo.__doc__
    )
    demo.add_argument("--framework", choices=("llama-index", "langchain"), default="llama-index")
    demo.add_argument("--store", choices=("chroma", "simple", "in-memory"), help="default: chroma")
    demo.add_argument(
        "--pairs", default="5000", metavar="N", help="labelled sentences to use, or 'all' (default: 5000)"
    )
    demo.add_argument("--solver", choices=("auto", "nudge-n", "nudge-contrastive"), default="auto")
    demo.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    demo.set_defaults(run=_demo)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    """Index ATT&CK techniques, tune on analysts' sentences, push, retrieve, and roll back bit for bit."""
    from nudge_rag.demo.frameworks import check_choice
    from nudge_rag.demo.run import run_demo

    store = check_choice(arguments.framework, arguments.store)
    outcome = run_demo(arguments.framework, store, _count(arguments.pairs), _say, solver=arguments.solver)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8")
        _say(f"figures written to {arguments.json}")
    return 0 if outcome.rolled_back_exactly else 1


def _count(pairs: str) -> int | None:
    if pairs == "all":
        return None
    if not (pairs.isascii() and pairs.isdigit()) or int(pairs) < 1:
        raise ValueError(f"--pairs must be a positive number or 'all', got {pairs!r}")
    return int(pairs)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
