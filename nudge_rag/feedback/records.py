"""Records of other tools: JSON, JSONL, CSV and Parquet files, tables, dictionaries and SDK objects, read alike."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nudge_rag.feedback.files import csv_rows, json_lines, read_text
from nudge_rag.feedback.reading import RowLog
from nudge_rag.feedback.tables import dataset_rows, is_dataset, plain_cell, table_columns

__all__ = ["Numbered", "Records", "loaded", "numbered_records"]

Records: TypeAlias = str | Path | Iterable[Any]
"""A file (.jsonl, .json, .csv, .parquet), a folder of them, a table, or rows: dictionaries or objects."""

KINDS = (".jsonl", ".json", ".csv", ".parquet")

Numbered = tuple[str, int, Mapping[str, Any]]


def numbered_records(records: Records, log: RowLog, name: str, encoding: str | None = None) -> Iterator[Numbered]:
    """Yield source, number and content of each record; ``log`` decides what one that is no record does.

    Files of text have ``encoding``; without it, what their byte order mark says, else UTF-8.

    Raises:
        ValueError: a file that cannot be read as what its name says.
        ImportError: a Parquet file, and pyarrow is not installed.
    """
    if isinstance(records, str | Path) and Path(records).is_dir():
        for file in _files(Path(records)):
            yield from numbered_records(file, log, name, encoding)
        return
    source = str(records) if isinstance(records, str | Path) else name
    rows = _file_rows(Path(records), log, encoding) if isinstance(records, str | Path) else enumerate(_rows(records))
    for line, row in rows:
        log.n_rows += 1
        fields = _fields(row)
        if fields is None:
            log.bad(line, f"expected an object with fields, got {type(row).__name__}", TypeError, source)
        else:
            # Data frames hold arrays where JSON has lists, and NaN where it has null.
            yield source, line, {str(name): plain_cell(cell, str(name).endswith("id")) for name, cell in fields.items()}


def _files(folder: Path) -> list[Path]:
    """The files of an export that is split over folders.

    Raises:
        ValueError: there are none.
    """
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in KINDS and file.is_file())
    if not found:
        raise ValueError(f"{folder} holds no file that ends with {', '.join(KINDS)}")
    return found


def loaded(value: Any) -> Any:
    """Return what a cell holds: JSON texts and Python literals, which CSV files keep lists as, are parsed."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _rows(records: Iterable[Any]) -> Iterable[Any]:
    if hasattr(records, "iloc"):
        records = _with_index(records)
    if is_dataset(records):
        return dataset_rows(records)
    if isinstance(records, Mapping) or any(hasattr(records, name) for name in ("to_pydict", "iloc", "get_columns")):
        columns = table_columns(records)
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name!r}: {len(column)}" for name, column in columns.items())
            raise ValueError(f"columns must be of one length, got {lengths}; of a data set of several parts pass one")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return records


def _with_index(frame: Any) -> Any:
    """Make columns of a data frame's index: Phoenix keeps the ids of spans and the places of documents there."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(named) if named else frame


def _file_rows(path: Path, log: RowLog, encoding: str | None) -> Iterator[tuple[int, Any]]:
    kind = path.suffix.lower()
    if kind == ".json":
        try:
            content = json.loads(read_text(path, encoding))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error}); a file of one object a line is a .jsonl file") from error
        # Exports wrap their rows: {"data": [...]}, {"runs": [...]}.
        lists = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else []
        rows = content if isinstance(content, list) else lists[0] if len(lists) == 1 else [content]
        yield from enumerate(rows, start=1)
    elif kind == ".csv":
        header, cells = csv_rows(path, log, encoding)
        for line, row in cells:
            if len(row) == len(header):
                yield line, dict(zip(header, row, strict=True))
            else:
                log.n_rows += 1
                log.bad(line, f"expected {len(header)} columns, got {len(row)}", source=str(path))
    elif kind == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"reading {path} needs pyarrow: pip install 'nudge-rag[parquet]'") from error
        try:
            rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path}: not Parquet ({error})") from error
        yield from enumerate(rows, start=1)
    else:
        yield from json_lines(path, log, encoding)


def _fields(row: Any) -> Mapping[str, Any] | None:
    """The content of a dictionary, a pydantic model, a data class or another object with attributes."""
    if isinstance(row, Mapping):
        return row
    for method in ("model_dump", "to_dict", "_asdict", "dict"):
        if callable(getattr(row, method, None)):
            content = getattr(row, method)()
            return content if isinstance(content, Mapping) else None
    attributes = getattr(row, "__dict__", None)
    return dict(attributes) if attributes else None
