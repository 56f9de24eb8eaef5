"""LlamaIndex's SimpleVectorStore: a dictionary in memory, persisted as JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nudge_rag.common.files import load_whole
from nudge_rag.common.packages import import_package
from nudge_rag.stores.memory.framework_dict import FrameworkDictStore
from nudge_rag.stores.memory.mapping import Vectors
from nudge_rag.stores.stamps import Stamps, is_stamps, numbered

__all__ = ["SimpleStore"]

# Under metadata, by node id: the framework keeps it, and looks up what it asks for by the ids of its vectors alone. Or
# as JSON under the ids of documents, if there is no metadata, since filters are refused by that. With a number behind
# it if that is the id of a node, or somebody else has put something there.
STAMPS = "__nudge_rag__"


class SimpleStore(FrameworkDictStore):
    """Adapter for ``llama_index.core.vector_stores.SimpleVectorStore``, which ranks by cosine.

    Args:
        vector_store: the store.
        persist_path: its JSON file; written, atomically, after every `replace`, so that other processes find it.
            Without it changes stay in memory, as with the framework's own store. Other versions are then in memory as
            well, and otherwise in files beside it.

    Raises:
        TypeError: anything but a SimpleVectorStore.
    """

    def __init__(self, vector_store: Any, *, persist_path: str | Path | None = None) -> None:
        if not isinstance(getattr(getattr(vector_store, "data", None), "embedding_dict", None), dict):
            raise TypeError(f"expected a LlamaIndex SimpleVectorStore, got {type(vector_store).__name__}")
        super().__init__(vector_store, "simple", persist_path, key="simple-memory")

    @classmethod
    def open(cls, persist_path: str | Path) -> SimpleStore:
        """The store that a JSON file holds, without an index."""
        framework = import_package("llama_index.core.vector_stores", "SimpleStore.open", "llama-index")
        load = framework.SimpleVectorStore.from_persist_path
        vector_store, state = load_whole(Path(persist_path), lambda path: load(str(path)))
        store = cls(vector_store, persist_path=persist_path)
        store._remember(state)
        return store

    def _mapping(self) -> Vectors:
        return self._contents()

    def _contents(self) -> dict[str, Any]:
        contents: dict[str, Any] = self.vector_store.data.embedding_dict
        return contents

    def _assign(self, contents: dict[str, Any]) -> None:
        self.vector_store.data.embedding_dict = contents

    def _holding(self, vectors: Mapping[str, list[float]]) -> dict[str, Any]:
        return {node_id: vectors.get(node_id, vector) for node_id, vector in list(self._contents().items())}

    def _object_with(self, contents: dict[str, Any]) -> Any:
        held = copy.copy(self.vector_store)
        held.data = dataclasses.replace(held.data, embedding_dict=contents)
        return held

    def _vectors_of(self, held: Any) -> Mapping[str, list[float]]:
        vectors: dict[str, list[float]] = held.data.embedding_dict
        return vectors

    def _writer(self, held: Any) -> Callable[[str], Any]:
        write: Callable[[str], Any] = held.persist
        return write

    def _loaded(self, path: Path) -> Any:
        return type(self.vector_store).from_persist_path(str(path))

    def _entries(self, held: Any) -> dict[str, Any]:
        data = held.data
        return {
            node_id: (vector, (data.metadata_dict or {}).get(node_id), data.text_id_to_ref_doc_id.get(node_id))
            for node_id, vector in list(data.embedding_dict.items())
        }

    def _take(self, names: list[str], held: Any) -> None:
        for place, source in zip(self._places(self.vector_store), self._places(held), strict=True):
            place.update({node_id: source[node_id] for node_id in names if node_id in source})

    def _forget(self, names: list[str]) -> None:
        for place in self._places(self.vector_store):
            for node_id in names:
                place.pop(node_id, None)

    def _stamps(self, held: Any) -> Stamps:
        found = Stamps()
        metadata, documents = held.data.metadata_dict or {}, held.data.text_id_to_ref_doc_id
        for name in _names_of_stamps(held):
            found |= Stamps.from_plain(metadata.get(name)) | Stamps.from_json(documents.get(name))
        return found

    def _put_stamps(self, held: Any, stamps: Stamps) -> None:
        metadata, documents = held.data.metadata_dict or {}, held.data.text_id_to_ref_doc_id
        for name in _names_of_stamps(held):
            for place in (metadata, documents):
                place.pop(name, None)
        taken = (held.data.embedding_dict, metadata, documents)
        name = next(name for name in numbered(STAMPS) if not any(name in place for place in taken))
        if stamps.nodes and metadata:
            metadata[name] = stamps.plain()
        elif stamps.nodes:
            documents[name] = json.dumps(stamps.plain())

    def _with_own_entries(self, held: Any) -> Any:
        other = copy.copy(held)
        metadata = held.data.metadata_dict and dict(held.data.metadata_dict)
        documents = dict(held.data.text_id_to_ref_doc_id)
        other.data = dataclasses.replace(held.data, metadata_dict=metadata, text_id_to_ref_doc_id=documents)
        return other

    @staticmethod
    def _places(held: Any) -> tuple[dict[str, Any], ...]:
        return held.data.metadata_dict, held.data.text_id_to_ref_doc_id, held.data.embedding_dict


def _names_of_stamps(held: Any) -> list[str]:
    """Where stamps of ours are, as against the metadata of a node, or what somebody else has put there."""
    found: list[str] = []
    metadata, documents = held.data.metadata_dict or {}, held.data.text_id_to_ref_doc_id
    for name in numbered(STAMPS):
        places = [place.get(name) for place in (metadata, documents)]
        if name not in held.data.embedding_dict and all(value is None or _is_stamps(value) for value in places):
            if places == [None, None]:
                return found
            found.append(name)
    return found


def _is_stamps(value: Any) -> bool:
    """Whether it is written as stamps are, or as JSON of these."""
    try:
        plain = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(plain, dict)
        and plain.keys() == {"history", "nodes"}
        and isinstance(plain["nodes"], dict)
        and all(is_stamps(stamps) for stamps in plain["nodes"].values())
    )
