"""Write the table of stores from their records: ``python -m scripts.stores_table docs/guide/stores.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from nudge_rag.stores.catalog import RECORDS, StoreRecord

__all__ = ["with_table"]

START, END = "<!-- stores -->", "<!-- end of stores -->"
HEADER = ("store", "LlamaIndex", "LangChain", "similarity", "vectors kept as", "search", "side by side", "extra", "URL")


def with_table(text: str, records: Sequence[StoreRecord] = RECORDS) -> str:
    """Put the table of ``records`` between the two markers in ``text``.

    Raises:
        ValueError: the text lacks a marker.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the text has no lines {START} and {END}")
    lines = [HEADER, ("---",) * len(HEADER), *map(_row, records)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{before}{START}\n{table}\n{END}{after}"


def _row(record: StoreRecord) -> tuple[str, ...]:
    return (
        record.title + (" (experimental)" if record.experimental else ""),
        _code(record.llama_index),
        _code(record.langchain),
        _one_of(record.similarities),
        _vectors(record),
        _search(record),
        _side_by_side(record),
        _code([record.extra]),
        _code([f"{record.scheme}://"] if record.scheme else []),
    )


def _vectors(record: StoreRecord) -> str:
    parts = [_one_of(record.dtypes)]
    if record.unit_length:
        within = f", to within {record.rounding:g}" if record.rounding else ""
        parts.append(f"under {_one_of(record.unit_length)} at unit length{within}")
    return "; ".join(parts + ([record.note] if record.note else []))


def _search(record: StoreRecord) -> str:
    ways = ["exact"] * (True in record.exact_search) + [record.index] * (False in record.exact_search)
    parts = [", or ".join(ways)]
    if True not in record.batch_search:
        parts.append("a query at a time")
    if True not in record.filters:
        parts.append("no filters")
    return "; ".join(parts)


def _side_by_side(record: StoreRecord) -> str:
    if True not in record.side_by_side:
        return ""
    how = "atomic" if set(record.atomic_switch) == set(record.side_by_side) else "yes"
    return f"{how}, {record.beside}" if record.beside else how


def _one_of(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def main(arguments: Sequence[str]) -> None:
    """Write the table into each file, or with ``--check`` only see that it is there.

    Raises:
        SystemExit: with ``--check``, a file whose table is not what the records say.
    """
    only_check = "--check" in arguments
    for path in (Path(argument) for argument in arguments if argument != "--check"):
        text = path.read_text(encoding="utf-8")
        wanted = with_table(text)
        if only_check and wanted != text:
            raise SystemExit(f"{path}: the table of stores is out of date; run: make docs")
        if not only_check:
            path.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
