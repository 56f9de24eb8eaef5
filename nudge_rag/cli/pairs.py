"""``pairs inspect``, ``convert``, ``split`` and ``merge``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.outcome import NO, Outcome, UsageError
from nudge_rag.cli.resources import add_format, load_pairs, pairs_format

if TYPE_CHECKING:
    from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["add_commands", "check_target", "write_pairs"]


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of the group."""
    group = commands.add_parser("pairs", help="inspect, convert, split and merge labelled pairs")
    verbs = group.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=type(group))

    inspect = verbs.add_parser("inspect", help="count what is there", parents=[common])
    _add_source(inspect)
    inspect.set_defaults(run=_inspect)

    convert = verbs.add_parser("convert", help="write pairs in another format", parents=[common])
    _add_source(convert, many=False)
    convert.add_argument("output", metavar="OUTPUT", help=".jsonl or .csv file, or BEIR folder[:split]")
    _add_writing(convert)
    convert.set_defaults(run=_convert)

    split = verbs.add_parser("split", help="divide by query into train, val and test", parents=[common])
    _add_source(split, many=False)
    split.add_argument("folder", metavar="FOLDER", help="where train, val and test are written")
    split.add_argument("--fractions", default="0.7,0.1,0.2", metavar="T,V,T", help="default: 0.7,0.1,0.2")
    split.add_argument("--seed", type=int, default=0, help="of the shuffle")
    split.add_argument("--to", choices=("jsonl", "csv"), default="jsonl", help="format that is written")
    _add_writing(split)
    split.set_defaults(run=_split)

    merge = verbs.add_parser("merge", help="add labels up, or let later files decide", parents=[common])
    _add_source(merge)
    merge.add_argument("-o", "--output", required=True, metavar="OUTPUT", help=".jsonl or .csv file, or BEIR folder")
    merge.add_argument("--latest", action="store_true", help="for a pair in several files the last grade counts")
    _add_writing(merge)
    merge.set_defaults(run=_merge)


def _add_source(parser: argparse.ArgumentParser, *, many: bool = True) -> None:
    parser.add_argument("pairs", metavar="PAIRS", nargs="+" if many else 1, help="files, or BEIR folders[:split]")
    add_format(parser)
    parser.add_argument("--skip-errors", action="store_true", help="leave bad rows out and list them")


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def _load(arguments: argparse.Namespace) -> LabeledPairs:
    return load_pairs(
        arguments.pairs, arguments.format, "skip" if arguments.skip_errors else "raise", arguments.encoding
    )


def _inspect(arguments: argparse.Namespace) -> Outcome:
    """Count queries, pairs, nodes and grades; ends with 1 if nothing can be learnt from them."""
    pairs = _load(arguments)
    result = _count(pairs)
    grades = ", ".join(f"{grade:g}: {number:,}" for grade, number in result["grades"])
    more = f", and {result['distinct_grades'] - len(result['grades'])} more" if result["distinct_grades"] > 5 else ""
    lines = [
        f"{pairs.n_queries:,} queries, {len(pairs):,} pairs, {result['nodes']:,} nodes",
        f"grades: {grades}{more}",
        f"labels a node: {result['labels_per_node']:.2f} on average, {result['nodes_with_one_label']:,} nodes have one",
        f"queries without an answer (only grades of 0 or less): {result['queries_without_answers']:,}",
    ]
    if pairs.report:
        lines.append(str(pairs.report))
    return Outcome("\n".join(lines), result, NO if result["queries_without_answers"] == pairs.n_queries else 0)


def _count(pairs: LabeledPairs) -> dict[str, Any]:
    all_grades = Counter(grade for grades in pairs.qrels.values() for grade in grades.values())
    labels = Counter(node for grades in pairs.qrels.values() for node, grade in grades.items() if grade > 0)
    return {
        "queries": pairs.n_queries,
        "pairs": len(pairs),
        "nodes": len(pairs.node_ids),
        "grades": all_grades.most_common(5),
        "distinct_grades": len(all_grades),
        "labels_per_node": sum(labels.values()) / max(len(labels), 1),
        "nodes_with_one_label": sum(1 for number in labels.values() if number == 1),
        "queries_without_answers": sum(1 for grades in pairs.qrels.values() if max(grades.values()) <= 0),
        "skipped": str(pairs.report) if pairs.report else "",
    }


def _convert(arguments: argparse.Namespace) -> Outcome:
    """Write pairs in the format of the output's name."""
    return _written(arguments, {arguments.output: _load(arguments)})


def _split(arguments: argparse.Namespace) -> Outcome:
    """Write three files, whose queries do not overlap."""
    from nudge_rag.cli.tuning import parse_fractions

    parts = _load(arguments).split(*parse_fractions(arguments.fractions, "--fractions"), seed=arguments.seed)
    folder = Path(arguments.folder)
    files = {str(folder / f"{name}.{arguments.to}"): part for name, part in zip(parts._fields, parts, strict=True)}
    return _written(arguments, {path: part for path, part in files.items() if part.n_queries})


def _merge(arguments: argparse.Namespace) -> Outcome:
    """Write the labels of several files as one."""
    if not arguments.latest:
        return _written(arguments, {arguments.output: _load(arguments)})
    errors = "skip" if arguments.skip_errors else "raise"
    merged = load_pairs(arguments.pairs[:1], arguments.format, errors, arguments.encoding)
    for path in arguments.pairs[1:]:
        merged = merged | load_pairs([path], arguments.format, errors, arguments.encoding)
    return _written(arguments, {arguments.output: merged})


def _written(arguments: argparse.Namespace, parts: dict[str, LabeledPairs]) -> Outcome:
    """Check every target before the first one is written."""
    for path in parts:
        check_target(path, arguments.force)
    verb = "would be written" if arguments.dry_run else "written"
    lines = []
    for path, pairs in parts.items():
        if not arguments.dry_run:
            write_pairs(path, pairs)
        lines.append(f"{path}: {pairs.n_queries:,} queries, {len(pairs):,} pairs {verb}")
    counts = {path: {"queries": pairs.n_queries, "pairs": len(pairs)} for path, pairs in parts.items()}
    return Outcome("\n".join(lines), {"dry_run": arguments.dry_run, "files": counts})


def check_target(path: str, force: bool) -> None:
    """Say before any work is done that pairs cannot be written.

    Raises:
        UsageError: another format, or a file that exists.
    """
    place = Path(path.rpartition(":")[0] or path) if ":" in path else Path(path)
    if pairs_format(place) in ("tsv", "finetune"):
        raise UsageError(f"{path}: pairs are written as .jsonl, .csv or a BEIR folder")
    if Path(path).is_file() and not force:
        raise UsageError(f"{path} exists; pass --force to replace it")


def write_pairs(path: str, pairs: LabeledPairs) -> None:
    """Write pairs in the format of the path's name."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".csv"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pairs.to_csv(path) if suffix == ".csv" else pairs.to_jsonl(path)
        return
    folder, colon, split = path.rpartition(":")
    Path(folder or path).mkdir(parents=True, exist_ok=True)
    pairs.to_beir(folder if colon else path, split if colon else "train")
