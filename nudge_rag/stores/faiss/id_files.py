"""Node ids of an index, in the files that frameworks keep beside it."""

from __future__ import annotations

import json
from pathlib import Path

from nudge_rag.common.files import FileState, file_state

__all__ = ["find_ids", "read_ids", "states_of_id_files"]


def states_of_id_files(path: Path) -> tuple[FileState | None, ...]:
    """Return the states of the files beside an index that may hold its node ids."""
    places = (path.with_suffix(".pkl"), path.with_name("id_map.json"), path.with_name("index_store.json"))
    return tuple(file_state(place) for place in places)


def find_ids(path: Path) -> dict[int, str]:
    """Read node ids from the files that LlamaIndex persists in the folder of an index.

    Raises:
        ValueError: there is none, or one that describes several indexes.
    """
    mapped, structs = path.with_name("id_map.json"), path.with_name("index_store.json")
    if mapped.is_file():
        return {
            int(label): name
            for label, name in json.loads(mapped.read_text(encoding="utf-8"))["faiss_id_to_node_id_map"].items()
        }
    pickled = path.with_suffix(".pkl")
    if not structs.is_file() and pickled.is_file():
        raise ValueError(
            f"the node ids of {path} are in LangChain's {pickled}, which is not read here: load both by"
            " FAISS.load_local, and pass langchain_nudge.embedding_store(vectorstore, persist_path=...) of that (on"
            " the command line module:object), or give ids="
        )
    if not structs.is_file():
        raise ValueError(f"no id_map.json or index_store.json beside {path}: give ids=")
    entries = list(json.loads(structs.read_text(encoding="utf-8"))["index_store/data"].values())
    if len(entries) != 1:
        raise ValueError(f"{structs} describes {len(entries)} indexes: give ids=")
    data = entries[0]["__data__"]
    nodes = (json.loads(data) if isinstance(data, str) else data)["nodes_dict"]
    return {int(label): name for label, name in nodes.items()}


def read_ids(path: Path) -> dict[int, str]:
    """Read node ids from a JSON file: a list by position, or an object of FAISS id to node id.

    Raises:
        ValueError: it is neither.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        pairs = enumerate(given) if isinstance(given, list) else ((int(k), name) for k, name in given.items())
        return {label: name for label, name in pairs if isinstance(name, str)}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON list or object of node ids: {error}") from error
