"""``report``: a saved nudge as one HTML file."""

from __future__ import annotations

import argparse
from typing import Any

from nudge_rag.cli.outcome import Outcome
from nudge_rag.cli.resources import add_format, add_store, check_report_file, load_pairs
from nudge_rag.cli.tuning import load_nudge

__all__ = ["add_commands"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser."""
    report = commands.add_parser("report", help="write a report of a saved nudge", parents=[common])
    add_store(report)
    report.add_argument("nudge", metavar="NUDGE", help="folder that tune --output wrote")
    report.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="an .html file; JSON is written beside it"
    )
    report.add_argument(
        "--pairs", nargs="+", metavar="PAIRS", help="labels, for the texts of queries that were won and lost"
    )
    add_format(report)
    report.add_argument("--title", default="Nudge", help="of the page")
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> Outcome:
    """Write the page and its numbers."""
    check_report_file(arguments.output)
    pairs = load_pairs(arguments.pairs, arguments.format, encoding=arguments.encoding) if arguments.pairs else None
    page = load_nudge(arguments).report(arguments.output, title=arguments.title, pairs=pairs)
    beside = page.with_suffix(".json")
    return Outcome(f"{page} and {beside.name} written", {"report": str(page), "numbers": str(beside)})
