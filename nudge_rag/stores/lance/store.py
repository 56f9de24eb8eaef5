"""LanceDB tables, on disk or in object storage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nudge_rag.common.arrays import Float64Array, FloatArray
from nudge_rag.common.packages import import_package
from nudge_rag.common.ranking import rank_nodes
from nudge_rag.stores.adapter import StoreAdapter
from nudge_rag.stores.base import Capabilities, SearchResult, Similarity
from nudge_rag.stores.checks import check_ids, check_queries, chunks, ungrouped
from nudge_rag.stores.copies import CopyNotes, DerivedNodes, NodesOfCopy
from nudge_rag.stores.history import BlobStorage
from nudge_rag.stores.keys import store_key
from nudge_rag.stores.lance.copies import (
    catch_up_and_swap,
    catch_up_column,
    copy_column,
    copy_labels,
    create_column,
    derive_column,
    drop_column,
    swap_columns,
    swap_moved,
)
from nudge_rag.stores.lance.fragments import LanceFragment, fragments_of
from nudge_rag.stores.lance.history import LanceHistory
from nudge_rag.stores.lance.table import LanceTable, index_metric, quoted
from nudge_rag.stores.location import StoreLocation, hide_secrets

__all__ = ["LanceStore"]

SIMILARITY: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot", "l2": "l2"}
IDS_PER_CALL = 10_000
QUERIES_PER_CALL = 256
ENDING = ".lance"


class LanceStore(StoreAdapter):
    """Adapter for a ``lancedb`` table with an id column and a column of float32 or float64 vectors.

    Ranks as LanceDB does: by the metric of the vector index if there is one, else by ``similarity``. Scores are
    larger-is-better (minus the squared distance for l2). With an index the search is approximate: more ``nprobes`` find
    more, ``refine_factor`` scores that many times k candidates by their full vectors. ``where`` is an SQL condition.
    Every write is a version of the table. Rows without an id or a vector are no nodes, and stay as they are.

    Args:
        table: the table.
        vector_column: the name of the column of vectors.
        id_column: the name of the column of ids.
        exact: search without the index.
        latest: see later writes of other handles and processes; False for a table checked out at a version.
        nprobes: partitions that an indexed search looks at.
        refine_factor: how many times k candidates an indexed search scores by their full vectors.
        executor: scans the table fragment by fragment, which needs ``pylance``; None for this process, batch by batch.
        similarity: how the application ranks if there is no index; None for Euclidean distance, LanceDB's default.

    Raises:
        TypeError: anything but a table.
        ValueError: columns that are missing or of another type, an index with a metric that has no similarity here.
    """

    name = "lancedb"

    def __init__(
        self,
        table: Any,
        *,
        vector_column: str = "vector",
        id_column: str = "id",
        exact: bool = False,
        latest: bool = True,
        nprobes: int = 64,
        refine_factor: int = 4,
        executor: Executor | None = None,
        similarity: Similarity | None = None,
    ) -> None:
        if not all(hasattr(table, part) for part in ("merge_insert", "list_indices", "search", "schema")):
            raise TypeError(f"expected a lancedb table, got {type(table).__name__}")
        self.table, self.executor = table, executor
        self._rows = LanceTable(table, id_column, vector_column, latest=latest)
        self._dimension = self._rows.dimension
        metric = index_metric(table, vector_column)
        if metric not in (None, *SIMILARITY):
            raise ValueError(f"LanceDB metric {metric!r} is not one of {', '.join(SIMILARITY)}")
        if similarity not in (None, *SIMILARITY):
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITY)}, got {similarity!r}")
        if similarity is not None and metric not in (None, similarity):
            raise ValueError(f"similarity is {similarity!r}, and the index over {vector_column!r} ranks by {metric!r}")
        self._exact = exact or metric is None
        self._nprobes, self._refine = nprobes, refine_factor
        self._capabilities = Capabilities(
            SIMILARITY[metric or similarity or "l2"],
            dtype=self._rows.dtype,
            exact_search=self._exact,
            persistent=True,
            side_by_side=latest,
            atomic_switch=latest,
        )

    @classmethod
    def open(cls, uri: str | Path, table: str | None = None, **options: Any) -> LanceStore:
        """The table of that name in a LanceDB database; without a name, a Lance dataset.

        Args:
            uri: the database's folder, or the dataset's, which ends in ``.lance``; on disk or in object storage.
            table: its name.
            **options: as for the class; ``storage_options`` goes to LanceDB.

        Raises:
            ValueError: there is none; no table is named, and the folder is not one of a dataset.

        Example:
            >>> import tempfile, lancedb
            >>> folder = tempfile.mkdtemp()
            >>> nodes = [{"id": "a", "vector": [1.0, 0.0]}, {"id": "b", "vector": [0.0, 1.0]}]
            >>> table = lancedb.connect(folder).create_table("docs", nodes)
            >>> LanceStore.open(f"{folder}/docs.lance").count()
            2
        """
        lancedb = import_package("lancedb", "LanceStore.open", "lancedb")
        place, storage = str(uri).rstrip("/"), options.pop("storage_options", None)
        with hide_secrets(place):
            if table is None:
                place, _, folder = place.rpartition("/")
                table = folder.removesuffix(ENDING)
                if table == folder:
                    raise ValueError(f"name the table, or give the folder of a Lance dataset, which ends in {ENDING}")
            if "://" not in place and not Path(place or ".").is_dir():
                raise ValueError(f"there is no LanceDB folder at {place!r}")  # LanceDB would make an empty one
            opened = lancedb.connect(place or ".", storage_options=storage).open_table(table)
        return cls(opened, **options)

    @classmethod
    def from_url(cls, location: StoreLocation) -> LanceStore:
        """The table that ``lance://`` names, or the Lance dataset, whose folder ends in ``.lance``.

        Raises:
            ValueError: no table is named, and the folder is not one of a dataset; there is no such folder.
        """
        chosen = location.chosen({"id": "id_column", "vector": "vector_column", "similarity": "similarity"})
        path, table = location.needed_path, location.options.get("table")
        if scheme := location.options.get("filesystem"):
            path = f"{scheme}://{quote(path.lstrip('/'))}"  # a bucket comes first
        if not table and not path.rstrip("/").endswith(ENDING):
            raise ValueError(
                "a lance:// URL misses table; its options are table, id, vector, similarity, filesystem (a path that"
                " ends in .lance needs no table)"
            )
        return cls.open(path, table or None, **chosen)

    @property
    def key(self) -> str:
        """From the table's place, its name and the column."""
        place = f"{getattr(self.table, 'uri', '')} {self.table.name} {self._rows.vector}"
        return store_key("lancedb", place)

    def count(self) -> int:
        """Number of rows with an id: to tell which of them lack a vector would be to read all vectors."""
        return int(self._rows.fresh().count_rows(f"{quoted(self._rows.id)} IS NOT NULL"))

    def fragments(self, where: str | None = None) -> list[LanceFragment]:
        """Fragments of the table as it is now; later commits do not change them.

        Raises:
            MissingPackageError: pylance is not installed; names the pip command.
        """
        return fragments_of(self._rows, where)

    def _fetch(self, names: list[str]) -> dict[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for chunk in chunks(names, IDS_PER_CALL):
            rows = self._rows.nodes(self._rows.among(chunk))
            answered = rows[self._rows.id].to_pylist()
            self._require_once(answered)
            found.update(zip(answered, self._rows.matrix(rows, self._rows.vector), strict=True))
        return found

    def _batches(self, batch_size: int) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes of the table's version at the start of the scan."""
        for batch in self._rows.batches([self._rows.id, self._rows.vector], batch_size):
            yield batch[self._rows.id].to_pylist(), self._rows.matrix(batch, self._rows.vector)

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query: exactly, or as far as the index finds them."""
        return self._search(queries, k, where, widely=True)

    def search_with_defaults(self, queries: FloatArray, k: int) -> SearchResult:
        """Search as LanceDB does if it is given no options."""
        return self._search(queries, k, None, widely=False)

    def _search(self, queries: FloatArray, k: int, where: str | None, *, widely: bool) -> SearchResult:
        checked = check_queries(queries, k, dimension=self.dimension).astype(self.capabilities.dtype)
        ids: list[list[str]] = []
        scores: list[Float64Array] = []
        for first in range(0, len(checked), QUERIES_PER_CALL):
            part = checked[first : first + QUERIES_PER_CALL]
            found = self._nearest(part, k, where, widely)
            if found[self._rows.id].null_count:
                named = f"{quoted(self._rows.id)} IS NOT NULL"
                found = self._nearest(part, k, f"({where}) AND {named}" if where else named, widely)
            query = np.asarray(found["query_index"]) if "query_index" in found.column_names else np.zeros(len(found))
            found_ids, found_scores = ungrouped(
                query, found[self._rows.id].to_pylist(), self._scores(np.asarray(found["_distance"])), len(part), k
            )
            ids.extend(found_ids)
            scores.extend(found_scores)
        return SearchResult(ids, scores)

    def _nearest(self, queries: FloatArray, k: int, where: str | None, widely: bool) -> Any:
        query = self._rows.fresh().search(queries, vector_column_name=self._rows.vector).limit(k)
        query = query.select([self._rows.id, "_distance"]).distance_type(self.capabilities.similarity)
        if where:
            query = query.where(where, prefilter=True)
        if self._exact:
            return query.bypass_vector_index().to_arrow()
        if not widely:
            return query.to_arrow()
        return query.nprobes(self._nprobes).refine_factor(self._refine).to_arrow()

    def _scores(self, distances: FloatArray) -> Float64Array:
        offset = 0.0 if self.capabilities.similarity == "l2" else 1.0
        return np.asarray(offset - distances.astype(np.float64))

    def matching(self, ids: Any, where: str | None) -> set[str]:
        """Return those of ``ids`` that exist and pass ``where``."""
        found: set[str] = set()
        for chunk in chunks(sorted(set(self._possible(check_ids(ids)))), IDS_PER_CALL):
            found.update(self._rows.matching(self._rows.among(chunk) + (f" AND ({where})" if where else "")))
        return found

    def _write(self, names: list[str], rows: FloatArray) -> None:
        """Overwrite vectors in one commit: a merge of the id and vector columns leaves all others alone."""
        self.read(names)  # raises for ids that are unknown or there twice
        if names:
            self._rows.merge(names, {self._rows.vector: rows})

    def _write_if(self, names: list[str], expected: FloatArray, rows: FloatArray) -> list[str]:
        """Compare and set, in one commit; vectors that another writer committed in between are found and put back.

        A merge of LanceDB compares no vectors. But commits have numbers: if ours is not the next one after the version
        that was compared, the version before ours says which vectors of others it has overwritten.
        """
        compared = int(self._rows.fresh().version)
        unchanged = self._unchanged(names, expected)
        kept = [name for name, same in zip(names, unchanged, strict=True) if same]
        skipped = [name for name, same in zip(names, unchanged, strict=True) if not same]
        if not kept:
            return skipped
        written, before = rows[unchanged], expected[unchanged]
        made = self._rows.merge(kept, {self._rows.vector: written})
        if made == compared + 1:
            return skipped
        earlier = copy.copy(self)
        earlier._rows = self._rows.as_of(made - 1)
        newer = earlier._fetch(kept)
        lost = [row for row, name in enumerate(kept) if name in newer and (newer[name] != before[row]).any()]
        if lost:
            others = [kept[row] for row in lost]
            self._write_if(others, written[lost], np.stack([newer[name] for name in others]))
            skipped += others
        return skipped + [name for name in kept if name not in newer]

    def history(self) -> BlobStorage:
        """The store's history: a table inside the folder of this one."""
        return LanceHistory(self.table, self._rows.vector)

    def create_copy(self, label: str) -> LanceStore:
        """Copy the vectors of all rows to a second column, in one commit."""
        self._require_latest()
        create_column(self._rows, label)
        return self.open_copy(label)

    def open_copy(self, label: str) -> LanceStore:
        """The copy ``label``; its searches look at every row."""
        return LanceCopy(self, label)

    def copy_labels(self) -> list[str]:
        """Labels of the copies."""
        return copy_labels(self._rows)

    def switch(self, label: str) -> None:
        """Swap live vector and copy in every row in which they differ, in one commit."""
        self._require_latest()
        swap_columns(self._rows, label)

    def catch_up_and_switch(self, label: str, moved: NodesOfCopy, notes: CopyNotes) -> int:
        """Bring what was written since to the copy ``label``, and swap the moved vectors; gives the number of nodes."""
        self._require_latest()
        if isinstance(moved, DerivedNodes):
            n_caught_up, late = catch_up_and_swap(self._rows, label, moved)
            self._put_back(label, moved, list(late), list(late.values()))
            return n_caught_up + len(late)
        n_caught_up = catch_up_column(self._rows, label, moved)
        overwritten, newer = swap_moved(self._rows, label, moved)
        if overwritten:
            self._write_if(overwritten, moved.copy[[moved.rows[name] for name in overwritten]], newer)
        return n_caught_up + len(overwritten)

    def _put_back(self, label: str, moved: DerivedNodes, names: list[str], newer: list[FloatArray]) -> None:
        """Give nodes that a swap has overwritten the newer vectors of others, mapped in the version that is mapped."""
        if not names:
            return
        copy = self.open_copy(label)
        vectors = np.stack(newer)
        self._write_if(names, self.read(names), moved.make(names, vectors) if moved.to_copy else vectors)
        copy.replace(names, vectors)

    def derive_copy(self, label: str, make: Callable[[list[str], FloatArray], FloatArray]) -> int:
        """Write ``make`` of the ids and vectors of all nodes to a second column; gives the number of nodes."""
        self._require_latest()
        return derive_column(self._rows, label, make)

    def drop_copy(self, label: str) -> None:
        """Remove the copy ``label``."""
        self._require_latest()
        drop_column(self._rows, label)

    def follow_live(self) -> None:
        """Let the table that was given be at its latest version, which others may have written since it was opened."""
        self._rows.fresh()

    def _require_latest(self) -> None:
        if not self.capabilities.side_by_side:
            raise ValueError("a table that is checked out at a version is not written to: open it with latest=True")


class LanceCopy(LanceStore):
    """The copy of a store's vectors in another column, of the type ``list``.

    LanceDB does not treat a list column as a vector column, so searches here look at every row.

    Args:
        live: the store.
        label: of the copy.

    Raises:
        ValueError: no copy of that label.
    """

    def __init__(self, live: LanceStore, label: str) -> None:
        # Not the base class's own: that refuses columns of this type.
        self.table, self._dimension, self.executor = live.table, live._dimension, live.executor
        self._rows = copy.copy(live._rows)
        self._rows.vector = copy_column(live._rows, label)
        self._capabilities = replace(live.capabilities, exact_search=True, side_by_side=False, atomic_switch=False)

    def count(self) -> int:
        """Number of nodes in this copy."""
        return int(self._rows.fresh().count_rows(f"{quoted(self._rows.vector)} IS NOT NULL"))

    def search(self, queries: FloatArray, k: int, *, where: str | None = None) -> SearchResult:
        """The k best nodes of each query, by looking at them all."""
        checked = check_queries(queries, k, dimension=self.dimension).astype(np.float64)
        rows = self._rows.nodes(where or "TRUE")
        names = rows[self._rows.id].to_pylist()
        if not names:
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        vectors = self._rows.matrix(rows, self._rows.vector)
        best, scores = rank_nodes(checked, vectors, k, self.capabilities.similarity)
        return SearchResult([[names[row] for row in line] for line in best], list(scores.astype(np.float64)))

    def search_with_defaults(self, queries: FloatArray, k: int) -> SearchResult:
        """As `search`: there is no index."""
        return self.search(queries, k)
