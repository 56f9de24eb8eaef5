"""Processes that push or roll back and are killed: run by tests through `Killer`, not by pytest.

A parent imports what a kind of store needs, opens nothing, and forks one child per job: a line of JSON on its input.
The child kills itself at its n-th step, or is killed by the parent after some time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import nudge_rag.folders
from nudge_rag import reapply, rollback, versions
from nudge_rag.pushing import push_vectors
from nudge_rag.stores import ChromaStore, FaissStore, LanceStore, PgVectorStore, SimpleStore

COLLECTION = "killed"


def import_for(kind: str) -> None:
    if kind == "simple":
        import llama_index.core.vector_stores  # noqa: F401
    elif kind == "faiss":
        import faiss  # noqa: F401
    elif kind == "lancedb":
        import lancedb  # noqa: F401
    elif kind.startswith("chroma"):
        import chromadb  # noqa: F401
    else:
        import psycopg  # noqa: F401


def open_store(kind: str, address: str) -> Any:
    if kind == "simple":
        return SimpleStore.open(address)
    if kind == "faiss":
        return FaissStore.open(address, Path(address).with_name("ids.json"))
    if kind == "lancedb":
        return LanceStore.open(address, "nodes")
    if kind == "chroma":
        from chromadb.api.shared_system_client import SharedSystemClient

        SharedSystemClient.clear_system_cache()  # what another process has written is seen by a new client only
        return ChromaStore.open(address, COLLECTION)
    if kind == "chroma-server":
        import chromadb

        client = chromadb.HttpClient(host="127.0.0.1", port=int(address))
        return ChromaStore(client.get_collection(COLLECTION, embedding_function=None))
    return PgVectorStore(address, COLLECTION)


class Steps:
    """Dies before, between and after the parts of every write to the store and to the journal."""

    def __init__(self, left: int) -> None:
        self.left = left

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def instrument(self, store: Any) -> Any:
        replace, write = store.replace, nudge_rag.folders._write_synced

        def replace_in_parts(ids: Any, vectors: Any) -> None:
            self.step()
            for part in np.array_split(np.arange(len(ids)), 3):
                replace([ids[at] for at in part], np.asarray(vectors)[part])
                self.step()

        def write_and_step(path: Path, content: bytes) -> None:
            self.step()
            write(path, content)
            self.step()

        store.replace = replace_in_parts
        nudge_rag.folders._write_synced = write_and_step
        return store


def nudged(originals: np.ndarray, number: int) -> np.ndarray:
    """The vectors of the nudge of that number, known to whoever checks."""
    return (originals + np.random.default_rng([7, number]).normal(size=originals.shape)).astype(np.float32)


def loop(store: Any, root: Path, ids: list[str], originals: np.ndarray, seed: int, ready: int) -> None:
    """Push and roll back, as chance has it, until killed."""
    rng = np.random.default_rng(seed)
    os.write(ready, b".")
    while True:
        chance, number = rng.random(), int(rng.integers(1_000_000))
        if chance < 0.6:
            chosen = np.sort(rng.permutation(len(ids))[: len(ids) if chance < 0.3 else len(ids) // 2])
            vectors = nudged(originals, number)[chosen]
            push_vectors(
                store, [ids[at] for at in chosen], originals[chosen], vectors, root=root, details={"number": number}
            )
        elif chance < 0.8:
            rollback(store, root)
        else:
            live = [version.name for version in versions(store, root) if version.state == "committed"]
            if live:
                rollback(store, root, version=live[-1])


def work(job: dict[str, Any], ready: int) -> None:
    arrays = np.load(job["vectors"])
    ids, originals, root = arrays["ids"].tolist(), arrays["originals"], Path(job["root"])
    store = open_store(job["kind"], job["address"])
    if job["action"] == "loop":
        loop(store, root, ids, originals, job["seed"], ready)
        return
    if "steps" in job:
        store = Steps(job["steps"]).instrument(store)
    else:
        os.write(ready, b".")
    if job["action"] == "push":
        push_vectors(
            store, ids, originals, nudged(originals, job["number"]), root=root, details={"number": job["number"]}
        )
    elif job["action"] == "rollback":
        rollback(store, root)
    else:
        reapply(store, root)


def fork(job: dict[str, Any]) -> int:
    """Run a job in a child; the signal that ended it, 0 for none, -1 for an error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            warnings.simplefilter("ignore")
            work(job, writer)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writer)
    if "seconds" in job:
        os.read(reader, 1)  # nothing where the child died before it was ready
        time.sleep(job["seconds"])
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(reader)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def main() -> None:
    warnings.simplefilter("ignore")
    import_for(sys.argv[1])
    for line in sys.stdin:
        sys.stdout.write(f"{fork(json.loads(line))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
