"""Open what the command line names: a store, an embedding model, files of pairs."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from nudge_rag.cli.outcome import UsageError

if TYPE_CHECKING:
    from nudge_rag.feedback.pairs import LabeledPairs
    from nudge_rag.stores.base import EmbeddingStore
    from nudge_rag.tuning.queries import EmbedQueries

__all__ = [
    "FORMATS",
    "add_encoding",
    "add_format",
    "add_report",
    "add_store",
    "add_yes",
    "check_report_file",
    "confirm",
    "framework_of",
    "journal_of",
    "load_model",
    "load_object",
    "load_pairs",
    "open_framework_store",
    "open_lasting_store",
    "open_named_store",
    "pairs_format",
]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
FORMATS = ("jsonl", "csv", "tsv", "beir", "finetune")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".json": "finetune"}


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add STORE and where its history is."""
    parser.add_argument("store", metavar="STORE", help="URL of the store, module:object, or env:NAME")
    parser.add_argument("--versions", metavar="FOLDER", help="folder of the history of pushes, if not the default")


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the format and the encoding of PAIRS."""
    parser.add_argument("--format", choices=FORMATS, help="format of PAIRS, if the name does not tell")
    add_encoding(parser)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add the encoding of files."""
    parser.add_argument("--encoding", metavar="NAME", help="of text files, such as cp1252; UTF-8 if they do not say")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add --report."""
    parser.add_argument("--report", metavar="FILE", help="also write a report to an .html file")


def check_report_file(path: str | None) -> None:
    """Say before any work is done that a report cannot be written.

    Raises:
        UsageError: the name does not end with .html, or packages are missing.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"a report is an .html file, got {path}")
    if importlib.util.find_spec("matplotlib") is None or importlib.util.find_spec("jinja2") is None:
        raise UsageError("a report needs packages that are not installed: pip install 'nudge-rag[report]'")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Add --yes and --dry-run."""
    parser.add_argument("--yes", action="store_true", help="do not ask; needed if standard input is no terminal")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")


def journal_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword argument for the history's folder, if one was given."""
    return {} if arguments.versions is None else {"versions": arguments.versions}


def confirm(arguments: argparse.Namespace, question: str) -> bool:
    """Ask on a terminal; elsewhere ``--yes`` is the only answer that counts.

    Raises:
        UsageError: nobody can be asked.
    """
    if arguments.yes:
        return True
    if arguments.json or any(stream is None for stream in (sys.stdin, sys.stderr)) or not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: pass --yes, or --dry-run to see what would be done")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def open_named_store(name: str) -> EmbeddingStore:
    """Return the store of a URL, of ``module:object`` or of ``env:NAME``.

    Raises:
        UsageError: a name that fits none of them, a variable that is not set, or an object that is no store.
    """
    if name.startswith("env:"):
        name = _variable(name.removeprefix("env:"))
    if "://" in name:
        from nudge_rag.stores.urls import open_store

        return open_store(_VARIABLE.sub(lambda match: quote(_variable(match.group(1)), safe=""), name))
    return _adapted(_load_store(name), name)


def open_lasting_store(name: str) -> EmbeddingStore:
    """Return the store of a name to push to it: not one whose vectors end with this process.

    Raises:
        UsageError: as `open_named_store`; or a store in memory, of which nothing would be left.
    """
    from nudge_rag.stores.history import HistoryStore
    from nudge_rag.stores.storages import ProcessStorage

    store = open_named_store(name)
    if isinstance(store, HistoryStore) and isinstance(store.history(), ProcessStorage):
        raise UsageError(
            f"{name} is a {store.name} store in memory: what is pushed would end with this command. Name an object of"
            " embedding_store(..., persist_path=...), from langchain_nudge or llama_index.retrievers.nudge, instead"
        )
    return store


def open_framework_store(name: str) -> Any:
    """Return the object that a framework keeps a store in, None if the name is a URL's or that of our own store."""
    if name.startswith("env:"):
        name = _variable(name.removeprefix("env:"))
    if "://" in name:
        return None
    from nudge_rag.stores.base import EmbeddingStore

    store = _load_store(name)
    return None if isinstance(store, EmbeddingStore) else store


def _load_store(name: str) -> Any:
    store = load_object(name, "STORE")
    return store() if callable(store) and not hasattr(store, "search") else store


def _variable(name: str) -> str:
    if name not in os.environ:
        raise UsageError(f"the environment variable {name} is not set")
    return os.environ[name]


def _adapted(store: Any, name: str) -> EmbeddingStore:
    """A framework's object goes through its integration."""
    from nudge_rag.stores.base import EmbeddingStore

    if isinstance(store, EmbeddingStore):
        return store
    module = framework_of(store)
    try:
        adapted = importlib.import_module(module).embedding_store(store)
    except ImportError as error:
        raise UsageError(f"{name} is a {type(store).__name__}, which needs the package {module} ({error})") from error
    if not isinstance(adapted, EmbeddingStore):
        raise UsageError(f"{name} is no store but a {type(store).__name__}")
    return adapted


def framework_of(store: Any) -> str:
    """Return the package that serves the framework's object."""
    package = type(store).__module__.partition(".")[0]
    return "llama_index.retrievers.nudge" if package == "llama_index" else "langchain_nudge"


def load_object(name: str, what: str) -> Any:
    """Return the object that ``module:object`` names; the working folder is searched first.

    Raises:
        UsageError: another form, or nothing of that name.
    """
    module, colon, path = name.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UsageError(f"{what} must be a URL, a folder or module:object, got {name!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f"{what} {name!r} cannot be imported: {error}") from error
    return found


def load_model(name: str) -> EmbedQueries:
    """Return a function from texts to query embeddings.

    Args:
        name: a sentence-transformers folder, or ``module:object`` with ``encode_query``, ``encode``,
            ``get_query_embedding`` (LlamaIndex) or ``embed_query`` (LangChain), or a function of a list of texts.

    Raises:
        UsageError: nothing of these.
        MissingPackageError: a folder, and sentence-transformers is not installed.
    """
    model: Any = _sentence_transformer(name) if Path(name).is_dir() else load_object(name, "the model")
    if isinstance(model, type):
        model = model()
    for method in ("encode_query", "encode"):
        if callable(getattr(model, method, None)):
            return _quiet_encoder(getattr(model, method))
    for one, many in (("get_query_embedding", "get_text_embedding_batch"), ("embed_query", "embed_documents")):
        if callable(getattr(model, one, None)):
            return _at_once(model, getattr(model, one), getattr(model, many, None))
    if callable(model):
        embed: EmbedQueries = model
        return embed
    raise UsageError(f"the model {name} is a {type(model).__name__}, which embeds no queries")


def _sentence_transformer(folder: str) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        from nudge_rag.errors import MissingPackageError

        raise MissingPackageError("a model folder", "sentence-transformers") from error
    return SentenceTransformer(folder)


def _quiet_encoder(encode: Callable[..., Any]) -> EmbedQueries:
    return lambda texts: encode(texts)


def _at_once(
    model: Any, embed_one: Callable[[str], Any], embed_many: Callable[[list[str]], Any] | None
) -> EmbedQueries:
    from nudge_rag.tuning.query_cache import cache_of, embed_queries_at_once

    return lambda texts: embed_queries_at_once(texts, embed_one, embed_many, cache_of(model))


def pairs_format(path: Path, name: str | None = None) -> str:
    """Return the format of a file of pairs, by option or by its name.

    Raises:
        UsageError: a name that tells nothing.
    """
    if name is not None:
        return name
    if path.is_dir() or not path.suffix:
        return "beir"
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: the format is not known by its name; pass --format with one of {', '.join(FORMATS)}")
    return SUFFIXES[path.suffix.lower()]


def load_pairs(
    paths: Sequence[str], name: str | None = None, errors: str = "raise", encoding: str | None = None
) -> LabeledPairs:
    """Return the labelled pairs of files; the labels of several are added up.

    Args:
        paths: files, or BEIR folders with ``:split`` behind them if it is another than ``train``.
        name: format of all files, if their names do not tell.
        errors: ``raise`` or ``skip`` bad rows.
        encoding: of the files, if neither UTF-8 nor what they say themselves.

    Raises:
        UsageError: a file that does not exist, or pairs that cannot be read.
    """
    merged = _read_pairs(paths[0], name, errors, encoding)
    for path in paths[1:]:
        merged = merged + _read_pairs(path, name, errors, encoding)
    return merged


def _read_pairs(path: str, name: str | None, errors: Any, encoding: str | None) -> LabeledPairs:
    from nudge_rag.feedback.pairs import LabeledPairs

    file, colon, split = path.rpartition(":")
    place = Path(file if colon and Path(file).is_dir() else path)
    if not place.exists():
        raise UsageError(f"there is no file or folder {place}")
    kind = pairs_format(place, name)
    try:
        if kind == "beir":
            return LabeledPairs.from_beir(
                place, split if colon and str(place) == file else "train", errors=errors, encoding=encoding
            )
        if kind == "finetune":
            return LabeledPairs.from_finetune_dataset(place, errors=errors, encoding=encoding)
        if kind == "jsonl":
            return LabeledPairs.from_jsonl(place, errors=errors, encoding=encoding)
        return LabeledPairs.from_csv(place, errors=errors, encoding=encoding, delimiter="\t" if kind == "tsv" else ",")
    except (ValueError, TypeError, UnicodeError) as error:
        raise UsageError(str(error)) from error
