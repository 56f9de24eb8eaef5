"""Records of other tools: JSON, JSONL, CSV and Parquet files, tables, dictionaries and SDK objects, read alike."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nudge_rag.feedback.files import csv_rows, json_lines, read_text
from nudge_rag.feedback.reading import RowLog
from nudge_rag.feedback.tables import table_columns

__all__ = ["Records", "loaded", "numbered_records"]

Records: TypeAlias = str | Path | Iterable[Any]
"""A file (.jsonl, .json, .csv, .parquet), a table, or rows: dictionaries or objects with the same attributes."""

Numbered = tuple[str, int, Mapping[str, Any]]


def numbered_records(records: Records, log: RowLog, name: str) -> Iterator[Numbered]:
    """Yield source, number and content of each record; ``log`` decides what one that is no record does.

    Raises:
        ValueError: a file that cannot be read as what its name says.
        ImportError: a Parquet file, and pyarrow is not installed.
    """
    source = str(records) if isinstance(records, str | Path) else name
    rows = _file_rows(Path(records), log) if isinstance(records, str | Path) else enumerate(_rows(records))
    for line, row in rows:
        log.n_rows += 1
        fields = _fields(row)
        if fields is None:
            log.bad(line, f"expected an object with fields, got {type(row).__name__}", TypeError, source)
        else:
            yield source, line, fields


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
    if isinstance(records, Mapping) or hasattr(records, "to_pydict") or hasattr(records, "iloc"):
        columns = table_columns(records)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return records


def _file_rows(path: Path, log: RowLog) -> Iterator[tuple[int, Any]]:
    kind = path.suffix.lower()
    if kind == ".json":
        try:
            content = json.loads(read_text(path))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        # Exports wrap their rows: {"data": [...]}, {"runs": [...]}.
        lists = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else []
        rows = content if isinstance(content, list) else lists[0] if len(lists) == 1 else [content]
        yield from enumerate(rows, start=1)
    elif kind == ".csv":
        header, cells = csv_rows(path, log)
        for line, row in cells:
            yield line, dict(zip(header, row, strict=False))
    elif kind == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"reading {path} needs pyarrow: pip install 'nudge-rag[parquet]'") from error
        yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
    else:
        yield from json_lines(path, log)


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
