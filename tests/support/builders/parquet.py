"""Parquet files, of which each framework would have to be told: with ids and vectors of several types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

from nudge_rag.stores import ParquetStore
from tests.support.builders.common import DIMENSION, Built, expected_vectors, node_rows, plain_id

TYPES = {
    "fixed": pyarrow.list_(pyarrow.float32(), DIMENSION),
    "lists": pyarrow.list_(pyarrow.float64()),
    "halves": pyarrow.large_list(pyarrow.float16()),
}
NUMBERS = {"fixed": np.float32, "lists": np.float64, "halves": np.float16}


def nodes_table(n: int, naming: Any, kind: str) -> tuple[pyarrow.Table, dict[str, np.ndarray]]:
    """The nodes of every store under test, as a table, and what it holds."""
    rows = node_rows(n, naming)
    vectors = {node: vector.astype(NUMBERS[kind]) for node, vector in expected_vectors(n, naming).items()}
    ids = [node for node, _, _ in rows]
    table = pyarrow.table(
        {
            "text": [text for _, text, _ in rows],
            "node id": pyarrow.array(list(map(int, ids))) if naming is str else ids,
            "number": [metadata["number"] for _, _, metadata in rows],
            "even": [metadata["even"] for _, _, metadata in rows],
            "embedding": pyarrow.array([vectors[node].tolist() for node in ids], TYPES[kind]),
        }
    )
    return table, vectors


def built(folder: Path, n: int, servers: Any, *, kind: str, naming: Any = plain_id, files: int = 3) -> Built:
    table, vectors = nodes_table(n, naming, kind)
    place = folder / "nodes"
    place.mkdir()
    size = -(-n // files)
    for number in range(files):
        part = table.slice(number * size, size)
        pyarrow.parquet.write_table(part, place / f"part-{number}.parquet", row_group_size=max(1, size // 2))
    store = ParquetStore(place, id_column="node id")

    def contents() -> Any:
        # Of the files that count, and of the user's own, which nobody may write to.
        others = [column for column in table.column_names if column != "embedding"]
        kept = [path.read_bytes() for path in sorted(place.iterdir())]
        return [pyarrow.dataset.dataset(store.files()).to_table(columns=others).sort_by("number").to_pylist(), kept]

    def delete(ids: list[str]) -> None:
        # As whoever wrote them does: each file that holds such rows is written anew.
        for path in place.glob("part-*.parquet"):
            part = pyarrow.parquet.read_table(path)
            names = part["node id"].cast(pyarrow.string())
            gone = pyarrow.compute.is_in(names, value_set=pyarrow.array(ids, pyarrow.string()))
            if pyarrow.compute.any(gone).as_py():
                pyarrow.parquet.write_table(part.filter(pyarrow.compute.invert(gone)), path)

    return Built(
        store,
        vectors,
        contents,
        lambda: ParquetStore(place, id_column="node id"),
        pyarrow.compute.field("even"),
        delete,
        naming,
    )


BUILDERS = {
    "parquet": (built, {"kind": "fixed"}),
    "parquet-integer-ids": (built, {"kind": "lists", "naming": str, "files": 1}),
}
