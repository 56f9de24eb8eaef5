"""A LanceDB table as this library uses it: a column of ids, and columns of vectors of one length."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from nudge_rag.common.arrays import BoolArray, FloatArray
from nudge_rag.errors import StoreError
from nudge_rag.stores.sql import sql_text

__all__ = ["LanceTable", "index_metric", "quoted", "retried", "telling"]

TRIES, SECONDS_BETWEEN_TRIES = 50, 0.01
READS = 5
CONFLICTS = ("commit conflict", "Too many concurrent writers")
# A file of the table's own, by the endings that Lance gives them.
MISSING = re.compile(r"Not found: \S+\.(?:lance|manifest|arrow|bin)\b")


class CleanedUpError(StoreError):
    """A version is gone that was being read."""


@contextmanager
def telling_of_cleaning() -> Iterator[None]:
    """Say what it means if a file of Lance's is not found.

    Raises:
        StoreError: old versions were cleaned up while one of them was read.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if not MISSING.search(str(error)):
            raise
        raise CleanedUpError(
            "the version that was being read was cleaned up meanwhile: call again, and let cleanup_old_versions() or"
            f" optimize() keep versions for longer than a read takes ({error})"
        ) from error


def telling(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches, with `telling_of_cleaning`."""
    with telling_of_cleaning():
        yield from batches


class LanceTable:
    """A ``lancedb`` table, its column of ids and its column of vectors; rows that lack one of them are no nodes.

    Args:
        table: the table.
        id_column: the name of the column of ids.
        vector_column: the name of the column of vectors.
        latest: whether to see later writes of other handles and processes.

    Attributes:
        dimension: length of the vectors.
        dtype: ``"float32"`` or ``"float64"``.

    Raises:
        ValueError: columns that are missing, of another type, or of a name that LanceDB itself cannot use.
    """

    def __init__(self, table: Any, id_column: str, vector_column: str, *, latest: bool) -> None:
        self.table, self.latest = table, latest
        self.id, self.vector = id_column, vector_column
        self.dimension, self.dtype = _vector_type(table.schema, vector_column, id_column)

    def fresh(self) -> Any:
        """The table as it is now: a handle of LanceDB's stays at the version that it was opened at."""
        if self.latest:
            self.table.checkout_latest()
        return self.table

    def nodes(self, condition: str) -> Any:
        """Ids and vectors of the nodes that meet an SQL condition, as an Arrow table."""
        columns = [self.id, self.vector]
        return self.only_nodes(self._asked(lambda rows: rows.where(condition).select(columns).limit(None).to_arrow()))

    def matching(self, condition: str) -> list[str]:
        """Ids of the nodes that meet an SQL condition."""
        # As a condition, it would be asked of every row, which is to read all vectors.
        columns = {"id": quoted(self.id), "held": f"{quoted(self.vector)} IS NOT NULL"}
        rows = self._asked(lambda rows: rows.where(condition).select(columns).limit(None).to_arrow())
        ids: list[str] = rows.filter(rows["held"])["id"].drop_null().to_pylist()
        return ids

    def batches(self, columns: list[str], size: int, condition: str | None = None) -> Iterator[Any]:
        """All nodes, or those that meet an SQL condition, in Arrow batches of at most ``size``; none is empty."""

        def select(rows: Any) -> Any:
            query = rows if condition is None else rows.where(condition)
            return query.select(columns).limit(None).to_batches(size)

        batches = map(self.only_nodes, telling(self._asked(select)))
        return (batch for batch in batches if batch.num_rows)

    def _asked(self, question: Callable[[Any], Any]) -> Any:
        """An answer of the table as it is now, asked again if that version is cleaned up meanwhile."""
        for _ in range(READS - 1):
            with suppress(CleanedUpError), telling_of_cleaning():
                return question(self.fresh().search())
        with telling_of_cleaning():
            return question(self.fresh().search())

    def only_nodes(self, rows: Any) -> Any:
        """Those of Arrow rows that are nodes: that have an id and a vector."""
        import pyarrow.compute

        for column in (self.id, self.vector):
            if rows[column].null_count:
                rows = rows.filter(pyarrow.compute.is_valid(rows[column]))
        return rows

    def among(self, ids: Sequence[str]) -> str:
        """The SQL condition for the rows of ``ids``; quotes inside names and values are doubled."""
        return f"{quoted(self.id)} IN ({', '.join(map(sql_text, ids))})"

    def matrix(self, rows: Any, column: str) -> FloatArray:
        """Vectors in a column of Arrow rows, (n, d)."""
        values = rows[column]
        flat = values.combine_chunks() if hasattr(values, "combine_chunks") else values
        return np.asarray(flat.flatten(), dtype=self.dtype).reshape(rows.num_rows, self.dimension)

    def merge(self, names: Sequence[str], columns: Mapping[str, FloatArray]) -> int:
        """Overwrite columns of vectors in the rows of ``names``, in one commit; the table's version that it made."""
        import pyarrow

        schema = self.fresh().schema
        arrays = [pyarrow.array(names, schema.field(self.id).type)]
        arrays += [self.as_column(column, rows) for column, rows in columns.items()]
        new = pyarrow.table(arrays, names=[self.id, *columns])
        merge = self.table.merge_insert(self.id).when_matched_update_all()
        return int(retried(lambda: merge.execute(new)).version)

    def merge_all(self, schema: Any, batches: Callable[[], Iterator[Any]]) -> int:
        """As `merge`, of Arrow batches that are made while they are written."""
        import pyarrow

        merge = self.fresh().merge_insert(self.id).when_matched_update_all()
        reader = pyarrow.RecordBatchReader.from_batches
        return int(retried(lambda: merge.execute(reader(schema, batches()))).version)

    def as_column(self, column: str, rows: FloatArray, held: BoolArray | None = None) -> Any:
        """Vectors (n, d) as an Arrow array of the column's type, null in rows that are not ``held``."""
        import pyarrow

        mask = None if held is None or held.all() else pyarrow.array(~held)
        values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1], mask=mask)
        return values.cast(self.table.schema.field(column).type)

    def as_of(self, version: int) -> LanceTable:
        """The table at an earlier version, through a handle of its own."""
        earlier = self.table._conn.open_table(self.table.name)
        earlier.checkout(version)
        found = copy.copy(self)
        found.table, found.latest = earlier, False
        return found


def retried(call: Callable[[], Any], tries: int = TRIES) -> Any:
    """Call again if another writer's commit came first, which LanceDB itself does for merges only."""
    for left in reversed(range(tries)):
        try:
            return call()
        except RuntimeError as error:
            if not left or not any(sign in str(error) for sign in CONFLICTS):
                raise
            time.sleep(SECONDS_BETWEEN_TRIES)
    return None


def index_metric(table: Any, vector_column: str) -> str | None:
    """The metric of the index over a column, None if it has no index."""
    for index in table.list_indices():
        if list(index.columns) == [vector_column]:
            stats = table.index_stats(index.name)
            return None if stats is None else str(stats.distance_type)
    return None


def quoted(column: str) -> str:
    """A column's name in LanceDB's SQL.

    Example:
        >>> quoted("node id")
        '`node id`'
    """
    return f"`{column.replace('`', '``')}`"


def _vector_type(schema: Any, vector_column: str, id_column: str) -> tuple[int, str]:
    for column in (vector_column, id_column):
        if column not in schema.names:
            raise ValueError(f"the table has no column {column!r}, it has {', '.join(schema.names)}")
    for column, unusable in ((id_column, '"`'), (vector_column, "`")):
        if any(sign in column for sign in unusable):
            raise ValueError(
                f"column {column!r} has a quotation mark or backtick in its name, which LanceDB itself"
                " cannot name when it merges and filters: write the table again with another name"
            )
    kind = schema.field(vector_column).type
    if getattr(kind, "list_size", -1) < 1 or str(kind.value_type) not in ("float", "double"):
        raise ValueError(f"column {vector_column!r} must be a fixed-size list of float32 or float64, it is {kind}")
    if str(schema.field(id_column).type) not in ("string", "large_string"):
        raise ValueError(f"column {id_column!r} must hold strings, it holds {schema.field(id_column).type}")
    return int(kind.list_size), "float32" if str(kind.value_type) == "float" else "float64"
