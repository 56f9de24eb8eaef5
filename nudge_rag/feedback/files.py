"""Text files as people have them: any encoding that says so, byte order marks, blank lines, huge cells."""

from __future__ import annotations

import codecs
import csv
import json
import threading
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from nudge_rag.feedback.reading import RowLog

__all__ = ["CsvRow", "csv_rows", "json_lines", "put_text", "read_text"]

SAMPLE = 1_000
CsvRow = tuple[int, list[str]]

# UTF-32 first: its mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BYTE_ORDER_MARK = "\ufeff"
BLANK = f" \t\r\n{BYTE_ORDER_MARK}"
LARGEST_CELL = 2**31 - 1
_CELL_LIMIT = threading.Lock()


def read_text(path: Path, encoding: str | None = None) -> str:
    """Read a whole file; without ``encoding`` it is that of its byte order mark, else UTF-8.

    Bytes that are not UTF-8 become lone surrogates, which the checks of ids and texts refuse by line.

    Raises:
        ValueError: the file does not have the encoding that was passed or that its mark names.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    marked = next((name for mark, name in MARKS if content.startswith(mark)), None)
    # A file of another encoding may still begin with a mark by which a spreadsheet says that it is UTF-8.
    chosen = encoding if encoding is not None and (marked is None or "utf" not in encoding.lower()) else marked
    if chosen is None and content[:SAMPLE].count(0) > len(content[:SAMPLE]) // 4:
        raise ValueError(
            f"{path}: every other byte is zero, as in UTF-16: pass encoding='utf-16-le' or save it as UTF-8"
        )
    if chosen is None or chosen == "utf-8-sig":
        return content.decode("utf-8-sig", "surrogateescape")
    try:
        return content.decode(chosen)
    except (UnicodeDecodeError, LookupError) as error:
        raise ValueError(f"{path}: cannot be read as {chosen} ({error})") from None


def json_lines(path: Path, log: RowLog, encoding: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of each line that is not blank; ``log`` decides what a bad line does.

    Files written one behind the other have byte order marks within, and two objects in a line if one does not end with
    a line break.
    """
    for number, line in enumerate(StringIO(read_text(path, encoding), newline=None), start=1):
        for entry in _objects(line):
            if isinstance(entry, dict):
                yield number, entry
                continue
            log.n_rows += 1
            if isinstance(entry, Exception):
                log.bad(number, f"not JSON ({entry})", source=str(path))
            else:
                log.bad(number, f"expected a JSON object, got {type(entry).__name__}", source=str(path))


def _objects(line: str) -> list[Any]:
    """What a line holds: one value, several objects, none if it is blank, or the error that it is no JSON."""
    text = line.strip().strip(BLANK)
    try:
        return [json.loads(text)] if text else []
    except (ValueError, RecursionError) as error:
        found, decoder, start = [], json.JSONDecoder(), 0
        try:
            while start < len(text):
                entry, end = decoder.raw_decode(text, start)
                if not isinstance(entry, dict):
                    return [error]
                found.append(entry)
                start = len(text) - len(text[end:].lstrip(BLANK))
        except (ValueError, RecursionError):
            return [error]
        return found


def csv_rows(
    path: Path, log: RowLog, encoding: str | None = None, delimiter: str = ",", *, quoting: int = csv.QUOTE_MINIMAL
) -> tuple[list[str], list[CsvRow]]:
    """Return the header, and number and cells of each row that is not blank; a row's number is that of its first line.

    A row that is no CSV, such as one with a quotation mark that is never closed, is a bad row; reading goes on with the
    line after its first one.

    Raises:
        ValueError: a column that stands twice in the header.
    """
    lines = list(StringIO(read_text(path, encoding), newline=""))
    rows: list[CsvRow] = []
    start = 0
    # The limit on the length of a cell is one number for the whole process.
    with _CELL_LIMIT:
        limit = csv.field_size_limit(LARGEST_CELL)
        try:
            while start < len(lines):
                start = _read_until_broken(lines, start, rows, path, log, {"delimiter": delimiter, "quoting": quoting})
        finally:
            csv.field_size_limit(limit)
    if not rows:
        return [], []
    header = _names(rows[0][1])
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise ValueError(f"{path}: the column {twice[0]!r} stands twice in the header {header}")
    # Files written one behind the other have a header each.
    return header, [row for row in rows[1:] if len(row[1]) != len(header) or _names(row[1]) != header]


def _names(cells: list[str]) -> list[str]:
    return [cell.strip(BLANK) for cell in cells]


def _read_until_broken(
    lines: list[str], start: int, rows: list[CsvRow], path: Path, log: RowLog, options: dict[str, Any]
) -> int:
    """Add rows up to the first that is no CSV; return the index of the line to go on with."""
    reader = csv.reader(islice(lines, start, None), strict=True, **options)
    first = start
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((first + 1, cells))
            first = start + reader.line_num
    except csv.Error as error:
        log.n_rows += 1
        log.bad(first + 1, f"not CSV ({error})", source=str(path))
        return first + 1
    return len(lines)


def put_text(path: Path, content: str) -> None:
    """Write atomically: readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(content, encoding="utf-8", newline="")
    temporary.replace(path)
