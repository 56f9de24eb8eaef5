"""A process that pushes or rolls back, and kills itself at the n-th step: run by test_kills.py, not by pytest."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nudge_rag.folders
from nudge_rag import drop_beside, rollback, switch
from nudge_rag.pushing import push_vectors
from nudge_rag.stores import LanceStore, PgVectorStore, SimpleStore

steps_left = 0


def step() -> None:
    global steps_left
    if steps_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    steps_left -= 1


def open_store(kind: str, address: str) -> Any:
    if kind == "simple":
        return SimpleStore.open(address)
    if kind == "lancedb":
        return LanceStore.open(address, "nodes")
    return PgVectorStore(address, "killed")


def in_parts(store: Any) -> Any:
    replace = store.replace

    def replace_in_parts(ids: Any, vectors: Any) -> None:
        step()
        for part in np.array_split(np.arange(len(ids)), 3):
            replace([ids[at] for at in part], np.asarray(vectors)[part])
            step()

    store.replace = replace_in_parts
    return store


def killing(store: Any) -> Any:
    """Die before, between and after the parts of every write to the store and to the journal."""
    write = nudge_rag.folders._write_synced

    def write_and_step(path: Path, content: bytes) -> None:
        step()
        write(path, content)
        step()

    def around(method: Any) -> Any:
        def call(*args: Any) -> Any:
            step()
            found = method(*args)
            step()
            return found

        return call

    store = in_parts(store)
    for name in ("switch", "drop_beside"):
        if hasattr(store, name):
            setattr(store, name, around(getattr(store, name)))
    if hasattr(store, "create_beside"):
        create = around(store.create_beside)
        store.create_beside = lambda label: in_parts(create(label))
    nudge_rag.folders._write_synced = write_and_step
    return store


def main() -> None:
    global steps_left
    kind, address, root, action, steps = sys.argv[1:]
    steps_left = int(steps)
    arrays = np.load(Path(root) / "vectors.npz")
    store = killing(open_store(kind, address))
    mode = {"push": "in-place", "push-beside": "side-by-side"}.get(action)
    folder = Path(root) / "v"
    if mode:
        push_vectors(store, arrays["ids"].tolist(), arrays["originals"], arrays["nudged"], root=folder, mode=mode)
    else:
        {"rollback": rollback, "switch": switch, "drop": drop_beside}[action](store, folder)


if __name__ == "__main__":
    main()
