"""``demo``: the main job on real data, offline."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nudge_rag.cli.outcome import DONE, NO, Outcome, UsageError

__all__ = ["add_commands"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser."""
    demo = commands.add_parser(
        "demo", help="tune, push, retrieve and roll back on MITRE ATT&CK, offline", description=_demo.__doc__
    )
    demo.add_argument("--framework", choices=("llama-index", "langchain"), default="llama-index")
    demo.add_argument("--store", choices=("chroma", "simple", "in-memory"), help="default: chroma")
    demo.add_argument(
        "--pairs", default="5000", metavar="N", help="labelled sentences to use, or 'all' (default: 5000)"
    )
    demo.add_argument("--solver", choices=("auto", "nudge-n", "nudge-contrastive"), default="auto")
    demo.add_argument(
        "--json",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="answer with one JSON document; with FILE, write the figures there beside the story",
    )
    demo.add_argument("-q", "--quiet", action="store_true", help="no progress, no warnings")
    demo.add_argument("--debug", action="store_true", help="show the traceback of an error")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> Outcome:
    """Index ATT&CK techniques, tune on analysts' sentences, push, retrieve, and roll back bit for bit."""
    from nudge_rag.demo.frameworks import check_choice
    from nudge_rag.demo.run import run_demo

    file = Path(arguments.json) if isinstance(arguments.json, str) else None
    if file is not None:
        arguments.json = False
    store = check_choice(arguments.framework, arguments.store)
    say = _keep_silent if arguments.json else _say
    outcome = run_demo(arguments.framework, store, _count(arguments.pairs), say, solver=arguments.solver)
    text = ""
    if file is not None:
        file.write_text(json.dumps(outcome.to_dict(), indent=2) + "\n", encoding="utf-8")
        text = f"figures written to {file}"
    return Outcome(text, outcome.to_dict(), DONE if outcome.rolled_back_exactly else NO)


def _count(pairs: str) -> int | None:
    if pairs == "all":
        return None
    if not (pairs.isascii() and pairs.isdigit()) or int(pairs) < 1:
        raise UsageError(f"--pairs must be a positive number or 'all', got {pairs!r}")
    return int(pairs)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _keep_silent(line: str) -> None:
    pass
