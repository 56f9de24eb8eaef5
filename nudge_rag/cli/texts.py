"""``--texts`` and ``--documents``: what the texts and documents of nodes are, by which labels survive new ids."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nudge_rag.cli.outcome import UsageError
from nudge_rag.cli.resources import framework_of, load_object, open_framework_store

if TYPE_CHECKING:
    from nudge_rag.journal.text_hashes import TextsOf

__all__ = ["add_documents", "add_texts", "load_documents", "load_texts"]


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Add --texts."""
    parser.add_argument(
        "--texts",
        metavar="TEXTS",
        help="texts of nodes, by which they are known under new ids: a file of ids and texts (JSONL, CSV, Parquet), or"
        " module:function from a list of ids to texts; a framework's store knows its own",
    )


def add_documents(parser: argparse.ArgumentParser) -> None:
    """Add --documents."""
    parser.add_argument(
        "--documents",
        metavar="DOCUMENTS",
        help="module:function from a list of node ids to ids of their documents, for labels that name documents; a"
        " framework's store knows its own",
    )


def load_texts(name: str | None, store: str, folder: Path | None = None) -> TextsOf | None:
    """Return the function from node ids to texts that ``tune(texts=)`` and ``reapply(texts=)`` take.

    Args:
        name: a file, or ``module:function``; None for those of STORE, if it is an object of a framework.
        store: STORE, as the command line names it.
        folder: in which a relative path begins; None for the working folder.

    Raises:
        UsageError: a file that cannot be read, or no function.
    """
    if name is None:
        return _of_framework(store, "texts_of")
    path = (folder or Path()) / name
    if not path.exists():
        return _load_function(name, "--texts", "a file of ids and texts, or a function of a list of node ids")
    from nudge_rag.feedback.readers.texts import read_texts

    try:
        known = read_texts(path)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"--texts {name}: {error}") from error
    return lambda ids: [known.get(node_id) for node_id in ids]


def load_documents(name: str | None, store: str) -> TextsOf | None:
    """Return the function from node ids to ids of documents that ``tune(documents=)`` takes.

    Args:
        name: ``module:function``; None for those of STORE, if it is an object of a framework.
        store: STORE, as the command line names it.

    Raises:
        UsageError: no function.
    """
    if name is None:
        return _of_framework(store, "documents_of")
    return _load_function(name, "--documents", "a function of a list of node ids")


def _load_function(name: str, option: str, expected: str) -> TextsOf:
    found: Any = load_object(name, option)
    if not callable(found):
        raise UsageError(f"{option} must be {expected}; {name} is a {type(found).__name__}")
    function: TextsOf = found
    return function


def _of_framework(store: str, function: str) -> TextsOf | None:
    """What the integration of STORE knows of its nodes; None if STORE is a URL, or an adapter of ours."""
    from nudge_rag.journal.text_hashes import skip_unreadable_texts

    opened = open_framework_store(store)
    if opened is None:
        return None
    found: TextsOf | None = getattr(importlib.import_module(f"{framework_of(opened)}.stores"), function)(opened)
    return skip_unreadable_texts(found) if found is not None and function == "texts_of" else found
