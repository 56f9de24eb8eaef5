"""``feedback import``, ``export`` and ``grades``: from what users did to labelled pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nudge_rag.cli.exports import RECORDER, TOOLS, add_options, read_export
from nudge_rag.cli.outcome import NO, Outcome, UsageError
from nudge_rag.cli.pairs import check_target, write_pairs
from nudge_rag.cli.resources import add_encoding

if TYPE_CHECKING:
    from nudge_rag.feedback.log import FeedbackLog
    from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["add_commands"]

SQLITE = b"SQLite format 3\0"


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of the group."""
    group = commands.add_parser("feedback", help="turn what users did into labelled pairs")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=type(group))

    reading = verbs.add_parser("import", help="thumbs, citations and labels of a tool's export", parents=[common])
    reading.add_argument("tool", choices=(RECORDER, *TOOLS), help="what recorded them")
    _add_source(reading, "exported files: what was retrieved and, if it is apart, what users said")
    _add_target(reading)
    add_options(reading)
    reading.set_defaults(run=_import)

    export = verbs.add_parser("export", help="write a recorder's file as UBI 1.3.0", parents=[common])
    export.add_argument("recorder", metavar="RECORDER", help="the SQLite file of a Recorder")
    export.add_argument("folder", metavar="FOLDER", help="where ubi_queries.jsonl and ubi_events.jsonl are written")
    export.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    export.add_argument("--force", action="store_true", help="replace files that exist")
    export.set_defaults(run=_export)

    grades = verbs.add_parser("grades", help="clicks as pairs, corrected for their ranks", parents=[common])
    _add_source(grades, "the SQLite file of a Recorder, or UBI files or their folder")
    _add_target(grades)
    grades.add_argument("--action", default="click", help="the feedback that counts (default: click)")
    grades.add_argument("--half-life-days", type=float, metavar="DAYS", help="age at which a click counts half")
    grades.add_argument(
        "--min-examinations", type=float, default=2.0, metavar="N", help="pairs that were looked at less are left out"
    )
    grades.set_defaults(run=_grades)


def _add_source(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help=what)
    parser.add_argument("--skip-errors", action="store_true", help="leave bad rows out")
    add_encoding(parser)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="OUTPUT", help=".jsonl or .csv file, or BEIR folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def _import(arguments: argparse.Namespace) -> Outcome:
    """Read an export, and count what users said of nodes; ends with 1 if there is no label."""
    from nudge_rag.feedback.pairs import LabeledPairs

    check_target(arguments.output, arguments.force)
    found = _read_recorder(arguments) if arguments.tool == RECORDER else read_export(arguments.tool, arguments)
    if isinstance(found, LabeledPairs):
        return _written(arguments, f"{arguments.tool}: {found.report}", {}, found)
    return _counted(arguments, found, found.to_pairs(credit=arguments.credit))


def _grades(arguments: argparse.Namespace) -> Outcome:
    """Turn clicks into grades; ends with 1 if there are too few."""
    from nudge_rag.feedback.clicks import click_grades

    check_target(arguments.output, arguments.force)
    recorded = _is_sqlite(arguments.files[0])
    log = _read_recorder(arguments) if recorded else cast("FeedbackLog", read_export("ubi", arguments))
    try:
        grades = click_grades(
            log,
            action=arguments.action,
            half_life_days=arguments.half_life_days,
            min_examinations=arguments.min_examinations,
        )
    except ValueError as error:
        return Outcome(f"No grades: {error}.", {"pairs": 0, "reason": str(error)}, NO)
    outcome = _counted(arguments, log, grades.pairs)
    return Outcome(f"{grades}\n{outcome.text}", outcome.result, outcome.code)


def _export(arguments: argparse.Namespace) -> Outcome:
    """Write what was recorded for other tools."""
    from nudge_rag.feedback.ubi import EVENTS, QUERIES, to_ubi

    there = [name for name in (QUERIES, EVENTS) if (Path(arguments.folder) / name).exists()]
    if there and not arguments.force:
        raise UsageError(f"{arguments.folder} holds {' and '.join(there)}; pass --force to replace it")
    log = _open_recorder(arguments.recorder)
    if not arguments.dry_run:
        to_ubi(log, arguments.folder)
    verb = "would be written" if arguments.dry_run else "written"
    text = f"{len(log.retrievals):,} queries and {len(log.feedback):,} events {verb} to {arguments.folder}"
    return Outcome(text, {"queries": len(log.retrievals), "events": len(log.feedback), "dry_run": arguments.dry_run})


def _counted(arguments: argparse.Namespace, log: FeedbackLog, pairs: LabeledPairs) -> Outcome:
    counts = {"retrievals": len(log.retrievals), "feedback": len(log.feedback)}
    read = f"{counts['retrievals']:,} retrievals and {counts['feedback']:,} events read"
    resolution = getattr(arguments, "resolution", None)
    if resolution is not None:
        read += f"; {resolution}"
    elif not pairs.n_queries and any(node.node_id is None for one in log.retrievals for node in one.shown):
        read += "; nodes have no ids: --texts gives them those of their texts"
    return _written(arguments, read, counts, pairs, unnamed=not log.feedback)


def _written(
    arguments: argparse.Namespace, read: str, counts: dict[str, Any], pairs: LabeledPairs, *, unnamed: bool = False
) -> Outcome:
    result = {**counts, "queries": pairs.n_queries, "pairs": len(pairs)}
    if not pairs.n_queries:
        named = unnamed and TOOLS.get(getattr(arguments, "tool", ""), TOOLS["ubi"]).names is not None
        hint = " --names says which scores, keys or annotations are your users'." if named else ""
        return Outcome(f"{read}; none of them labels a node.{hint}", result, NO)
    if not arguments.dry_run:
        write_pairs(arguments.output, pairs)
    verb = "would be written" if arguments.dry_run else "written"
    text = f"{read}; {arguments.output}: {pairs.n_queries:,} queries, {len(pairs):,} pairs {verb}"
    return Outcome(text, {**result, "output": arguments.output, "dry_run": arguments.dry_run})


def _is_sqlite(file: str) -> bool:
    path = Path(file)
    if not path.is_file():
        return False
    with path.open("rb") as content:
        return content.read(len(SQLITE)) == SQLITE


def _read_recorder(arguments: argparse.Namespace) -> FeedbackLog:
    """Read the one file of a recorder; it has neither names, texts nor columns."""
    given = [name for name in ("names", "texts", "node_key", "columns") if getattr(arguments, name, None) is not None]
    if given:
        raise UsageError(f"recorder has no --{given[0].replace('_', '-')}")
    if len(arguments.files) > 1:
        raise UsageError("a recorder is one file")
    return _open_recorder(arguments.files[0])


def _open_recorder(file: str) -> FeedbackLog:
    """Read a recorder's file, which must be one: opening another would make it one."""
    from nudge_rag.feedback.recorder import Recorder

    if not Path(file).exists():
        raise UsageError(f"there is no file or folder {file}")
    if not _is_sqlite(file):
        raise UsageError(f"{file} is no SQLite file of a recorder")
    recorder = Recorder(file)
    try:
        return recorder.log()
    finally:
        recorder.close()
