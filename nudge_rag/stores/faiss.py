"""FAISS indexes: flat, IVF and HNSW over full vectors, bare or in an IDMap."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.arrays import FloatArray
from nudge_rag.stores.base import Capabilities, SearchResult, UnknownIdError
from nudge_rag.stores.checks import check_batch_size, check_ids, check_queries, check_replacement
from nudge_rag.stores.mapping import path_key, save_beside

__all__ = ["FaissStore"]

Ids = Mapping[int, str]


class FaissStore:
    """Adapter for a ``faiss.Index`` in memory. Stores float32; exact where the index is flat or probes every list.

    Flat indexes are changed in place; IVF and HNSW indexes are emptied and filled again, in the same object, with the
    same training, parameters and order. Scores are the inner product, or minus the squared distance. ``where`` is a
    predicate on the node id.

    Args:
        index: the index.
        ids: node id of each FAISS id (of each position, where there is no IDMap); or a function that gives them, called
            whenever they are needed. FAISS ids without a node id are left alone and never found.
        persist_path: the index's file; written, atomically, after every `replace`. Without it changes stay in memory.

    Raises:
        TypeError: anything but an index.
        ValueError: an index that does not keep full vectors, or ranks by another metric.

    Example:
        >>> import faiss
        >>> index = faiss.IndexFlatIP(2)
        >>> index.add(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32))
        >>> FaissStore(index, {0: "a", 1: "b"}).search(np.array([[0.1, 1.0]]), 1).ids
        [['b']]
    """

    def __init__(self, index: Any, ids: Ids | Callable[[], Ids], *, persist_path: str | Path | None = None) -> None:
        faiss = _faiss()
        if not isinstance(index, faiss.Index):
            raise TypeError(f"expected a faiss.Index, got {type(index).__name__}")
        self.index = index
        self._ids = ids if callable(ids) else lambda: ids
        self._outer = faiss.downcast_index(index)
        mapped = isinstance(self._outer, faiss.IndexIDMap | faiss.IndexIDMap2)
        self._inner = faiss.downcast_index(self._outer.index) if mapped else self._outer
        self._mapped = mapped
        self._flat = isinstance(self._inner, faiss.IndexFlat)
        if not isinstance(self._inner, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat):
            raise ValueError(
                f"{type(self._inner).__name__} does not keep full vectors in a way that can be replaced: supported are"
                " IndexFlat, IndexIVFFlat and IndexHNSWFlat, bare or in an IDMap"
            )
        if index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
            raise ValueError(f"FAISS metric {index.metric_type} is neither inner product nor L2")
        self._path = None if persist_path is None else Path(persist_path)
        ivf = isinstance(self._inner, faiss.IndexIVFFlat)
        self._capabilities = Capabilities(
            "l2" if index.metric_type == faiss.METRIC_L2 else "dot",
            exact_search=self._flat or (ivf and self._inner.nprobe >= self._inner.nlist),
            persistent=self._path is not None,
        )

    @classmethod
    def open(cls, persist_path: str | Path, ids: Ids | str | Path | None = None) -> FaissStore:
        """The index in a file.

        ``ids``, where not given, come from the ``id_map.json`` or ``index_store.json`` that LlamaIndex writes beside
        it, or else from the JSON file that ``ids`` names: a list by position, or an object of FAISS id to node id.
        LangChain keeps them in a pickle, which is not read: load the store with LangChain.
        """
        path = Path(persist_path)
        if not path.is_file():
            raise ValueError(f"no FAISS index at {path}")
        known = _ids_beside(path) if ids is None else _ids_in(Path(ids)) if isinstance(ids, str | Path) else ids
        return cls(_faiss().read_index(str(path)), known, persist_path=path)

    @property
    def name(self) -> str:
        """The database's name."""
        return "faiss"

    @property
    def key(self) -> str:
        """Names the index's file."""
        return "faiss-memory" if self._path is None else path_key("faiss", self._path)

    @property
    def capabilities(self) -> Capabilities:
        """What the store can do."""
        return self._capabilities

    def count(self) -> int:
        """Number of vectors that have a node id."""
        return len(self._positions())

    def read(self, ids: Sequence[str]) -> FloatArray:
        """Vectors of ``ids``, (len(ids), d) float32, in the order asked."""
        names = check_ids(ids)
        return self._vectors()[self._rows(names)]

    def scan(self, batch_size: int = 1000) -> Iterator[tuple[list[str], FloatArray]]:
        """All nodes, in the index's order."""
        step = check_batch_size(batch_size)
        positions = self._positions()
        names, rows, vectors = list(positions), list(positions.values()), self._vectors()
        return ((names[at : at + step], vectors[rows[at : at + step]]) for at in range(0, len(names), step))

    def search(self, queries: FloatArray, k: int, *, where: Callable[[str], bool] | None = None) -> SearchResult:
        """The k best nodes of each query, as far as the index finds them."""
        checked = check_queries(queries, k, dimension=self.index.d).astype(np.float32)
        ids = dict(self._ids())
        chosen = [label for label in self._labels().tolist() if label in ids and (where is None or where(ids[label]))]
        if not chosen or not len(checked):
            return SearchResult([[] for _ in checked], [np.zeros(0) for _ in checked])
        every = len(chosen) == self.index.ntotal
        options = {} if every else {"params": self._selecting(np.array(chosen, dtype=np.int64))}
        scores, labels = self.index.search(checked, min(int(k), len(chosen)), **options)
        sign = -1.0 if self.capabilities.similarity == "l2" else 1.0
        found = [line >= 0 for line in labels]
        return SearchResult(
            [[ids[label] for label in line[kept].tolist()] for line, kept in zip(labels, found, strict=True)],
            [sign * line[kept].astype(np.float64) for line, kept in zip(scores, found, strict=True)],
        )

    def matching(self, ids: Sequence[str], where: Callable[[str], bool] | None) -> set[str]:
        """Those of ``ids`` that exist and pass ``where``."""
        known = self._positions()
        return {name for name in check_ids(ids) if name in known and (where is None or where(name))}

    def as_stored(self, vectors: FloatArray) -> FloatArray:
        """``vectors`` as they will be read back: as float32."""
        return np.asarray(vectors, dtype=np.float32)

    def replace(self, ids: Sequence[str], vectors: FloatArray) -> None:
        """Overwrite vectors; where the file cannot be written, those in memory are put back first."""
        names, rows = check_replacement(ids, vectors, dimension=self.index.d, dtype="float32")
        places = self._rows(names)
        before = self._vectors()
        after = before.copy()
        after[places] = rows
        try:
            self._put(places, after)
            if self._path is not None:
                save_beside(self._path, self._write)
        except BaseException:
            self._put(places, before)
            raise

    def _write(self, path: str) -> None:
        """Through a file of our own: FAISS only prints an error of its fclose, and a full disk leaves an empty file."""
        with Path(path).open("wb") as file:
            _faiss().write_index(self.index, _faiss().PyCallbackIOWriter(file.write))

    def _put(self, places: list[int], vectors: FloatArray) -> None:
        if self._flat:
            view = _faiss().rev_swig_ptr(self._inner.get_xb(), vectors.size).reshape(vectors.shape)
            view[places] = vectors[places]
            return
        direct = getattr(self._inner, "direct_map", None)
        remembers = direct is not None and direct.type != direct.NoMap
        self._inner.reset()
        self._inner.add(np.ascontiguousarray(vectors))
        if remembers:
            self._inner.make_direct_map(True)

    def _vectors(self) -> FloatArray:
        """All vectors, a copy, by position."""
        if not self._inner.ntotal:
            return np.zeros((0, self.index.d), dtype=np.float32)
        return np.array(self._inner.reconstruct_n(0, self._inner.ntotal), dtype=np.float32)

    def _labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The FAISS id of each position."""
        if self._mapped:
            return np.asarray(_faiss().vector_to_array(self._outer.id_map), dtype=np.int64)
        return np.arange(self.index.ntotal, dtype=np.int64)

    def _positions(self) -> dict[str, int]:
        """Position of each node id; ValueError where a node has two vectors, or two nodes share a FAISS id."""
        labels = self._labels().tolist()
        if len(set(labels)) != len(labels):
            raise ValueError("this FAISS index holds several vectors under one id: build it again")
        ids = self._ids()
        named = [(ids[label], at) for at, label in enumerate(labels) if label in ids]
        positions = dict(named)
        if len(positions) != len(named):
            twice = next(name for at, (name, _) in enumerate(named) if positions[name] != named[at][1])
            raise ValueError(f"node {twice!r} has several vectors in this FAISS index: each node has one")
        return positions

    def _rows(self, names: list[str]) -> list[int]:
        positions = self._positions()
        unknown = [name for name in names if name not in positions]
        if unknown:
            raise UnknownIdError(unknown, self.name)
        return [positions[name] for name in names]

    def _selecting(self, labels: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        """Search parameters that leave everything but these FAISS ids out, and else are the index's own."""
        faiss = _faiss()
        chosen = faiss.IDSelectorBatch(labels)
        if isinstance(self._inner, faiss.IndexIVFFlat):
            return faiss.SearchParametersIVF(sel=chosen, nprobe=self._inner.nprobe)
        if isinstance(self._inner, faiss.IndexHNSWFlat):
            return faiss.SearchParametersHNSW(sel=chosen, efSearch=self._inner.hnsw.efSearch)
        return faiss.SearchParameters(sel=chosen)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("FaissStore needs FAISS: pip install 'nudge-rag[faiss]'") from error
    return faiss


def _ids_beside(path: Path) -> dict[int, str]:
    """Node ids from the files that LlamaIndex persists in the same folder."""
    mapped, structs = path.with_name("id_map.json"), path.with_name("index_store.json")
    if mapped.is_file():
        return {int(label): name for label, name in json.loads(mapped.read_text())["faiss_id_to_node_id_map"].items()}
    if not structs.is_file():
        raise ValueError(f"no id_map.json or index_store.json beside {path}: give ids=")
    entries = list(json.loads(structs.read_text())["index_store/data"].values())
    if len(entries) != 1:
        raise ValueError(f"{structs} describes {len(entries)} indexes: give ids=")
    data = entries[0]["__data__"]
    nodes = (json.loads(data) if isinstance(data, str) else data)["nodes_dict"]
    return {int(label): name for label, name in nodes.items()}


def _ids_in(path: Path) -> dict[int, str]:
    try:
        given = json.loads(path.read_text())
        pairs = enumerate(given) if isinstance(given, list) else ((int(k), name) for k, name in given.items())
        return {label: name for label, name in pairs if isinstance(name, str)}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON list or object of node ids: {error}") from error
