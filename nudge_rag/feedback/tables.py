"""Rows of tables: pandas, Polars, Arrow, Hugging Face, or a mapping of columns, recognised by what they can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["dataset_rows", "is_dataset", "is_missing", "plain_cell", "table_columns", "table_rows"]


def table_rows(
    table: Any, columns: Mapping[str, str] | None, wanted: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and row of a table, under our names of its columns; missing values of text columns are None.

    Raises:
        TypeError: it is no table.
        ValueError: the table lacks a column that ``columns`` names, or query or node_id.
    """
    values = table_columns(table)
    names = {name: name for name in values} if columns is None else dict(columns)
    unknown = [name for name in names if name not in wanted] if columns is not None else []
    if unknown:
        raise ValueError(f"columns must map {', '.join(wanted)} to columns of the table, got {unknown[0]!r}")
    missing = [column for column in names.values() if column not in values]
    missing += [name for name in wanted[:2] if name not in names]
    if missing:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(values)}")
    cells = [values[column] for column in names.values()]
    for number, row in enumerate(zip(*cells, strict=True)):
        yield number, {name: plain_cell(cell, name.endswith("id")) for name, cell in zip(names, row, strict=True)}


def table_columns(table: Any) -> dict[str, list[Any]]:
    """Return the columns of a table as lists.

    Raises:
        TypeError: it is no table.
        ValueError: it is a data set of several parts.
    """
    if isinstance(table, Mapping):
        if parts := [name for name, part in table.items() if is_dataset(part)]:
            raise ValueError(f"a data set of the parts {', '.join(map(repr, parts))}: pass one, such as [{parts[0]!r}]")
        return {str(name): list(column) for name, column in table.items()}
    if is_dataset(table):
        rows = list(dataset_rows(table))
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    if hasattr(table, "to_pydict"):  # Arrow
        return dict(table.to_pydict())
    if hasattr(table, "iloc"):  # pandas
        return {str(name): table[name].tolist() for name in table.columns}
    if hasattr(table, "get_columns"):  # Polars
        return {column.name: column.to_list() for column in table.get_columns()}
    raise TypeError(
        f"expected a pandas, Polars, Arrow or Hugging Face table or a mapping of columns, got {type(table).__name__}"
    )


def is_dataset(table: Any) -> bool:
    """Tell a Hugging Face ``Dataset`` or ``IterableDataset``: its rows are what its format makes of them."""
    return hasattr(table, "with_format") and hasattr(table, "features") and not isinstance(table, Mapping)


def dataset_rows(table: Any) -> Iterable[Mapping[str, Any]]:
    """Return the rows of a data set as dictionaries, whatever its format."""
    rows: Iterable[Mapping[str, Any]] = table.with_format(None)
    return rows


def is_missing(cell: Any) -> bool:
    """Tell None and the gaps of pandas (NaN, NA, NaT) from values.

    Example:
        >>> [is_missing(cell) for cell in (None, float("nan"), 0, "", np.array([1, 2]))]
        [True, True, False, False, False]
    """
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and bool(np.isnan(cell))


def plain_cell(cell: Any, is_id: bool) -> Any:
    """Undo what pandas does: gaps are None, arrays are lists, and integer ids that became floats are integers."""
    if is_missing(cell):
        return None
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    return int(cell) if is_id and isinstance(cell, float) and cell.is_integer() else cell
