"""The exports of other tools that ``feedback import`` reads, and the options that each reader takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nudge_rag.cli.outcome import UsageError

if TYPE_CHECKING:
    from nudge_rag.feedback.log import FeedbackLog
    from nudge_rag.feedback.pairs import LabeledPairs

__all__ = ["RECORDER", "TOOLS", "add_options", "read_export"]

RECORDER = "recorder"


class Export(NamedTuple):
    """What a tool exports, and how it is read.

    Attributes:
        reader: its name in `nudge_rag.feedback`.
        files: what it takes, in words.
        fewest: number of files.
        most: number of files.
        names: the reader's argument for the names of what users give.
        node_key: whether the reader can take ids from the documents' metadata.
        texts: "texts" if the reader takes texts, "required" if it cannot do without, "log" if its log may hold texts.
        columns: the reader's arguments that name columns or paths.
    """

    reader: str
    files: str
    fewest: int = 1
    most: int = 1
    names: str | None = None
    node_key: bool = False
    texts: str | None = None
    columns: tuple[str, ...] = ()


TOOLS = {
    "ubi": Export("from_ubi", "queries and events, or their folder", most=2),
    "langsmith": Export("from_langsmith", "runs and feedback", most=2, names="keys", node_key=True, texts="log"),
    "langfuse": Export("from_langfuse", "observations and scores", most=2, names="names", node_key=True, texts="log"),
    "spans": Export("from_spans", "spans and annotations", most=2, names="names", texts="log"),
    "trulens": Export("from_trulens", "events and records", most=2, names="feedback", texts="log"),
    "ragas": Export("from_ragas", "samples or a testset", texts="texts"),
    "hugging-face": Export(
        "from_hugging_face", "pairs or triplets", texts="required", columns=("query", "positive", "grade")
    ),
    "llama-index": Export("from_llama_index", "a data set", texts="texts"),
    "mteb": Export("from_mteb", "queries and qrels", fewest=2, most=2),
    "trec": Export("from_trec", "qrels and topics", fewest=2, most=2),
    "examples": Export("from_examples", "examples of a data set", columns=("query", "nodes")),
}
ONLY_LABELS = ("ragas", "hugging-face", "llama-index", "mteb", "trec", "examples")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of readers."""
    parser.add_argument(
        "--names",
        metavar="NAMES",
        help="of what users give: scores (langfuse), keys (langsmith), annotations (spans), columns (trulens)",
    )
    parser.add_argument(
        "--texts", metavar="FILE", help="node ids and texts (JSONL, CSV, Parquet), for exports without ids"
    )
    parser.add_argument("--node-key", metavar="KEY", help="of documents' metadata, that holds the node id")
    parser.add_argument(
        "--columns",
        metavar="OURS=THEIRS,...",
        help="query, positive, grade (hugging-face); paths of query, nodes (examples)",
    )
    parser.add_argument("--credit", choices=("cited", "all", "top1", "none"), default="cited")


def read_export(tool: str, arguments: argparse.Namespace) -> FeedbackLog | LabeledPairs:
    """Return what a tool exported: a log of retrievals and feedback, or labels.

    Raises:
        UsageError: files or options that the tool does not have, or lacks.
    """
    from nudge_rag import feedback

    export = TOOLS[tool]
    _check_files(tool, export, arguments.files)
    options = {"errors": "skip" if arguments.skip_errors else "raise", "encoding": arguments.encoding}
    options |= _named_options(tool, export, arguments)
    texts = getattr(arguments, "texts", None)
    if texts is not None and export.texts in ("texts", "required"):
        options["texts"] = _read_texts(texts, arguments)
    found = getattr(feedback, export.reader)(*arguments.files, **options)
    if texts is not None and export.texts == "log":
        found, resolution = feedback.TextResolver(_read_texts(texts, arguments)).resolve(found)
        arguments.resolution = str(resolution)
    result: FeedbackLog | LabeledPairs = found
    return result


def _check_files(tool: str, export: Export, files: list[str]) -> None:
    missing = [file for file in files if not Path(file).exists()]
    if missing:
        raise UsageError(f"there is no file or folder {missing[0]}")
    if not export.fewest <= len(files) <= export.most:
        number = {(1, 1): "one file", (1, 2): "at most two files", (2, 2): "two files"}[export.fewest, export.most]
        raise UsageError(f"{tool} takes {number} ({export.files}), got {len(files)}")


def _named_options(tool: str, export: Export, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options mean to the reader."""
    has = {"names": export.names, "texts": export.texts, "node_key": export.node_key, "columns": export.columns}
    for name, known in has.items():
        if getattr(arguments, name, None) is not None and not known:
            having = [other for other, one in TOOLS.items() if getattr(one, name)]
            raise UsageError(f"{tool} has no --{name.replace('_', '-')}; {', '.join(having)} have")
    options: dict[str, Any] = {}
    names = getattr(arguments, "names", None)
    if names is not None and export.names is not None:
        options[export.names] = [name.strip() for name in names.split(",")]
    elif tool == "langfuse":
        raise UsageError("langfuse needs --names: the names of the scores that users give")
    elif tool == "trulens" and len(arguments.files) > 1:
        raise UsageError("trulens needs --names: the columns of the records that users' feedback is in")
    if getattr(arguments, "node_key", None) is not None:
        options["node_key"] = arguments.node_key
    if export.texts == "required" and arguments.texts is None:
        raise UsageError(f"{tool} needs --texts: a file of node ids and texts, which answers are known by")
    if getattr(arguments, "columns", None) is not None:
        columns = _parse_columns(arguments.columns, export.columns)
        options |= columns if tool == "examples" else {"columns": columns}
    return options


def _parse_columns(given: str, known: tuple[str, ...]) -> dict[str, str]:
    columns = dict(part.strip().partition("=")[::2] for part in given.split(","))
    wrong = [name for name, column in columns.items() if name not in known or not column]
    if wrong:
        raise UsageError(f"--columns must be such as {known[0]}=NAME with {', '.join(known)}, got {given!r}")
    return columns


def _read_texts(path: str, arguments: argparse.Namespace) -> dict[str, str]:
    """Node ids and texts of a file: ``_id``, ``id`` or ``node_id``, and ``text``, ``page_content`` or ``content``."""
    from nudge_rag.feedback.readers.texts import read_texts

    if not Path(path).exists():
        raise UsageError(f"there is no file or folder {path}")
    return read_texts(path, errors="skip" if arguments.skip_errors else "raise", encoding=arguments.encoding)
