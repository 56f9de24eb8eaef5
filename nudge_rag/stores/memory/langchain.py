"""LangChain's InMemoryVectorStore: a dictionary of documents with their vectors."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from nudge_rag.common.files import load_whole
from nudge_rag.common.packages import import_package
from nudge_rag.stores.memory.framework_dict import FrameworkDictStore
from nudge_rag.stores.memory.mapping import Vectors
from nudge_rag.stores.stamps import Stamps, is_stamps, numbered

__all__ = ["InMemoryStore"]

# In the entry of a document, which the framework keeps whole, and of which it shows the text and the metadata alone.
# With a number behind it if somebody else has such a name there.
STAMP = "nudge_rag"


class _VectorsOf(MutableMapping[str, list[float]]):
    """The vectors inside a dictionary of documents; everything else in it is out of reach."""

    def __init__(self, documents: dict[str, dict[str, Any]]) -> None:
        self._documents = documents

    def __getitem__(self, node_id: str) -> list[float]:
        vector: list[float] = self._documents[node_id]["vector"]
        return vector

    def __setitem__(self, node_id: str, vector: list[float]) -> None:
        self._documents[node_id]["vector"] = vector

    def __delitem__(self, node_id: str) -> None:
        raise TypeError("nodes are not deleted through their vectors")

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


class InMemoryStore(FrameworkDictStore):
    """Adapter for ``langchain_core.vectorstores.InMemoryVectorStore``, which ranks by cosine.

    Args:
        vector_store: the store.
        persist_path: the file of its ``dump``; written, atomically, after every `replace`. Without it changes stay in
            memory. Other versions are then in memory as well, and otherwise in files beside it.

    Raises:
        TypeError: anything but an InMemoryVectorStore.
    """

    def __init__(self, vector_store: Any, *, persist_path: str | Path | None = None) -> None:
        if not isinstance(getattr(vector_store, "store", None), dict) or not callable(
            getattr(vector_store, "dump", None)
        ):
            raise TypeError(f"expected a LangChain InMemoryVectorStore, got {type(vector_store).__name__}")
        super().__init__(vector_store, "in-memory", persist_path, key="in-memory")

    @classmethod
    def open(cls, persist_path: str | Path, embedding: Any = None) -> InMemoryStore:
        """The store that a dumped file holds; ``embedding`` is only needed to search by text."""
        framework = import_package("langchain_core.vectorstores", "InMemoryStore.open", "langchain")
        load = framework.InMemoryVectorStore.load
        loaded, state = load_whole(Path(persist_path), lambda path: load(str(path), embedding))
        store = cls(loaded, persist_path=persist_path)
        store._remember(state)
        return store

    def _mapping(self) -> Vectors:
        return _VectorsOf(self._contents())

    def _contents(self) -> dict[str, Any]:
        contents: dict[str, Any] = self.vector_store.store
        return contents

    def _assign(self, contents: dict[str, Any]) -> None:
        self.vector_store.store = contents

    def _holding(self, vectors: Mapping[str, list[float]]) -> dict[str, Any]:
        entries = list(self._contents().items())
        return {node_id: {**entry, "vector": vectors.get(node_id, entry["vector"])} for node_id, entry in entries}

    def _object_with(self, contents: dict[str, Any]) -> Any:
        held = copy.copy(self.vector_store)
        held.store = contents
        return held

    def _vectors_of(self, held: Any) -> Mapping[str, list[float]]:
        return _VectorsOf(held.store)

    def _writer(self, held: Any) -> Callable[[str], Any]:
        write: Callable[[str], Any] = held.dump
        return write

    def _loaded(self, path: Path) -> Any:
        return type(self.vector_store).load(str(path), self.vector_store.embedding)

    def _entries(self, held: Any) -> dict[str, Any]:
        entries = list(held.store.items())
        return {
            node_id: tuple(sorted((part for part in entry.items() if not is_stamp(*part)), key=lambda part: part[0]))
            for node_id, entry in entries
        }

    def _take(self, names: list[str], held: Any) -> None:
        self._contents().update({node_id: held.store[node_id] for node_id in names})

    def _forget(self, names: list[str]) -> None:
        for node_id in names:
            self._contents().pop(node_id, None)

    def _stamps(self, held: Any) -> Stamps:
        history, nodes = "", dict[str, str]()
        for node_id, entry in list(held.store.items()):
            for name in _names_of_stamps(entry):
                history, nodes[node_id] = history or entry[name]["history"], entry[name]["vector"]
        return Stamps.from_plain({"history": history, "nodes": nodes})

    def _put_stamps(self, held: Any, stamps: Stamps) -> None:
        own, history = stamps.plain()["nodes"], stamps.history
        for node_id, entry in list(held.store.items()):
            for name in _names_of_stamps(entry):
                del entry[name]
            if node_id in own:
                free = (name for name in numbered(STAMP) if name not in entry)
                entry[next(free)] = {"vector": own[node_id], "history": history}

    def _with_own_entries(self, held: Any) -> Any:
        other = copy.copy(held)
        other.store = {node_id: dict(entry) for node_id, entry in list(held.store.items())}
        return other


def is_stamp(name: Any, value: Any) -> bool:
    """Whether a part of an entry is a stamp of ours, rather than somebody else's under such a name."""
    return (
        isinstance(name, str)
        and name.startswith(STAMP)
        and re.fullmatch(rf"{STAMP}(_\d+)?", name) is not None
        and isinstance(value, dict)
        and value.keys() == {"vector", "history"}
        and isinstance(value["history"], str)
        and is_stamps(value["vector"])
    )


def _names_of_stamps(entry: Mapping[str, Any]) -> list[str]:
    return [name for name, value in entry.items() if is_stamp(name, value)]
