"""``nightly``: what cron runs."""

from __future__ import annotations

import argparse
from typing import Any

from nudge_rag.cli.outcome import DONE, NO, PARTLY, Outcome

__all__ = ["add_commands"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parser."""
    nightly = commands.add_parser(
        "nightly", help="gather labels, tune, gate, push and report; killed, it goes on", parents=[common]
    )
    nightly.add_argument("config", metavar="CONFIG.toml", help="store, model, pairs, folder, and what the gate wants")
    nightly.add_argument("--dry-run", action="store_true", help="check the configuration, and write nothing")
    nightly.set_defaults(run=_nightly)


def _nightly(arguments: argparse.Namespace) -> Outcome:
    """Run one night; ends with 1 if nothing was pushed, 4 if nodes were left alone."""
    from nudge_rag.cli.judging import load_judge
    from nudge_rag.cli.night import run_night
    from nudge_rag.cli.night_config import read_config
    from nudge_rag.cli.resources import check_report_file, load_model, open_lasting_store
    from nudge_rag.common.lock import locked

    config = read_config(arguments.config)
    check_report_file("report.html")
    if arguments.dry_run:
        store, files = open_lasting_store(config.store), config.pair_files()
        load_model(config.model)
        load_judge(config.judge, config.store, config.model, config.versions)
        text = f"{store.name} holds {store.count():,} nodes; {len(files)} file(s) of pairs; the model can be loaded."
        return Outcome(text, {"nodes": store.count(), "files": [str(file) for file in files]})
    with locked(config.folder, f"a night in {config.folder}"):
        night = run_night(config)
    facts = night.facts
    if not facts.get("pushed"):
        reason = facts.get("over", "nothing could be written")
        return Outcome(f"Night {night.name}: nothing was pushed, {reason}.", {"night": night.name, **facts}, NO)
    text = (
        f"Night {night.name}: version {facts['version']} pushed, {facts['metric']} {facts['change']:+.3f} from "
        f"{facts['compared_with']} on held-out queries; {facts['report']}"
    )
    return Outcome(text, {"night": night.name, **facts}, PARTLY if facts.get("left_alone") else DONE)
