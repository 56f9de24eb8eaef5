"""A FAISS index as rows of vectors under FAISS ids: read, replaced, copied and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nudge_rag.common import files
from nudge_rag.common.arrays import FloatArray, IntArray
from nudge_rag.common.packages import import_package
from nudge_rag.stores.memory.copies import companion
from nudge_rag.stores.stamps import Stamps, append_stamps

__all__ = ["FaissCopy", "FaissIndex", "imported", "index_writer"]


class FaissIndex:
    """The vectors in ``index``, by position; as long as this exists, so does the index.

    Raises:
        TypeError: anything but an index.
        ValueError: an index that does not keep full vectors, or ranks by another metric.
    """

    def __init__(self, index: Any) -> None:
        faiss = imported()
        if not isinstance(index, faiss.Index):
            raise TypeError(f"expected a faiss.Index, got {type(index).__name__}")
        self.index = index
        self._outer = faiss.downcast_index(index)
        self._mapped = isinstance(self._outer, faiss.IndexIDMap | faiss.IndexIDMap2)
        self._inner = faiss.downcast_index(self._outer.index) if self._mapped else self._outer
        self._flat = isinstance(self._inner, faiss.IndexFlat)
        self._ivf = isinstance(self._inner, faiss.IndexIVFFlat)
        if not (self._flat or self._ivf or isinstance(self._inner, faiss.IndexHNSWFlat)):
            raise ValueError(
                f"{type(self._inner).__name__} does not keep full vectors in a way that can be replaced: supported are"
                " IndexFlat, IndexIVFFlat and IndexHNSWFlat, bare or in an IDMap"
            )
        if index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
            raise ValueError(f"FAISS metric {index.metric_type} is neither inner product nor L2")

    @property
    def exact(self) -> bool:
        """Whether a search looks at every vector."""
        return bool(self._flat or (self._ivf and self._inner.nprobe >= self._inner.nlist))

    def vectors(self) -> FloatArray:
        """All vectors, a copy, by position."""
        if not self._inner.ntotal:
            return np.zeros((0, self.index.d), dtype=np.float32)
        return np.array(self._inner.reconstruct_n(0, self._inner.ntotal), dtype=np.float32)

    def vectors_at(self, places: IntArray) -> FloatArray:
        """The vectors at these positions, a copy."""
        if self._ivf or not len(places):  # an IVF index finds its vectors by their lists alone
            return self.vectors()[places]
        return np.array([self._inner.reconstruct(place) for place in places.tolist()], dtype=np.float32)

    def labels(self) -> IntArray:
        """The FAISS id of each position; ValueError if the vectors of an IVF index are not numbered by position."""
        if self._ivf:
            self._check_numbers()
        if self._mapped:
            return np.asarray(imported().vector_to_array(self._outer.id_map), dtype=np.int64)
        return np.arange(self.index.ntotal, dtype=np.int64)

    def _check_numbers(self) -> None:
        # FAISS gives no vectors by position if there are gaps: it leaves memory as it was in their place.
        lists = self._inner.invlists
        sizes = [lists.list_size(number) for number in range(lists.nlist)]
        numbers = [imported().rev_swig_ptr(lists.get_ids(number), size) for number, size in enumerate(sizes) if size]
        n = self._inner.ntotal
        held = np.concatenate([*numbers, np.zeros(0, dtype=np.int64)])
        if len(held) != n or not np.array_equal(np.sort(held), np.arange(n)):
            raise ValueError(
                "the vectors of this IVF index are not numbered by position: some were removed, which leaves gaps that"
                " neither framework nor IDMap knows of, or added under ids of their own: build it again, and put ids of"
                " your own in an IndexIDMap around it"
            )

    def positions(self, ids: Mapping[int, str]) -> dict[str, int]:
        """Position of each node id; ValueError if a node has two vectors, or two nodes share a FAISS id."""
        labels = self.labels().tolist()
        if len(set(labels)) != len(labels):
            raise ValueError(
                "this FAISS index holds several vectors under one id, as LlamaIndex' FaissMapVectorStore makes them if"
                " it adds nodes after it deleted some: build it again"
            )
        named = [(ids[label], at) for at, label in enumerate(labels) if label in ids]
        positions = dict(named)
        if len(positions) != len(named):
            twice = next(name for at, (name, _) in enumerate(named) if positions[name] != named[at][1])
            raise ValueError(f"node {twice!r} has several vectors in this FAISS index: each node has one")
        return positions

    def put(self, places: list[int], vectors: FloatArray) -> None:
        """Let the index hold ``vectors``, which differ from those that it holds at ``places``."""
        if self._flat:
            view = imported().rev_swig_ptr(self._inner.get_xb(), vectors.size).reshape(vectors.shape)
            view[places] = vectors[places]
            return
        direct = getattr(self._inner, "direct_map", None)
        remembers = direct is not None and direct.type != direct.NoMap
        self._inner.reset()
        self._inner.add(np.ascontiguousarray(vectors))
        if remembers:
            self._inner.make_direct_map(True)

    def selecting(self, labels: IntArray) -> Any:
        """Search parameters that leave everything but these FAISS ids out, and else are the index's own."""
        faiss = imported()
        chosen = faiss.IDSelectorBatch(labels)
        if self._ivf:
            return faiss.SearchParametersIVF(sel=chosen, nprobe=self._inner.nprobe)
        if not self._flat:
            return faiss.SearchParametersHNSW(sel=chosen, efSearch=self._inner.hnsw.efSearch)
        return faiss.SearchParameters(sel=chosen)

    def copied(self) -> Any:
        """An index with the same vectors, training, parameters and graph."""
        return imported().clone_index(self.index)

    def search_as(self, other: FaissIndex) -> None:
        """Copy the search effort (nprobe, efSearch) of ``other``, which may have changed since the copy was made."""
        if self._ivf:
            self._inner.nprobe = other._inner.nprobe
        elif not self._flat:
            self._inner.hnsw.efSearch = other._inner.hnsw.efSearch


@dataclass(frozen=True)
class FaissCopy:
    """An index, the node ids that its FAISS ids had when it was the live one, or copied from that, and its stamps."""

    index: Any
    ids: Mapping[int, str]
    stamps: Stamps = field(default_factory=Stamps)

    def named(self) -> dict[int, str | None]:
        """The node id of each FAISS id in the index."""
        return {label: self.ids.get(label) for label in FaissIndex(self.index).labels().tolist()}

    def save(self, path: Path, like: Path | None) -> None:
        """Write both, to files with the rights of ``like``; the index last, since that makes the version."""
        pairs = json.dumps(list(self.ids.items()))
        files.save_through(companion(path), lambda place: Path(place).write_text(pairs, encoding="utf-8"), like=like)
        files.save_through(path, index_writer(self.index, self.stamps), like=like)

    @classmethod
    def load(cls, path: Path) -> FaissCopy:
        """Read a version that `save` wrote. Without its node ids it holds no node, and is not switched to."""
        try:
            pairs = json.loads(companion(path).read_text(encoding="utf-8"))
            ids = {int(label): str(name) for label, name in pairs}
        except (OSError, ValueError, TypeError):
            ids = {}
        return cls(imported().read_index(str(path)), ids)


def index_writer(index: Any, stamps: Stamps) -> Callable[[str], None]:
    """Return what writes an index to a file, and stamps behind it, which FAISS does not read.

    Through a file of our own: FAISS only prints an error of its fclose, and a full disk leaves an empty file.
    """

    def write(temporary: str) -> None:
        with Path(temporary).open("wb") as file:
            imported().write_index(index, imported().PyCallbackIOWriter(file.write))
        append_stamps(temporary, stamps)

    return write


def imported() -> Any:
    """Return the module faiss.

    Raises:
        ImportError: FAISS is not installed; names the pip command.
    """
    return import_package("faiss", "FaissStore", "faiss")
